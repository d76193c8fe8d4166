"""Sessions belong to who opened them, and live as long as they are used."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from models.errors import Forbidden, InProgress, NotFound
from models.ids import new_id
from models.resilience.deadline import Deadline
from models.sessions.lock import MemorySessionLock
from models.sessions.manager import SessionManager
from models.sessions.memory import MemorySessionStore
from models.sessions.types import SessionStatus, Turn

START = datetime(2026, 6, 1, tzinfo=UTC)


@dataclass
class Clock:
    now: datetime = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> SessionManager:
    return SessionManager(MemorySessionStore(clock=clock), MemorySessionLock(), ttl_s=3600, max_turns=2, clock=clock)


async def test_a_session_is_found_by_its_owner_only(sessions: SessionManager) -> None:
    session = await sessions.open(principal="web", customer_id="customer_1", metadata={"page": "/plans"})
    assert await sessions.get(session.session_id, principal="web") == session
    with pytest.raises(Forbidden):
        await sessions.get(session.session_id, principal="other")
    with pytest.raises(NotFound):
        await sessions.get("ses_unknown", principal="web")


async def test_a_session_expires_unless_it_is_used(sessions: SessionManager, clock: Clock) -> None:
    session = await sessions.open(principal="web")
    clock.now += timedelta(minutes=59)
    async with sessions.hold(session.session_id, principal="web", deadline=Deadline.after(1)) as held:
        await sessions.save(held)
    clock.now += timedelta(minutes=59)
    assert (await sessions.get(session.session_id, principal="web")).expires_at == clock.now + timedelta(minutes=1)
    clock.now += timedelta(minutes=1)
    with pytest.raises(NotFound):
        await sessions.get(session.session_id, principal="web")


async def test_a_customers_sessions_are_listed_newest_first_for_their_owner(
    sessions: SessionManager, clock: Clock
) -> None:
    first = await sessions.open(principal="web", customer_id="customer_1")
    clock.now += timedelta(seconds=1)
    second = await sessions.open(principal="web", customer_id="customer_1")
    await sessions.open(principal="other", customer_id="customer_1")
    await sessions.open(principal="web", customer_id="customer_2")
    listed = await sessions.of_customer("customer_1", principal="web")
    assert [session.session_id for session in listed] == [second.session_id, first.session_id]


async def test_an_ended_session_stays_readable_and_ending_twice_is_harmless(sessions: SessionManager) -> None:
    session = await sessions.open(principal="web")
    ended = await sessions.end(session.session_id, principal="web", deadline=Deadline.after(1))
    again = await sessions.end(session.session_id, principal="web", deadline=Deadline.after(1))
    assert ended.status is SessionStatus.ENDED
    assert again == ended


async def test_only_the_latest_turns_are_kept(sessions: SessionManager) -> None:
    session = await sessions.open(principal="web")
    turns = tuple(Turn(turn_id=f"turn_{n}", client_message_id=None, text=str(n), at=START) for n in range(3))
    async with sessions.hold(session.session_id, principal="web", deadline=Deadline.after(1)) as held:
        saved = await sessions.save(replace(held, turns=turns))
    assert [turn.text for turn in saved.turns] == ["1", "2"]


async def test_a_stranger_cannot_block_the_owner(sessions: SessionManager) -> None:
    session = await sessions.open(principal="web")
    with pytest.raises(Forbidden):
        async with sessions.hold(session.session_id, principal="other", deadline=Deadline.after(1)):
            pass
    async with sessions.hold(session.session_id, principal="web", deadline=Deadline.after(1)):
        with pytest.raises(InProgress):
            async with sessions.hold(session.session_id, principal="web", deadline=Deadline.after(0)):
                pass


def test_ids_sort_by_time_and_do_not_repeat() -> None:
    early = new_id("ses", clock=lambda: 1_000.0)
    late = new_id("ses", clock=lambda: 1_000.001)
    assert early < late
    assert len({new_id("ses", clock=lambda: 1.0) for _ in range(1000)}) == 1000
    assert new_id("ses", clock=lambda: 0, entropy=lambda n: b"\0" * n) == "ses_" + "0" * 26
