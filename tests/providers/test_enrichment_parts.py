"""The enrichment deployment's parts over both databases: what is told through events is what the next read shows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import select

from demo.seed import plant
from deployments.enrichment import EnrichmentDeployment
from deployments.enrichment_parts import EnrichmentParts, build_enrichment
from models.clock import utc_now
from models.enrichment.events import Event, EventType, ProductActivity
from models.enrichment.history_release import AuditedHistory
from models.enrichment.selection import DEFAULT_FILE, AgentViews
from models.enrichment.types import ContextRequest
from models.errors import UnknownCustomer
from models.resilience.deadline import Deadline
from models.settings import Settings
from models.telemetry import NoMetrics
from models.workflows.types import Channel
from providers.database import Database
from providers.record_tables import AuditLine
from providers.systems.context_history import SqlContextHistory
from providers.systems.events import SqlEvents
from providers.systems.tickets import SqlTicketSystem
from tests.fakes.embedder import HashingEmbedder

CUSTOMER = "customer_123"


@pytest.fixture
async def parts(database: Database) -> AsyncIterator[EnrichmentParts]:
    """Everything but the background: a test delivers by itself."""
    await plant(database, customers=123, seed=7, now=utc_now())
    built = build_enrichment(Settings(), database, embedder=HashingEmbedder(), metrics=NoMetrics())
    yield built
    await built.close()


def request(agent_type: str = "support", **more: Any) -> ContextRequest:
    return ContextRequest(deadline=Deadline.after(10), agent_type=agent_type, **more)


async def read(parts: EnrichmentParts, customer_id: str = CUSTOMER) -> dict[str, Any]:
    reading = await parts.reader.read(customer_id, request())
    found: dict[str, Any] = orjson.loads(reading.body)
    return found


async def test_a_ticket_that_rapport_opens_shows_in_the_next_read(database: Database, parts: EnrichmentParts) -> None:
    before = (await read(parts))["support_history"]["open_tickets"]
    await SqlTicketSystem(database).open(
        customer_id=CUSTOMER, subject="Help", body="Help", channel=Channel.CHAT, priority="high", reason="wish"
    )
    assert (await read(parts))["support_history"]["open_tickets"] == before
    assert await parts.relay.deliver() == 1
    assert (await read(parts))["support_history"]["open_tickets"] == before + 1


async def test_announced_activity_shows_and_leaves_other_sections_as_they_were(
    database: Database, parts: EnrichmentParts
) -> None:
    before = await read(parts)
    fact = ProductActivity(contact_id="con_123_1", name="login", feature=None, quantity=1)
    event = Event(type=EventType.PRODUCT_ACTIVITY, at=utc_now(), customer_id=CUSTOMER, fact=fact)
    await SqlEvents(database).accept([event])
    await parts.relay.deliver()
    after = await read(parts)
    logins = "login_count_30d"
    assert after["engagement_metrics"][logins] == before["engagement_metrics"][logins] + 1
    assert after["current_activity"]["active_now"] is True
    as_of = {name: provider["as_of"] for name, provider in after["providers"].items()}
    assert as_of["subscription_details"] == before["providers"]["subscription_details"]["as_of"]
    assert as_of["engagement_metrics"] != before["providers"]["engagement_metrics"]["as_of"]


async def test_a_customer_who_was_unknown_is_known_once_created(database: Database, parts: EnrichmentParts) -> None:
    with pytest.raises(UnknownCustomer):
        await read(parts, "customer_124")
    await plant(database, customers=124, seed=7, now=utc_now())
    await SqlEvents(database).accept([Event(type=EventType.CUSTOMER_CREATED, at=utc_now(), customer_id="customer_124")])
    await parts.relay.deliver()
    assert (await read(parts, "customer_124"))["customer_id"] == "customer_124"


async def test_many_are_read_as_bytes_and_unmasked_ones_are_in_the_trail(
    database: Database, parts: EnrichmentParts
) -> None:
    body = await parts.reader.read_many([CUSTOMER, "nobody", "customer_1"], request("sales"))
    found = orjson.loads(body)
    assert [context["customer_id"] for context in found["contexts"]] == [CUSTOMER, "customer_1"]
    assert found["unknown"] == ["nobody"]
    assert "jordan.blake@example.com" in body.decode()
    async with database.session() as session:
        actions = (await session.scalars(select(AuditLine.action))).all()
    assert actions.count("context.release") >= 2


class Replica(EnrichmentDeployment):
    """The deployment over parts that are given, as its handle reaches it."""

    def __init__(self, parts: EnrichmentParts) -> None:
        self._parts = parts

    def __del__(self) -> None:  # type: ignore[override]  # the parts are the fixture's to close
        return None


async def test_what_a_handle_is_given_unmasked_is_in_the_trail_too(database: Database, parts: EnrichmentParts) -> None:
    replica = Replica(parts)
    one = await replica.enrich(CUSTOMER, request("sales"), "key:crm", "req_1")
    many = await replica.enrich_many([CUSTOMER, "customer_1"], request("sales"), "key:crm", "req_2")
    for context in (one, many[CUSTOMER]):
        assert context.customer_intelligence is not None
        assert context.customer_intelligence.contact_email == "jordan.blake@example.com"
    async with database.session() as session:
        lines = (await session.scalars(select(AuditLine))).all()
    assert [(line.actor, line.action, line.request_id) for line in lines] == [
        ("key:crm", "context.release", "req_1"),
        ("key:crm", "context.release", "req_2"),
    ]


async def test_tightened_rules_hold_for_what_was_read_before(
    database: Database, parts: EnrichmentParts, tmp_path: Path
) -> None:
    await parts.reader.read(CUSTOMER, request("sales"))
    await parts.orchestrator.settle()
    assert "jordan.blake@example.com" in str(await parts.history.page(CUSTOMER, agent_type="sales"))
    table = tmp_path / "agent_types.yaml"
    table.write_text(DEFAULT_FILE.read_text().replace("  sales:\n    rules: open", "  sales:\n    rules: masked"))
    views = AgentViews.load(table, secret=Settings().hash_salt.get_secret_value())
    tightened = AuditedHistory(SqlContextHistory(database), views, parts.audit, salt="salt")
    page = await tightened.page(CUSTOMER, agent_type="sales")
    assert page.entries[0].content["customer_intelligence"]["contact_email"] == "[redacted]"
    assert "jordan" not in str(page).lower()


async def test_what_was_read_is_found_in_the_history(parts: EnrichmentParts) -> None:
    parts.start()
    version = (await read(parts))["context_version"]
    await parts.orchestrator.settle()
    page = await parts.history.page(CUSTOMER, agent_type="support")
    assert [entry.context_version for entry in page.entries] == [version]


async def test_closing_twice_and_without_a_start_is_harmless(database: Database) -> None:
    built = build_enrichment(Settings(), database, embedder=HashingEmbedder(), metrics=NoMetrics())
    await built.close()
    await built.close()
