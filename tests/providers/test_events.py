"""Events of other systems on both databases: all kept or none, once, with the caches told in the same transaction."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from models.enrichment.events import (
    OUTDATED,
    ClosedConversation,
    Event,
    EventType,
    IncidentReport,
    ProductActivity,
    SecurityFinding,
)
from models.errors import InvalidRequest
from providers.database import Database
from providers.record_tables import OutboxMessage, ReceivedEvent, StrategyAssignment, StrategyOutcome
from providers.systems.events import SqlEvents
from providers.systems.outbox import CONTEXT_CHANGED, SqlOutbox
from providers.table_types import Table
from providers.tables import Account, Conversation, Customer, Incident, ProductEvent, SecurityEvent

NOW = datetime(2026, 3, 14, 16, 45, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
async def events(database: Database) -> SqlEvents:
    """Over `customer_1` and `customer_2` of `acc_1`, and `customer_3` of `acc_3`."""
    async with database.transaction() as session:
        await add_customers(session, "acc_1", "customer_1", "customer_2")
        await add_customers(session, "acc_3", "customer_3")
    return SqlEvents(database, clock=lambda: NOW)


async def add_customers(session: AsyncSession, account_id: str, *customer_ids: str) -> None:
    session.add(
        Account(
            account_id=account_id,
            company_name="Acme",
            industry="Dental",
            country="DE",
            domain="a.example.com",
            employees=3,
            created_at=NOW,
        )
    )
    await session.flush()
    for customer_id in customer_ids:
        session.add(
            Customer(
                customer_id=customer_id,
                account_id=account_id,
                lifecycle="active",
                health_score=50,
                churn_risk=0.5,
                customer_since=NOW,
                marketing_consent=True,
                updated_at=NOW,
            )
        )


def changed(type: EventType, customer_id: str = "customer_1", **more: object) -> Event:
    return replace(Event(type=type, at=NOW, customer_id=customer_id), **more)  # type: ignore[arg-type]  # fields of it


def activity(customer_id: str = "customer_1", **more: object) -> Event:
    fact = ProductActivity(contact_id="con_1", name="feature_used", feature="Reports", quantity=3)
    return changed(EventType.PRODUCT_ACTIVITY, customer_id, fact=fact, **more)


def closed(conversation_id: str = "cnv_1", customer_id: str = "customer_1", *, csat: int | None = None) -> Event:
    fact = ClosedConversation(
        conversation_id=conversation_id,
        agent_id="agt_1",
        channel="chat",
        topic="billing",
        resolved=True,
        csat=csat,
        started_at=NOW - HOUR / 2,
        ended_at=NOW,
    )
    return changed(EventType.CONVERSATION_CLOSED, customer_id, fact=fact)


def finding(customer_id: str = "customer_1", *, resolved_at: datetime | None = None) -> Event:
    fact = SecurityFinding(
        finding_id="sec_1", kind="new_device", severity="low", detail="From Oslo", resolved_at=resolved_at
    )
    return changed(EventType.SECURITY_EVENT, customer_id, fact=fact)


def incident(*, status: str = "investigating", resolved_at: datetime | None = None) -> Event:
    fact = IncidentReport(
        incident_id="inc_1",
        component="calendar",
        title="Calendar slow",
        severity="minor",
        status=status,
        started_at=NOW - HOUR,
        resolved_at=resolved_at,
    )
    return Event(type=EventType.INCIDENT_CHANGED, at=NOW, fact=fact)


async def told(database: Database) -> dict[str, list[str]]:
    """What the outbox tells the caches: tags by customer id, none meaning everything."""
    messages = await SqlOutbox(database).pending(topic=CONTEXT_CHANGED)
    found = {message.subject_id: message.payload["tags"] for message in messages}
    assert len(found) == len(messages)
    return found


async def count(database: Database, table: type[Table]) -> int:
    async with database.session() as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


async def test_what_events_report_is_kept_and_told(database: Database, events: SqlEvents) -> None:
    accepted = await events.accept([activity(), closed(csat=4), finding(), incident()])
    assert len(accepted.new) == 4
    assert all(event_id.startswith("evt_") for event_id in accepted.event_ids)
    async with database.session() as session:
        used = await session.scalar(select(ProductEvent))
        talk = await session.get_one(Conversation, "cnv_1")
        found = await session.get_one(SecurityEvent, "sec_1")
        trouble = await session.get_one(Incident, "inc_1")
    assert used is not None
    assert (used.customer_id, used.feature, used.quantity, used.at) == ("customer_1", "Reports", 3, NOW)
    assert (talk.customer_id, talk.csat, talk.ended_at, talk.topic) == ("customer_1", 4, NOW, "billing")
    assert (found.customer_id, found.kind, found.at, found.resolved_at) == ("customer_1", "new_device", NOW, None)
    assert (trouble.component, trouble.status) == ("calendar", "investigating")
    changes = await told(database)
    assert set(changes) == {"customer_1", ""}
    assert {"conversations", "security", "usage", "feature_usage"} <= set(changes["customer_1"])
    assert set(changes[""]) == set(OUTDATED[EventType.INCIDENT_CHANGED])


async def test_an_event_counts_once_in_a_list_and_over_lists(database: Database, events: SqlEvents) -> None:
    again = activity(event_id="evt_1")
    first = await events.accept([again, again, activity()])
    assert first.event_ids[:2] == ("evt_1", "evt_1")
    assert len(first.new) == 2
    second = await events.accept([again])
    assert (second.event_ids, second.new) == (("evt_1",), ())
    assert await count(database, ProductEvent) == 2
    assert await count(database, OutboxMessage) == 1


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        (activity("customer_9"), "/events/1/customer_id"),
        (finding("customer_9"), "/events/1/customer_id"),
        (closed(customer_id="customer_2"), "/events/1/conversation_id"),
        (changed(EventType.CUSTOMER_CHANGED, at=NOW + HOUR), "/events/1/at"),
    ],
)
async def test_one_event_that_cannot_be_accepted_leaves_nothing_of_all(
    database: Database, events: SqlEvents, wrong: Event, pointer: str
) -> None:
    await events.accept([closed()])
    before = [await count(database, table) for table in (ProductEvent, ReceivedEvent, OutboxMessage, Incident)]
    with pytest.raises(InvalidRequest) as refused:
        await events.accept([incident(), wrong, activity(event_id="evt_1")])
    assert [field.pointer for field in refused.value.fields] == [pointer]
    after = [await count(database, table) for table in (ProductEvent, ReceivedEvent, OutboxMessage, Incident)]
    assert after == before
    async with database.session() as session:
        assert (await session.get_one(Conversation, "cnv_1")).customer_id == "customer_1"
    assert len((await events.accept([activity(event_id="evt_1")])).new) == 1


async def test_a_conversation_of_someone_unknown_is_kept(database: Database, events: SqlEvents) -> None:
    await events.accept([closed(customer_id="nobody_we_know")])
    async with database.session() as session:
        assert (await session.get_one(Conversation, "cnv_1")).customer_id == "nobody_we_know"


async def test_the_last_report_of_a_record_stands(database: Database, events: SqlEvents) -> None:
    await events.accept([closed(), closed(csat=2), incident(), finding()])
    await events.accept([incident(status="resolved", resolved_at=NOW), finding(resolved_at=NOW)])
    async with database.session() as session:
        assert (await session.get_one(Conversation, "cnv_1")).csat == 2
        assert (await session.get_one(Incident, "inc_1")).resolved_at == NOW
        assert (await session.get_one(SecurityEvent, "sec_1")).resolved_at == NOW


async def test_a_rating_is_kept_until_another_one_comes(database: Database, events: SqlEvents) -> None:
    async def csat(conversation_id: str) -> int | None:
        async with database.session() as session:
            return (await session.get_one(Conversation, conversation_id)).csat

    await events.accept([closed(csat=2)])
    await events.accept([closed()])
    assert await csat("cnv_1") == 2
    await events.accept([closed(csat=5)])
    assert await csat("cnv_1") == 5
    await events.accept([closed("cnv_2", csat=4), closed("cnv_2")])
    assert await csat("cnv_2") == 4


async def test_a_change_of_an_account_outdates_everything_of_all_its_customers(
    database: Database, events: SqlEvents
) -> None:
    await events.accept(
        [
            changed(EventType.INVOICE_CHANGED, "customer_2"),
            Event(type=EventType.ACCOUNT_CHANGED, at=NOW, account_id="acc_1"),
            Event(type=EventType.ACCOUNT_CHANGED, at=NOW, account_id="acc_of_nobody"),
            changed(EventType.DEAL_CHANGED, "customer_3"),
            changed(EventType.TICKET_CHANGED, "customer_3"),
        ]
    )
    some = sorted({*OUTDATED[EventType.DEAL_CHANGED], *OUTDATED[EventType.TICKET_CHANGED]})
    assert await told(database) == {"customer_1": [], "customer_2": [], "customer_3": some}


async def test_sections_narrow_a_change_and_are_told_by_their_providers_names(
    database: Database, events: SqlEvents
) -> None:
    narrow = changed(EventType.CUSTOMER_CHANGED, sections=("company_news", "account_health"))
    await events.accept([narrow, changed(EventType.CUSTOMER_CREATED, "customer_new")])
    assert await told(database) == {"customer_1": ["account_health", "news_api"], "customer_new": []}


async def test_what_could_not_be_told_at_once_is_announced(database: Database, events: SqlEvents) -> None:
    await events.announce(["customer_1", "customer_2"], ["usage"])
    await events.announce([], ["vendors"])
    assert await told(database) == {"customer_1": ["usage"], "customer_2": ["usage"], "": ["vendors"]}


async def test_a_conversation_counts_once_in_the_experiments_its_customer_was_in_before(database: Database) -> None:
    events = SqlEvents(database, experiments=["budget"], clock=lambda: NOW)
    async with database.transaction() as session:
        for customer_id, at in (("customer_1", NOW - HOUR), ("customer_2", NOW)):
            session.add(
                StrategyAssignment(experiment="budget", customer_id=customer_id, strategy="fast", assigned_at=at)
            )
    await events.accept([closed(), closed("cnv_2", "customer_2"), closed("cnv_3", "customer_3")])
    await events.accept([closed(csat=5)])
    async with database.session() as session:
        outcomes = (await session.scalars(select(StrategyOutcome).order_by(StrategyOutcome.measure))).all()
    assert [(each.customer_id, each.measure, each.value) for each in outcomes] == [
        ("customer_1", "csat", 5.0),
        ("customer_1", "handle_minutes", 30.0),
        ("customer_1", "resolved", 1.0),
    ]


async def test_as_many_events_as_a_request_holds(database: Database, events: SqlEvents) -> None:
    many = [activity(event_id=f"evt_{number}") for number in range(250)]
    many += [closed(f"cnv_{number}", f"customer_{number}") for number in range(250)]
    assert len((await events.accept(many)).new) == 500
    assert await count(database, ProductEvent) == 250
    assert await count(database, Conversation) == 250
