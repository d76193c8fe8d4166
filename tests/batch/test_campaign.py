"""Campaigns end to end on a real local Ray and a real database: the report, its failures, and its determinism."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import create_async_engine

from batch.engines import Engines
from batch.pipeline import STAGES, CampaignPipeline, Run
from models.campaign.config import CampaignConfig
from models.campaign.frames import ToneFrame
from models.campaign.reporting import CampaignReport
from models.campaign.types import StageState, Tone
from models.safety.audit import hash_subject
from providers.tables import Customer
from tests.batch.conftest import AS_OF, CUSTOMERS, ROOT
from tests.fakes.campaign import AuditInMemory, campaign_engines

pytestmark = pytest.mark.usefixtures("local_ray")
ARTICLES = ROOT / "demo" / "articles"

Frames = Mapping[Tone, ToneFrame]


async def run_campaign(
    config: CampaignConfig,
    frames: Frames,
    engines: Engines,
    folder: Path,
    *,
    audit: AuditInMemory | None = None,
    customers: int | None = 200,
) -> tuple[CampaignReport, AuditInMemory]:
    audit = audit or AuditInMemory()
    heard: list[str] = []

    async def progress(stage: str, done: int, total: int) -> None:
        heard.append(stage)

    pipeline = CampaignPipeline(
        config,
        frames,
        engines,
        audit,
        Run(
            campaign_id="cpn_test", as_of=AS_OF, customers=customers, report_dir=folder, hash_salt="salt", shard_size=64
        ),
        clock=lambda: datetime.now(UTC),
        new_id=lambda prefix: f"{prefix}_x",
        progress=progress,
    )
    report = await pipeline.run()
    assert heard == [*STAGES, "done"]
    return report, audit


def states(report: CampaignReport) -> dict[str, StageState]:
    return {stage.name: stage.state for stage in report.stages}


def read_json(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return loaded


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


async def test_a_campaign_from_customers_to_report(
    config: CampaignConfig, frames: Frames, database_url: str, tmp_path: Path
) -> None:
    engines = campaign_engines(database_url, ARTICLES)
    report, audit = await run_campaign(config, frames, engines, tmp_path / "one")
    assert states(report) == dict.fromkeys(STAGES, StageState.COMPLETED)

    found = read_json(tmp_path / "one")
    assert found["engagement"] == "simulated"
    assert sum(segment["size"] for segment in found["segments"]) == 200
    assert found["audience"]["left_out_without_consent"] > 0
    assert found["audience"]["held_back"] == {"customers": 0, "unread": 0, "reasons": {}}
    variants = [variant for segment in found["segments"] for variant in segment["variants"]]
    assert len(variants) == 3 * len(found["segments"]) == len(audit.records)
    for variant in variants:
        assert len(variant["subject"]) <= 60
        assert 150 <= len(variant["body"].split()) <= 250
        for numbered in variant["citations"]:
            assert f"“{numbered['citation']['quote']}” [{numbered['number']}]" in variant["body"]

    lifts = found["experiment"]["result"]["lifts"]
    assert {lift["arm"] for lift in lifts} == {"urgent", "informational", "friendly"}
    assert all(lift["conclusion"] in ("higher", "lower", "no difference shown", "not measured") for lift in lifts)

    assigned = read_csv(tmp_path / "one" / "assignments.csv")
    assert len(assigned) == 200
    assert not any("customer_" in row["customer"] for row in assigned)
    known = {hash_subject("salt", f"customer_{i}") for i in range(CUSTOMERS + 200)}
    assert {row["customer"] for row in assigned} <= known
    for segment in found["segments"]:
        sizes = [sum(r["segment"] == segment["label"] and r["arm"] == arm for r in assigned) for arm in
                 ("control", "urgent", "informational", "friendly")]  # fmt: skip
        assert max(sizes) - min(sizes) <= 1
    assert len(read_csv(tmp_path / "one" / "safety_audit.csv")) == len(variants)
    page = (tmp_path / "one" / "report.html").read_text(encoding="utf-8")
    assert "Simulated engagement" in page
    assert "data:image/png;base64," in page
    assert "http://" not in page
    assert "https://" not in page

    again, _ = await run_campaign(config, frames, engines, tmp_path / "two")
    first, second = found, read_json(tmp_path / "two")
    assert again.plan == report.plan
    assert first.pop("timing") != second.pop("timing")
    assert first == second
    assert (tmp_path / "one" / "assignments.csv").read_text() == (tmp_path / "two" / "assignments.csv").read_text()


async def test_without_knowledge_everyone_stays_in_control_and_the_report_says_so(
    config: CampaignConfig, frames: Frames, database_url: str, tmp_path: Path
) -> None:
    engines = campaign_engines(database_url, ARTICLES, knowledge_away=True)
    report, audit = await run_campaign(config, frames, engines, tmp_path)
    assert states(report)["retrieval"] is StageState.FAILED
    assert states(report)["report"] is StageState.COMPLETED
    assert audit.records == []
    found = read_json(tmp_path)
    retrieval = next(stage for stage in found["stages"] if stage["name"] == "retrieval")
    assert {failure["code"] for failure in retrieval["failures"]} == {"KNOWLEDGE_UNAVAILABLE"}
    assert {row["arm"] for row in read_csv(tmp_path / "assignments.csv")} == {"control"}
    assert found["experiment"]["result"]["state"] == "no experiment"
    assert all(segment["all_in_control"] for segment in found["segments"])
    assert "stays in the control group" in (tmp_path / "report.html").read_text(encoding="utf-8")


async def test_a_blocked_variant_is_audited_and_never_assigned(
    config: CampaignConfig, frames: Frames, database_url: str, tmp_path: Path
) -> None:
    engines = campaign_engines(database_url, ARTICLES, forbidden=["in a tone that is urgent"])
    report, audit = await run_campaign(config, frames, engines, tmp_path)
    outcomes = {(record.details["tone"], record.outcome) for record in audit.records}
    assert outcomes == {("urgent", "block"), ("informational", "allow"), ("friendly", "allow")}
    assert {row["arm"] for row in read_csv(tmp_path / "assignments.csv")} == {"control", "informational", "friendly"}
    blocked = [row for row in read_csv(tmp_path / "safety_audit.csv") if row["decision"] == "block"]
    assert {row["tone"] for row in blocked} == {"urgent"}
    assert {row["severity"] for row in blocked} == {"6"}
    assert len(report.blocked) == len(report.segments)


async def test_without_a_durable_audit_trail_nothing_is_sent(
    config: CampaignConfig, frames: Frames, database_url: str, tmp_path: Path
) -> None:
    engines, away = campaign_engines(database_url, ARTICLES), AuditInMemory(away=True)
    report, _ = await run_campaign(config, frames, engines, tmp_path, audit=away)
    assert states(report)["safety"] is StageState.FAILED
    assert {row["arm"] for row in read_csv(tmp_path / "assignments.csv")} == {"control"}
    assert {row["reasons"] for row in read_csv(tmp_path / "safety_audit.csv")} == {"no decision was made or kept"}


async def test_a_customer_with_impossible_data_is_recorded_and_left_out(
    config: CampaignConfig, frames: Frames, database_url: str, tmp_path: Path
) -> None:
    engine = create_async_engine(database_url)
    damaged = Customer.customer_id.in_(["customer_100", "customer_101", "customer_102", "customer_103"])
    try:
        async with engine.begin() as connection:
            before = (await connection.execute(Customer.__table__.select().where(damaged))).mappings().all()
            await connection.execute(update(Customer).where(damaged).values(churn_risk=-1.0))
        report, _ = await run_campaign(config, frames, campaign_engines(database_url, ARTICLES), tmp_path)
    finally:
        async with engine.begin() as connection:
            for row in before:
                mine = Customer.customer_id == row["customer_id"]
                await connection.execute(update(Customer).where(mine).values(churn_risk=row["churn_risk"]))
        await engine.dispose()
    segmentation = next(stage for stage in report.stages if stage.name == "segmentation")
    assert segmentation.state is StageState.PARTIAL
    assert segmentation.rows_failed == sum(row["marketing_consent"] for row in before) > 0
    assert {failure.code for failure in segmentation.failures} == {"INVALID_REQUEST"}
    assert not any("customer_" in failure.key for failure in segmentation.failures)
    assert segmentation.rows_out + segmentation.rows_failed == 200
    assert states(report)["report"] is StageState.COMPLETED


async def test_a_missing_database_still_ends_in_a_report(
    config: CampaignConfig, frames: Frames, tmp_path: Path
) -> None:
    engines = campaign_engines(f"sqlite+aiosqlite:///{tmp_path}/none.db", ARTICLES)
    report, _ = await run_campaign(config, frames, engines, tmp_path)
    audience = report.stages[0]
    assert (audience.state, audience.error_code) == (StageState.FAILED, "DATABASE_UNAVAILABLE")
    assert states(report)["report"] is StageState.COMPLETED
    assert report.customers == 0
    assert any("could not be analysed" in sentence for sentence in read_json(tmp_path)["summary"])
