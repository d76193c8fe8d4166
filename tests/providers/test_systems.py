"""Tickets, compliance, outbox, campaigns and idempotency on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from models.errors import (
    CacheUnavailable,
    Conflict,
    DatabaseUnavailable,
    IdempotencyMismatch,
    InProgress,
    NotFound,
)
from models.workflows.protocol import ComplianceSystem, CustomerDirectory, OrderSystem, TicketSystem
from models.workflows.types import Channel, Severity
from providers.database import Database
from providers.record_tables import ComplianceRecord
from providers.systems.campaigns import CampaignStatus, SqlCampaignRegistry
from providers.systems.compliance import SqlComplianceSystem
from providers.systems.customers import SqlCustomerDirectory
from providers.systems.idempotency import Fresh, Replay, SqlIdempotencyStore
from providers.systems.orders import SqlOrderSystem
from providers.systems.outbox import CONTEXT_CHANGED, PendingMessage, SqlOutbox
from providers.systems.tickets import SqlTicketSystem
from providers.tables import Account, Customer, Ticket

NOW = datetime(2026, 3, 14, 16, 45, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def typed(database: Database) -> tuple[TicketSystem, ComplianceSystem, OrderSystem, CustomerDirectory]:
    """The type checker proves here that the systems keep their contracts."""
    return (
        SqlTicketSystem(database),
        SqlComplianceSystem(database),
        SqlOrderSystem(database),
        SqlCustomerDirectory(database),
    )


async def open_ticket(database: Database, *, customer_id: str | None = "customer_1", body: str = "Help") -> str:
    return await SqlTicketSystem(database, clock=Clock()).open(
        customer_id=customer_id,
        subject="Export stops",
        body=body,
        channel=Channel.CHAT,
        priority="high",
        reason="customer_request",
    )


async def report(database: Database, *, customer_id: str | None = None, text: str = "[PERSON] got a rash") -> str:
    return await SqlComplianceSystem(database, clock=Clock()).record(
        customer_id=customer_id,
        channel=Channel.MAIL,
        severity=Severity.URGENT,
        redacted_text=text,
        due_in=timedelta(minutes=15),
        queue="pharmacist",
        request_id="req_1",
    )


async def test_an_opened_ticket_and_its_message_are_there(database: Database) -> None:
    ticket_id = await open_ticket(database)
    assert ticket_id.startswith("tck_")
    async with database.session() as session:
        ticket = await session.get_one(Ticket, ticket_id)
    assert (ticket.status, ticket.opened_at, ticket.channel) == ("open", NOW, "chat")
    opened, changed = await SqlOutbox(database).pending()
    assert (opened.topic, opened.subject_id) == ("ticket.opened", ticket_id)
    assert (changed.topic, changed.subject_id) == (CONTEXT_CHANGED, "customer_1")
    assert "support_history" in changed.payload["tags"]


async def test_a_ticket_of_nobody_changes_no_context(database: Database) -> None:
    await open_ticket(database, customer_id=None)
    assert await SqlOutbox(database).pending(topic=CONTEXT_CHANGED) == []


async def test_what_is_added_to_a_ticket_stands_at_its_end_and_is_told(database: Database) -> None:
    ticket_id = await open_ticket(database)
    other = await open_ticket(database)
    tickets = SqlTicketSystem(database, clock=Clock())
    await tickets.comment(ticket_id, "Customer: still\x00 there? \ud800")
    await tickets.comment(ticket_id, "Customer: hello?")
    async with database.session() as session:
        body = (await session.get_one(Ticket, ticket_id)).body
        assert (await session.get_one(Ticket, other)).body == "Help"
    first, second, third = body.split("\n\n")
    assert (first, second[:15], third) == ("Help", "Customer: still", "Customer: hello?")
    told = await SqlOutbox(database).pending(topic="ticket.commented")
    assert [message.subject_id for message in told] == [ticket_id] * 2


async def test_a_ticket_that_does_not_exist_takes_no_comment(database: Database) -> None:
    with pytest.raises(NotFound):
        await SqlTicketSystem(database).comment("tck_none", "Customer: hello?")
    assert await SqlOutbox(database).pending() == []


@pytest.mark.parametrize("customer_id", [None, "nobody_we_know"])
async def test_a_report_is_taken_from_anyone_in_any_characters(database: Database, customer_id: str | None) -> None:
    record_id = await report(database, customer_id=customer_id, text="rash\x00 after \ud800 lotion")
    async with database.session() as session:
        record = await session.get_one(ComplianceRecord, record_id)
    assert record_id.startswith("cmp_")
    assert record.customer_id == customer_id
    assert record.due_at - record.recorded_at == timedelta(minutes=15)
    assert record.redacted_text == "rash� after � lotion"
    (message,) = await SqlOutbox(database).pending()
    assert message.subject_id == record_id
    assert "rash" not in str(message.payload)


async def test_a_record_that_cannot_be_committed_has_no_message_and_no_id(database: Database) -> None:
    system = SqlComplianceSystem(database, clock=Clock(), ids=lambda prefix: f"{prefix}_same")

    async def record() -> str:
        return await system.record(
            customer_id=None,
            channel=Channel.API,
            severity=Severity.HIGH,
            redacted_text="rash",
            due_in=timedelta(hours=2),
            queue="pharmacist",
            request_id="",
        )

    await record()
    with pytest.raises(Exception, match=r"(?i)unique"):
        await record()
    assert len(await SqlOutbox(database).pending()) == 1


async def test_a_missing_database_is_named_as_such() -> None:
    database = Database("sqlite+aiosqlite:////nonexistent/rapport.db")
    with pytest.raises(DatabaseUnavailable):
        await report(database)
    await database.close()


async def test_messages_of_a_topic_are_delivered_in_order_until_they_arrive(database: Database) -> None:
    outbox = SqlOutbox(database, clock=Clock())
    tickets = [await open_ticket(database) for _ in range(3)]
    arrived: list[str] = []
    lost = 1

    async def send(messages: Sequence[PendingMessage]) -> None:
        nonlocal lost
        if len(arrived) == 1 and lost:
            lost -= 1
            raise CacheUnavailable("gone")
        arrived.extend(message.subject_id for message in messages)

    assert await outbox.deliver(send, topic="ticket.opened", limit=1) == 1
    with pytest.raises(CacheUnavailable):
        await outbox.deliver(send, topic="ticket.opened", limit=1)
    assert [(m.subject_id, m.attempts) for m in await outbox.pending(topic="ticket.opened")] == [
        (tickets[1], 1),
        (tickets[2], 0),
    ]
    assert await outbox.deliver(send, topic="ticket.opened") == 2
    assert await outbox.deliver(send, topic="ticket.opened") == 0
    assert arrived == tickets
    assert len(await outbox.pending(topic=CONTEXT_CHANGED, limit=2)) == 2


async def test_what_was_delivered_long_ago_is_removed_and_nothing_else(database: Database) -> None:
    clock = Clock()
    outbox = SqlOutbox(database, clock=clock)

    async def send(messages: Sequence[PendingMessage]) -> None:
        return None

    await open_ticket(database)
    await outbox.deliver(send, topic="ticket.opened")
    clock.now += timedelta(days=7)
    await open_ticket(database)
    await outbox.deliver(send, topic="ticket.opened")
    assert await outbox.remove_delivered(before=clock.now) == 1
    assert await outbox.remove_delivered(before=clock.now) == 0
    assert len(await outbox.pending(topic=CONTEXT_CHANGED)) == 2


async def test_the_directory_knows_who_is_a_customer(database: Database) -> None:
    async with database.transaction() as session:
        session.add(
            Account(
                account_id="acc_1",
                company_name="Acme",
                industry="Dental",
                country="DE",
                domain="a.example.com",
                employees=3,
                created_at=NOW,
            )
        )
        await session.flush()
        session.add(
            Customer(
                customer_id="customer_1",
                account_id="acc_1",
                lifecycle="active",
                health_score=50,
                churn_risk=0.5,
                customer_since=NOW,
                marketing_consent=True,
                updated_at=NOW,
            )
        )
    directory = SqlCustomerDirectory(database)
    assert await directory.exists("customer_1")
    assert not await directory.exists("customer_2")
    assert not await directory.exists("' OR 1=1 --")


class TestCampaigns:
    async def test_a_run_goes_its_way_and_ends_for_good(self, database: Database) -> None:
        clock = Clock()
        registry = SqlCampaignRegistry(database, clock=clock)
        created = await registry.create(owner="marketing", config={"customers": 500})
        assert created.campaign_id.startswith("cpn_")
        assert created.status is CampaignStatus.QUEUED
        clock.now += timedelta(seconds=5)
        await registry.update(created.campaign_id, status=CampaignStatus.RUNNING, stage="safety", progress=0.5)
        seen = await registry.get(created.campaign_id)
        assert (seen.stage, seen.progress, seen.config) == ("safety", 0.5, {"customers": 500})
        assert seen.updated_at - seen.created_at == timedelta(seconds=5)
        ended = await registry.update(created.campaign_id, status=CampaignStatus.CANCELLED)
        assert ended.status.ended
        with pytest.raises(Conflict):
            await registry.update(created.campaign_id, progress=0.9)
        assert (await registry.get(created.campaign_id)).progress == 0.5

    async def test_an_unknown_run_is_not_found(self, database: Database) -> None:
        registry = SqlCampaignRegistry(database)
        with pytest.raises(NotFound):
            await registry.get("cpn_none")
        with pytest.raises(NotFound):
            await registry.update("cpn_none", progress=1.0)

    async def test_runs_are_listed_newest_first_page_by_page(self, database: Database) -> None:
        clock = Clock()
        registry = SqlCampaignRegistry(database, clock=clock)
        ids = []
        for number in range(5):
            clock.now += timedelta(seconds=number // 2)  # some share an instant
            ids.append((await registry.create(owner="a" if number else "b", config={})).campaign_id)
        page = await registry.list(limit=2)
        seen = list(page)
        while page:
            page = await registry.list(limit=2, before=page[-1])
            seen.extend(page)
        assert sorted(run.campaign_id for run in seen) == sorted(ids)
        assert [run.created_at for run in seen] == sorted((run.created_at for run in seen), reverse=True)
        assert len(await registry.list(owner="b")) == 1


class TestIdempotency:
    async def test_the_first_answer_is_replayed(self, database: Database) -> None:
        store = SqlIdempotencyStore(database, clock=Clock())
        claim = await store.begin("key_1", "POST /campaigns", "abc", "hash")
        assert isinstance(claim, Fresh)
        await store.finish(claim, status=202, body=b'{"id": "cpn_1"}')
        assert await store.begin("key_1", "POST /campaigns", "abc", "hash") == Replay(
            status=202, body=b'{"id": "cpn_1"}'
        )

    async def test_scope_is_principal_route_and_key(self, database: Database) -> None:
        store = SqlIdempotencyStore(database, clock=Clock())
        for scope in (("a", "r", "k"), ("b", "r", "k"), ("a", "s", "k"), ("a", "r", "l")):
            assert isinstance(await store.begin(*scope, "hash"), Fresh)

    async def test_while_it_runs_and_with_another_body(self, database: Database) -> None:
        store = SqlIdempotencyStore(database, clock=Clock())
        claim = await store.begin("a", "r", "k", "hash")
        assert isinstance(claim, Fresh)
        with pytest.raises(InProgress) as running:
            await store.begin("a", "r", "k", "hash")
        assert running.value.retry_after_s
        with pytest.raises(IdempotencyMismatch):
            await store.begin("a", "r", "k", "other")
        await store.finish(claim, status=200, body=b"")
        with pytest.raises(IdempotencyMismatch):
            await store.begin("a", "r", "k", "other")

    async def test_of_many_at_once_exactly_one_works(self, database: Database, database_url: str) -> None:
        others = [Database(database_url, busy_timeout_s=10) for _ in range(2)]
        stores = [SqlIdempotencyStore(each, clock=Clock()) for each in (database, *others)]
        claims = await asyncio.gather(
            *(stores[n % 3].begin("a", "r", "k", "hash") for n in range(12)), return_exceptions=True
        )
        for each in others:
            await each.close()
        assert sum(isinstance(claim, Fresh) for claim in claims) == 1
        assert sum(isinstance(claim, InProgress) for claim in claims) == 11

    async def test_an_abandoned_request_may_be_tried_again(self, database: Database) -> None:
        store = SqlIdempotencyStore(database, clock=Clock())
        claim = await store.begin("a", "r", "k", "hash")
        assert isinstance(claim, Fresh)
        await store.abandon(claim)
        assert isinstance(await store.begin("a", "r", "k", "other"), Fresh)

    async def test_a_request_whose_process_died_is_taken_over_once(self, database: Database) -> None:
        clock = Clock()
        store = SqlIdempotencyStore(database, clock=clock, lease=timedelta(minutes=5))
        dead = await store.begin("a", "r", "k", "hash")
        assert isinstance(dead, Fresh)
        clock.now += timedelta(minutes=6)
        heir = await store.begin("a", "r", "k", "hash")
        assert isinstance(heir, Fresh)
        with pytest.raises(Conflict):
            await store.finish(dead, status=500, body=b"late")
        await store.finish(heir, status=200, body=b"done")
        assert await store.begin("a", "r", "k", "hash") == Replay(status=200, body=b"done")

    async def test_keys_are_kept_for_a_day(self, database: Database) -> None:
        clock = Clock()
        store = SqlIdempotencyStore(database, clock=clock)
        claim = await store.begin("a", "r", "k", "hash")
        assert isinstance(claim, Fresh)
        await store.finish(claim, status=200, body=b"old")
        clock.now += timedelta(hours=23, minutes=59)
        await store.remove_expired()
        assert isinstance(await store.begin("a", "r", "k", "hash"), Replay)
        clock.now += timedelta(minutes=1)
        assert isinstance(await store.begin("a", "r", "k", "hash"), Fresh)


async def test_every_id_in_a_listing_of_tickets_is_its_own(database: Database) -> None:
    await asyncio.gather(*(open_ticket(database) for _ in range(10)))
    async with database.session() as session:
        assert len(set(await session.scalars(select(Ticket.ticket_id)))) == 10
