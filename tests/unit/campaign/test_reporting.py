"""The report folder: complete, escaped, without personal data, and written as far as possible."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from models.campaign.analysis import ExperimentState, analyse
from models.campaign.config import load_campaign_config
from models.campaign.reporting import CampaignReport, SegmentMessages, as_json, render, summary, write_report
from models.campaign.types import (
    FEATURE_NAMES,
    Arm,
    Assignment,
    CellSummary,
    CheckedVariant,
    Engagement,
    HeldBack,
    NumberedCitation,
    Provenance,
    Segment,
    StageRecord,
    StageState,
    Tone,
    Variant,
    VariantFailure,
    VariantProblem,
)
from models.llm.types import Citation
from models.plain import plain
from models.safety.types import Decision, Finding, Harm

NOW = datetime(2026, 11, 1, 8, tzinfo=UTC)
CONFIG = load_campaign_config(Path(__file__).resolve().parents[3] / "config" / "campaign" / "demo.yaml")
CELLS = tuple(
    CellSummary(
        stratum="loyal",
        arm=arm,
        customers=500,
        visits=60 + 5 * i,
        conversions=9,
        spend_cents=9_000,
        spend_cents_squared=10_000_000,
    )
    for i, arm in enumerate(Arm)
)


def variant(tone: Tone, subject: str = "About seats") -> Variant:
    citation = Citation(
        passage_id="p", document_id="seats", title="How seats work", version="1.4", quote="Seats are free."
    )
    return Variant(
        variant_id=f"cpn_1.loyal.{tone.value}",
        segment="loyal",
        tone=tone,
        subject=subject,
        body="“Seats are free.” [1]",
        citations=(NumberedCitation(number=1, citation=citation),),
        frame_id=tone.value,
        frame_version="1.0",
    )


def checked(tone: Tone, decision: Decision) -> CheckedVariant:
    severity = 6 if decision is Decision.BLOCK else 0
    return CheckedVariant(
        variant=variant(tone),
        decision=decision,
        findings=(Finding(harm=Harm.HATE, severity=severity, probability=0.1),),
        reasons=("hate at 6",) if severity else (),
        policy_version="7",
        checked_at=NOW,
    )


def report(decisions: Sequence[Decision] = (Decision.ALLOW, Decision.BLOCK), **changes: object) -> CampaignReport:
    done = tuple(checked(tone, decision) for tone, decision in zip(Tone, decisions, strict=False))
    told = SegmentMessages(
        segment=Segment(label="loyal", size=2_000, share=1.0, characteristics=dict.fromkeys(FEATURE_NAMES, 1.0)),
        passages=(),
        variants=(*(c.variant for c in done), variant(Tone.FRIENDLY, subject="<script>alert(1)</script>")),
        failures=(
            VariantFailure(
                segment="loyal", tone=Tone.FRIENDLY, problems=(VariantProblem.BODY_TOO_SHORT,), detail="<b>"
            ),
        ),
        checked=done,
    )
    whole = CampaignReport(
        provenance=Provenance(campaign_id="cpn_1", name="A & B <test>", seed=1, as_of=NOW, versions={"ray": "2"}),
        config=CONFIG,
        segments=(told,),
        plan=None,
        result=analyse(CELLS, dict.fromkeys(Arm, 500.0)),
        cells=CELLS,
        customers=2_000,
        without_consent=12,
        held_back=HeldBack(),
        stages=(StageRecord(name="audience", state=StageState.COMPLETED, rows_in=2_000, rows_out=2_000),),
        started_at=NOW,
        finished_at=NOW + timedelta(seconds=3),
        engines="tests",
    )
    return replace(whole, **changes)  # type: ignore[arg-type]  # tests change fields of different types


def engaged() -> list[tuple[str, Assignment, Engagement]]:
    did = Engagement(visited=True, converted=False, spend_cents=0)
    return [("0123456789abcdef", Assignment(customer_id="customer_1", stratum="loyal", arm=Arm.URGENT), did)]


def test_the_folder_holds_numbers_audit_assignments_and_page(tmp_path: Path) -> None:
    write_report(report(), tmp_path / "deep" / "folder", engaged())
    folder = tmp_path / "deep" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == [
        "assignments.csv", "report.html", "report.json", "safety_audit.csv",
    ]  # fmt: skip
    numbers = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert numbers["timing"]["duration_s"] == 3
    assert numbers["segments"][0]["variants"][1]["safety"]["decision"] == "block"
    with (folder / "safety_audit.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["tone"], line["decision"], line["hate"]) for line in lines] == [
        ("urgent", "allow", "0"),
        ("informational", "block", "6"),
        ("friendly", "block", ""),
    ]
    assert all("customer_1" not in path.read_text(encoding="utf-8") for path in folder.iterdir())


def test_the_page_escapes_everything_and_needs_nothing_from_outside() -> None:
    page = render(report())
    assert "<script" not in page
    assert "A &amp; B &lt;test&gt;" in page
    assert "Simulated engagement." in page
    assert page.count("data:image/png;base64,") == 3
    assert 'src="http' not in page


@pytest.mark.parametrize("arms", [0, 1])
def test_a_page_without_experiment_or_result_is_still_a_page(arms: int) -> None:
    nothing = analyse(CELLS[:arms], {})
    assert nothing.state is ExperimentState.NO_EXPERIMENT
    assert nothing.headline in render(report(result=nothing))
    assert "could not be analysed" in render(report(result=None, segments=(), cells=()))


def test_a_hidden_experiment_shows_no_effect_anywhere() -> None:
    thinned = (replace(CELLS[0], customers=200), *CELLS[1:])
    hidden = report(result=analyse(thinned, dict.fromkeys(Arm, 500.0)))
    assert hidden.result is not None
    assert hidden.result.state is ExperimentState.SAMPLE_RATIO_MISMATCH
    assert as_json(hidden)["experiment"]["result"]["lifts"] == []
    assert render(hidden).count("data:image/png;base64,") == 1
    assert "no effect is shown" in " ".join(summary(hidden))


def test_the_page_shows_the_ratio_of_every_segment_with_arms_that_vanished() -> None:
    lost = analyse(CELLS[:-1], dict.fromkeys(Arm, 500.0), planned={"loyal": tuple(Arm)})
    page = render(report(result=lost))
    assert "By segment" in page
    assert ">0 <span" in page


def test_the_summary_owns_up_to_silence_and_failures() -> None:
    failed = StageRecord(name="safety", state=StageState.FAILED, error_code="SAFETY_UNAVAILABLE", error="away")
    told = " ".join(summary(report(decisions=(Decision.BLOCK,), stages=(failed,))))
    assert "No message could be used for: loyal." in told
    assert "safety (failed)" in told
    assert "12 more were left out" in told


def test_who_was_held_back_and_why_is_told_in_json_and_on_the_page() -> None:
    reasons = {"Payment <overdue>": 8, "3 or more open tickets": 5, "A flag that nobody raises": 0}
    held = report(held_back=HeldBack(customers=1_012, unread=1_001, reasons=reasons))
    assert as_json(held)["audience"] == {
        "customers": 2_000,
        "left_out_without_consent": 12,
        "held_back": {"customers": 1_012, "unread": 1_001, "reasons": reasons},
    }
    sentence = summary(held)[1]
    assert sentence == (
        "1,012 more are held back for now: Payment <overdue> (8), 3 or more open tickets (5), "
        "their context could not be read (1,001); some for more than one reason."
    )
    assert sentence.replace("<", "&lt;").replace(">", "&gt;") in render(held)
    assert "more than one" not in summary(report(held_back=HeldBack(customers=8, reasons={"Payment overdue": 8})))[1]
    assert "held back" not in " ".join(summary(report()))


def test_numbers_that_json_cannot_hold_become_null() -> None:
    assert plain({"a": math.nan, "b": (math.inf, 1.5), Arm.URGENT: NOW}) == {
        "a": None,
        "b": [None, 1.5],
        "urgent": "2026-11-01T08:00:00Z",
    }
