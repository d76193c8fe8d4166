"""Campaigns that hold customers back, end to end: by real contexts, by none, and by some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select

from batch import pipeline
from batch.columns import TOGETHER, table
from batch.engines import Engines, engines_for
from batch.stages.hold_back import JudgeCustomers
from models.campaign.config import CampaignConfig, HoldBack
from models.campaign.frames import ToneFrame
from models.campaign.types import StageState, Tone
from models.enrichment.types import ContextRequest
from models.resilience.deadline import Deadline
from models.safety.audit import hash_subject
from models.settings import DatabaseSettings, Settings
from providers.database import Database
from providers.tables import Customer, Ticket
from tests.batch.conftest import CUSTOMERS
from tests.batch.test_campaign import ARTICLES, read_csv, read_json, run_campaign, states
from tests.fakes.campaign import ContextsById, campaign_engines
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("local_ray")
Frames = Mapping[Tone, ToneFrame]
OVERDUE, TICKETS = "Payment overdue", "3 or more open tickets"


async def members(database_url: str, tickets: int = 0) -> set[str]:
    """Customers who agreed to marketing, with at least so many open tickets."""
    database = Database(database_url)
    mine = (Ticket.customer_id == Customer.customer_id, Ticket.status.in_(["open", "pending"]))
    opened = select(func.count()).select_from(Ticket).where(*mine).scalar_subquery()
    async with database.session() as session:
        found = await session.scalars(
            select(Customer.customer_id).where(Customer.marketing_consent.is_(True), opened >= tickets)
        )
        ids = set(found)
    await database.close()
    return ids


async def flagged(engines: Engines, customer_ids: set[str]) -> set[str]:
    request = ContextRequest(deadline=Deadline.after(30), agent_type="success", providers=("account_health",))
    async with engines.contexts() as source:
        found = await source.enrich_many(sorted(customer_ids), request)
    return {one for one, told in found.items() if told.account_health and OVERDUE in told.account_health.red_flags}


def written_to(folder: Path, customer_ids: set[str]) -> set[str]:
    known = {hash_subject("salt", customer_id): customer_id for customer_id in customer_ids}
    return {known[row["customer"]] for row in read_csv(folder / "assignments.csv")}


async def test_customers_with_open_trouble_are_not_written_to(
    demo_config: CampaignConfig, config: CampaignConfig, frames: Frames, database_url: str, tmp_path: Path
) -> None:
    settings = Settings(database=DatabaseSettings(url=SecretStr(database_url)))
    assert settings.database_url == database_url
    contexts = engines_for(settings, shared=False).contexts
    engines = replace(campaign_engines(database_url, ARTICLES), contexts=contexts)
    agreed = await members(database_url)
    overdue, busy = await flagged(engines, agreed), await members(database_url, tickets=3)
    troubled = overdue | busy
    assert overdue - busy
    assert busy - overdue

    report, _ = await run_campaign(demo_config, frames, engines, tmp_path / "on", customers=None)
    held = report.held_back
    assert written_to(tmp_path / "on", agreed) == agreed - troubled
    assert (held.customers, held.unread) == (len(troubled), 0)
    assert held.reasons == {OVERDUE: len(overdue), TICKETS: len(busy)}
    assert report.customers + held.customers + report.without_consent == CUSTOMERS
    stage = next(stage for stage in report.stages if stage.name == "hold_back")
    assert (stage.state, stage.rows_in, stage.rows_out, stage.rows_failed) == (
        StageState.COMPLETED, len(agreed), len(agreed - troubled), 0,
    )  # fmt: skip
    assert report.troubled == ()
    sentence = f"{len(troubled)} more are held back for now: {OVERDUE} ({len(overdue)}), {TICKETS} ({len(busy)})"
    assert any(told.startswith(sentence) for told in read_json(tmp_path / "on")["summary"])
    assert sentence in (tmp_path / "on" / "report.html").read_text(encoding="utf-8")

    off, _ = await run_campaign(config, frames, engines, tmp_path / "off", customers=None)
    assert written_to(tmp_path / "off", agreed) == agreed
    assert off.customers + off.without_consent == CUSTOMERS
    assert off.held_back.customers == 0


async def test_those_who_could_not_be_read_are_held_back_and_counted_apart(
    demo_config: CampaignConfig,
    frames: Frames,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "CUSTOMERS_TOGETHER", 50)
    agreed = await members(database_url)
    one, two, *_, three = sorted(agreed)
    contexts = ContextsById(overdue={one}, partial={one, two}, unknown={three})
    engines = campaign_engines(database_url, ARTICLES, contexts=contexts, closed=tmp_path / "closed")
    report, _ = await run_campaign(demo_config, frames, engines, tmp_path, customers=None)
    assert written_to(tmp_path, agreed) == agreed - {one, two, three}
    held = read_json(tmp_path)["audience"]["held_back"]
    assert held == {"customers": 3, "unread": 2, "reasons": {OVERDUE: 1, TICKETS: 0}}
    stage = next(stage for stage in report.stages if stage.name == "hold_back")
    assert (stage.state, stage.rows_failed, stage.note) == (StageState.PARTIAL, 0, "3 held back, 2 of them unread")

    async def was_closed() -> bool:
        return (tmp_path / "closed").exists()

    await until(was_closed)


async def test_when_most_could_not_be_read_nobody_is_written_to_and_the_remedy_is_named(
    demo_config: CampaignConfig, frames: Frames, database_url: str, tmp_path: Path
) -> None:
    report, audit = await run_campaign(demo_config, frames, campaign_engines(database_url, ARTICLES), tmp_path)
    stage = next(stage for stage in report.stages if stage.name == "hold_back")
    assert (stage.state, stage.error_code) == (StageState.FAILED, "STAGE_FAILED")
    assert stage.error == (
        "the context of 200 of 200 customers could not be read (CONTEXT_ENRICHMENT_FAILED: the application is away); "
        "mend what it is read from, or take hold_back out of the campaign file"
    )
    assert (report.customers, audit.records, read_csv(tmp_path / "assignments.csv")) == (0, [], [])
    assert states(report)["report"] is StageState.COMPLETED
    assert "hold_back (failed)" in " ".join(read_json(tmp_path)["summary"])


def test_an_actor_that_ends_closes_what_it_holds(tmp_path: Path) -> None:
    engines = campaign_engines("sqlite+aiosqlite://", ARTICLES, contexts=ContextsById(), closed=tmp_path / "closed")
    stage = JudgeCustomers(engines.contexts, HoldBack(open_tickets=3))
    together = table([{"number": 0, "customer_ids": '["a", "b"]'}], TOGETHER)
    assert stage(together).to_pylist() == stage(together).to_pylist()
    assert not (tmp_path / "closed").exists()
    del stage
    assert (tmp_path / "closed").exists()
