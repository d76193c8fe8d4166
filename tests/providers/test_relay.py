"""The relay on both databases: every committed change reaches the caches, whatever fails on the way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

import providers.systems.removal
from models.enrichment.events import Event, EventType
from models.errors import CacheUnavailable
from providers.database import Database
from providers.record_tables import OutboxMessage, ReceivedEvent
from providers.systems.events import SqlEvents
from providers.systems.outbox import CONTEXT_CHANGED, PendingMessage, SqlOutbox, enqueue_context_change
from providers.systems.relay import ContextChangeRelay, gathered

NOW = datetime(2026, 3, 14, 16, 45, tzinfo=UTC)
Told = tuple[tuple[str, ...], tuple[str, ...]]


class Caches:
    """What the caches were told, in order; unreachable while `away`, and slow to take it while `gate` is closed.

    What is told is forgotten in the own process even while they are away: `forgotten` holds it.
    """

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.forgotten: list[Told] = []
        self.away = False
        self.reached = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def invalidate(self, customer_ids: Sequence[str], tags: Sequence[str]) -> None:
        self.reached.set()
        await self.gate.wait()
        self.forgotten.append((tuple(customer_ids), tuple(tags)))
        if self.away:
            raise CacheUnavailable("gone")
        self.told.append((tuple(customer_ids), tuple(tags)))


class Rounds:
    """A sleep that ends when the test says so, and remembers how long it was to be."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self._asleep = asyncio.Semaphore(0)
        self._wake = asyncio.Semaphore(0)

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        self._asleep.release()
        await self._wake.acquire()

    async def ended(self) -> None:
        """Return when the round under way has ended."""
        await asyncio.wait_for(self._asleep.acquire(), 10)

    async def next(self) -> None:
        self._wake.release()
        await self.ended()


@pytest.fixture
def caches() -> Caches:
    return Caches()


@pytest.fixture
def rounds() -> Rounds:
    return Rounds()


@pytest.fixture
async def relay(database: Database, caches: Caches, rounds: Rounds) -> AsyncIterator[ContextChangeRelay]:
    relay = ContextChangeRelay(database, caches.invalidate, wall_clock=lambda: NOW, sleep=rounds.sleep)
    yield relay
    await relay.close()


async def change(database: Database, *customer_ids: str, tags: Sequence[str] = ()) -> None:
    async with database.transaction() as session:
        for customer_id in customer_ids or (None,):
            enqueue_context_change(session, customer_id, tags=tags, at=NOW)


async def left(database: Database) -> int:
    return len(await SqlOutbox(database).pending(topic=CONTEXT_CHANGED))


async def test_committed_changes_are_told_in_the_next_round(
    database: Database, relay: ContextChangeRelay, caches: Caches, rounds: Rounds
) -> None:
    relay.start()
    relay.start()
    await rounds.ended()
    await change(database, "customer_1", "customer_2", tags=["usage"])
    await rounds.next()
    assert caches.told == [(("customer_1", "customer_2"), ("usage",))]
    await rounds.next()
    assert len(caches.told) == 1
    assert set(rounds.asked) == {0.25}


async def test_a_change_that_is_rolled_back_is_never_told(
    database: Database, relay: ContextChangeRelay, caches: Caches
) -> None:
    async def fails_after_announcing() -> None:
        async with database.transaction() as session:
            enqueue_context_change(session, "customer_1", at=NOW)
            raise KeyError

    with pytest.raises(KeyError):
        await fails_after_announcing()
    assert await relay.deliver() == 0
    assert caches.told == []


async def test_while_the_caches_are_away_changes_wait_and_nothing_is_lost(
    database: Database,
    relay: ContextChangeRelay,
    caches: Caches,
    rounds: Rounds,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    caches.away = True
    await change(database, "customer_1")
    relay.start()
    await rounds.ended()
    for _ in range(6):
        await rounds.next()
    assert rounds.asked == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]
    (message,) = await SqlOutbox(database).pending()
    assert message.attempts == 7
    caches.away = False
    await rounds.next()
    assert caches.told == [(("customer_1",), ())]
    assert rounds.asked[-1] == 0.25
    assert caplog.messages.count("source went away") == caplog.messages.count("source is back") == 1


async def test_while_the_caches_are_away_every_change_is_forgotten_here(database: Database, caches: Caches) -> None:
    relay = ContextChangeRelay(database, caches.invalidate, batch=3, wall_clock=lambda: NOW)
    caches.away = True
    await change(database, "customer_1", tags=["usage"])
    await change(database, "customer_2", tags=["tickets"])
    await change(database, tags=["incidents"])
    await change(database, "customer_3", "customer_4")
    with pytest.raises(CacheUnavailable):
        await relay.deliver()
    here = [
        ((), ("incidents",)),
        (("customer_1",), ("usage",)),
        (("customer_2",), ("tickets",)),
        (("customer_3", "customer_4"), ()),
    ]
    assert caches.forgotten == here
    assert [message.attempts for message in await SqlOutbox(database).pending()] == [1] * 5
    caches.away = False
    assert await relay.deliver() == 5
    assert caches.told == here
    assert await left(database) == 0


async def test_a_change_that_fails_holds_up_none_behind_it(database: Database, caches: Caches) -> None:
    async def picky(customer_ids: Sequence[str], tags: Sequence[str]) -> None:
        if "customer_1" in customer_ids:
            raise CacheUnavailable("gone")
        await caches.invalidate(customer_ids, tags)

    relay = ContextChangeRelay(database, picky, batch=1, wall_clock=lambda: NOW)
    await change(database, "customer_1", "customer_2", "customer_3")
    with pytest.raises(CacheUnavailable):
        await relay.deliver()
    assert caches.told == [(("customer_2",), ()), (("customer_3",), ())]
    assert [message.subject_id for message in await SqlOutbox(database).pending()] == ["customer_1"]


async def test_callers_at_once_share_one_pass(database: Database, relay: ContextChangeRelay, caches: Caches) -> None:
    await change(database, "customer_1")
    caches.gate.clear()
    first = asyncio.create_task(relay.deliver())
    await caches.reached.wait()
    await change(database, "customer_2")
    second = asyncio.create_task(relay.deliver())
    await left(database)
    caches.gate.set()
    await asyncio.gather(first, second)
    assert caches.told == [(("customer_1",), ()), (("customer_2",), ())]


async def test_two_relays_tell_everything_and_on_postgresql_nothing_twice(
    database: Database, relay: ContextChangeRelay, caches: Caches
) -> None:
    other = ContextChangeRelay(database, caches.invalidate, wall_clock=lambda: NOW)
    await change(database, "customer_1")
    caches.gate.clear()
    first = asyncio.create_task(relay.deliver())
    await caches.reached.wait()
    await change(database, "customer_2")
    second = asyncio.create_task(other.deliver())
    if database.dialect == "postgresql":
        caches.reached.clear()
        await caches.reached.wait()
    caches.gate.set()
    await asyncio.gather(first, second)
    assert {customer_id for customer_ids, _ in caches.told for customer_id in customer_ids} == {
        "customer_1",
        "customer_2",
    }
    if database.dialect == "postgresql":
        assert sorted(caches.told) == [(("customer_1",), ()), (("customer_2",), ())]
    assert await left(database) == 0


async def test_a_relay_that_dies_midway_leaves_its_changes_to_the_next(
    database: Database, relay: ContextChangeRelay, caches: Caches
) -> None:
    await change(database, "customer_1")
    caches.gate.clear()
    dying = asyncio.create_task(relay.deliver())
    await caches.reached.wait()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    caches.gate.set()
    assert await relay.deliver() == 1
    assert caches.told == [(("customer_1",), ())]


async def test_more_changes_than_a_batch_are_told_in_one_go(database: Database, caches: Caches) -> None:
    relay = ContextChangeRelay(database, caches.invalidate, batch=2, wall_clock=lambda: NOW)
    await change(database, *(f"customer_{number}" for number in range(5)))
    assert await relay.deliver() == 5
    assert [len(customer_ids) for customer_ids, _ in caches.told] == [2, 2, 1]


async def test_what_is_older_than_a_week_is_removed(
    database: Database, relay: ContextChangeRelay, caches: Caches, rounds: Rounds
) -> None:
    week = timedelta(days=7)
    for age, event_id in ((week + timedelta(hours=1), "evt_old"), (week - timedelta(hours=1), "evt_new")):
        event = Event(type=EventType.CUSTOMER_CHANGED, at=NOW - age, customer_id="customer_1", event_id=event_id)
        await SqlEvents(database, clock=lambda age=age: NOW - age).accept([event])  # type: ignore[misc]  # bound now
        await ContextChangeRelay(database, caches.invalidate, wall_clock=lambda age=age: NOW - age).deliver()  # type: ignore[misc]  # as above
    await change(database, "customer_1")
    caches.away = True
    await relay.remove_expired()
    async with database.session() as session:
        assert list(await session.scalars(select(ReceivedEvent.event_id))) == ["evt_new"]
        assert await session.scalar(select(func.count()).select_from(OutboxMessage)) == 2
    assert await left(database) == 1


async def test_what_is_old_is_removed_in_short_transactions(
    database: Database, relay: ContextChangeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers.systems.removal, "_REMOVED_AT_ONCE", 2)
    begun = 0
    transaction = database.transaction

    def counted() -> AbstractAsyncContextManager[AsyncSession]:
        nonlocal begun
        begun += 1
        return transaction()

    async with database.transaction() as session:
        session.add_all(
            ReceivedEvent(
                event_id=f"evt_{number}",
                type="customer.changed",
                customer_id="customer_1",
                at=NOW,
                received_at=NOW - timedelta(days=8 if number < 5 else 6),
            )
            for number in range(6)
        )
    monkeypatch.setattr(database, "transaction", counted)
    await relay.remove_expired()
    assert begun == 3
    async with database.session() as session:
        assert list(await session.scalars(select(ReceivedEvent.event_id))) == ["evt_5"]
    await relay.remove_expired()
    assert begun == 3, "with nothing to remove no writer waits"


def message(subject_id: str, *tags: str) -> PendingMessage:
    return PendingMessage(
        message_id=0,
        topic=CONTEXT_CHANGED,
        subject_id=subject_id,
        payload={"tags": list(tags)},
        created_at=NOW,
        attempts=0,
    )


def test_a_batch_names_each_customer_once() -> None:
    messages = [
        message("a", "usage"),
        message("", "incidents"),
        message("b", "usage", "tickets"),
        message("a", "tickets"),
        message("c", "usage"),
        message("c"),
        message("c", "deals"),
        message("", "agents"),
        message("d"),
    ]
    assert gathered(messages) == [
        (("agents", "incidents"), ()),
        (("tickets", "usage"), ("a", "b")),
        ((), ("c", "d")),
    ]
    assert gathered([]) == gathered([message("")]) == []
