"""The report folder of a campaign: report.json, safety_audit.csv, assignments.csv and a self-contained report.html."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from models.campaign import plots
from models.campaign.analysis import ExperimentResult, ExperimentState
from models.campaign.config import CampaignConfig
from models.campaign.types import (
    Arm,
    Assignment,
    CellSummary,
    CheckedVariant,
    Engagement,
    ExperimentPlan,
    HeldBack,
    Provenance,
    RetrievedPassage,
    Segment,
    StageRecord,
    StageState,
    Variant,
    VariantFailure,
)
from models.plain import plain
from models.safety.types import Decision, Harm

_TEMPLATES = Path(__file__).parent / "templates"

REPORT, AUDIT, ASSIGNMENTS, PAGE = "report.json", "safety_audit.csv", "assignments.csv", "report.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentMessages:
    """One segment with everything made for it."""

    segment: Segment
    passages: tuple[RetrievedPassage, ...]
    variants: tuple[Variant, ...]
    failures: tuple[VariantFailure, ...]
    checked: tuple[CheckedVariant, ...]

    @property
    def in_control(self) -> bool:
        """Whether no variant was approved, so that the whole segment gets nothing."""
        return not any(checked.approved for checked in self.checked)

    @property
    def unchecked(self) -> tuple[Variant, ...]:
        """Variants that never got a decision, and are therefore not used."""
        decided = {checked.variant.variant_id for checked in self.checked}
        return tuple(variant for variant in self.variants if variant.variant_id not in decided)


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignReport:
    """All that one run brought, failures included."""

    provenance: Provenance
    config: CampaignConfig
    segments: tuple[SegmentMessages, ...]
    plan: ExperimentPlan | None
    result: ExperimentResult | None
    cells: tuple[CellSummary, ...]
    customers: int
    without_consent: int
    held_back: HeldBack
    stages: tuple[StageRecord, ...]
    started_at: datetime
    finished_at: datetime
    engines: str

    @property
    def blocked(self) -> tuple[CheckedVariant, ...]:
        return tuple(c for told in self.segments for c in told.checked if not c.approved)

    @property
    def troubled(self) -> tuple[StageRecord, ...]:
        """Stages that failed or did only part of their work."""
        return tuple(s for s in self.stages if s.state in (StageState.FAILED, StageState.PARTIAL))


#: A hashed customer id with what that customer got and did.
EngagedRow = tuple[str, Assignment, Engagement]


def write_report(report: CampaignReport, folder: Path, engaged: Iterable[EngagedRow]) -> None:
    """Write the four files; the JSON comes first, so that a failing plot or page never costs the numbers.

    `report.json` depends on the campaign's inputs alone, except for its member `timing`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(as_json(report), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / REPORT).write_text(text + "\n", encoding="utf-8")
    _write_csv(folder / AUDIT, _AUDIT_COLUMNS, _audit_rows(report))
    _write_csv(folder / ASSIGNMENTS, _ASSIGNMENT_COLUMNS, _assignment_rows(engaged))
    (folder / PAGE).write_text(render(report), encoding="utf-8")


def as_json(report: CampaignReport) -> dict[str, Any]:
    """The report as plain values: every instant and duration under `timing`, NaN and infinity as null."""
    return {
        "campaign": plain(report.provenance),
        "engagement": "simulated",
        "texts": "composed from approved frames and cited sentences",
        "models": report.engines,
        "headline": report.result.headline if report.result else "The experiment could not be analysed.",
        "summary": summary(report),
        "audience": {
            "customers": report.customers,
            "left_out_without_consent": report.without_consent,
            "held_back": plain(report.held_back),
        },
        "segments": [_segment_json(told) for told in report.segments],
        "experiment": {"plan": plain(report.plan), "result": plain(report.result), "cells": plain(report.cells)},
        "stages": [_without_time(plain(stage)) for stage in report.stages],
        "config": plain(report.config.model_dump()),
        "timing": {
            "started_at": plain(report.started_at),
            "finished_at": plain(report.finished_at),
            "duration_s": round((report.finished_at - report.started_at).total_seconds(), 3),
            "stages": {stage.name: round(stage.duration_s, 3) for stage in report.stages},
        },
    }


def _segment_json(told: SegmentMessages) -> dict[str, Any]:
    variants = [
        {
            **plain(checked.variant),
            "words": checked.variant.words,
            "safety": {
                "decision": checked.decision.value,
                "findings": plain(checked.findings),
                "reasons": plain(checked.reasons),
                "policy_version": checked.policy_version,
            },
        }
        for checked in told.checked
    ]
    return {
        **plain(told.segment),
        "all_in_control": told.in_control,
        "passages": [{k: v for k, v in plain(passage).items() if k != "text"} for passage in told.passages],
        "variants": variants,
        "unchecked_variants": plain(told.unchecked),
        "failures": plain(told.failures),
    }


def _without_time(stage: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in stage.items() if key not in ("started_at", "duration_s")}


_AUDIT_COLUMNS = (
    "campaign_id", "variant_id", "segment", "tone", "decision", "severity",
    *(harm.value for harm in Harm), "reasons", "policy_version", "frame", "checked_at",
)  # fmt: skip
_ASSIGNMENT_COLUMNS = ("customer", "segment", "arm", "visited", "converted", "spend_cents", "simulated")


def _audit_rows(report: CampaignReport) -> Iterable[Sequence[Any]]:
    for told in report.segments:
        for checked in told.checked:
            variant, severities = checked.variant, {f.harm: f.severity for f in checked.findings}
            yield (
                report.provenance.campaign_id,
                variant.variant_id,
                variant.segment,
                variant.tone.value,
                checked.decision.value,
                max(severities.values(), default=""),
                *(severities.get(harm, "") for harm in Harm),
                "; ".join(checked.reasons),
                checked.policy_version,
                f"{variant.frame_id}@{variant.frame_version}",
                plain(checked.checked_at),
            )
        for variant in told.unchecked:
            blank = [""] * (len(Harm) + 1)
            frame = f"{variant.frame_id}@{variant.frame_version}"
            not_decided = (*blank, "no decision was made or kept", "", frame, "")
            who = (report.provenance.campaign_id, variant.variant_id, variant.segment, variant.tone.value)
            yield (*who, Decision.BLOCK.value, *not_decided)


def _assignment_rows(engaged: Iterable[EngagedRow]) -> Iterable[Sequence[Any]]:
    for customer, assignment, e in engaged:
        did = (int(e.visited), int(e.converted), e.spend_cents, int(e.simulated))
        yield (customer, assignment.stratum, assignment.arm.value, *did)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def summary(report: CampaignReport) -> list[str]:
    """What a reader in a hurry must know, in plain sentences."""
    told = [
        f"{report.customers:,} customers in {len(report.segments)} segments were looked at; "
        f"{report.without_consent:,} more were left out because they did not agree to marketing."
    ]
    if report.held_back.customers:
        told.append(_held_back(report.held_back))
    composed = sum(len(messages.variants) for messages in report.segments)
    approved = sum(c.approved for messages in report.segments for c in messages.checked)
    told.append(f"{composed} messages were composed from approved articles; {approved} passed the safety check.")
    if quiet := [messages.segment.label for messages in report.segments if messages.in_control]:
        told.append(f"No message could be used for: {', '.join(quiet)}. These customers stay in the control group.")
    if report.result is None:
        told.append("The experiment could not be analysed; see the stages below.")
    else:
        told.append(f"In the simulation: {report.result.headline}")
    if report.result and report.result.state is ExperimentState.MEASURED and report.result.smallest_detectable:
        told.append(
            f"With groups of this size, a difference under about {100 * report.result.smallest_detectable:.1f} "
            "points would usually go unnoticed."
        )
    if report.troubled:
        names = ", ".join(f"{stage.name} ({stage.state.value})" for stage in report.troubled)
        told.append(f"Not everything worked: {names}.")
    return told


def _held_back(held: HeldBack) -> str:
    reasons = [f"{reason} ({count:,})" for reason, count in held.reasons.items() if count]
    if held.unread:
        reasons.append(f"their context could not be read ({held.unread:,})")
    several = "; some for more than one reason" if sum(held.reasons.values()) + held.unread > held.customers else ""
    return f"{held.customers:,} more are held back for now: {', '.join(reasons)}{several}."


def render(report: CampaignReport) -> str:
    """The page; self-contained, and every value in it escaped."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    result = report.result
    measured = result is not None and result.state is ExperimentState.MEASURED
    return environment.get_template("report.html.j2").render(
        report=report,
        result=result,
        measured=measured,
        summary=summary(report),
        harms=list(Harm),
        arms=list(Arm),
        sizes=_sizes(report),
        forest=plots.forest(result.lifts) if result and measured else "",
        rates=plots.rates(result.arms) if result and measured else "",
        bars=plots.segments([(told.segment.label, told.segment.size) for told in report.segments]),
        duration_s=(report.finished_at - report.started_at).total_seconds(),
    )


def _sizes(report: CampaignReport) -> dict[tuple[str, str], int]:
    return {(cell.stratum, cell.arm.value): cell.customers for cell in report.cells}
