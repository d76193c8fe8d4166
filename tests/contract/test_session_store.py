"""Every session store keeps the same promises, and every lock lets one writer in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from models.errors import CacheUnavailable, InProgress, NotFound
from models.llm.types import Citation
from models.resilience.deadline import Deadline
from models.resilience.redis_client import connect
from models.sessions.codec import JsonSessionCodec
from models.sessions.lock import MemorySessionLock
from models.sessions.memory import MemorySessionStore
from models.sessions.protocol import SessionLock, SessionStore
from models.sessions.redis import RedisSessionStore
from models.sessions.redis_lock import RedisSessionLock
from models.sessions.types import HandoffReason, Outcome, Session, SessionStatus, Turn
from tests.fakes.redis_server import RedisServer
from tests.waiting import until


@dataclass
class Clock:
    now: datetime

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.stop()


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[Redis]:
    client = connect(redis_server.url, timeout_s=0.3)
    await client.flushdb()
    yield client
    await client.aclose()


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime.now(UTC))


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest, clock: Clock) -> SessionStore:
    if request.param == "memory":
        return MemorySessionStore(clock=clock)
    return RedisSessionStore(request.getfixturevalue("client"), clock=clock)


@pytest.fixture(params=["memory", "redis"])
def lock(request: pytest.FixtureRequest) -> SessionLock:
    if request.param == "memory":
        return MemorySessionLock()
    return RedisSessionLock(request.getfixturevalue("client"))


def session_at(clock: Clock, session_id: str = "ses_1", *, ttl_s: float = 60, age_s: float = 0) -> Session:
    return Session(
        session_id=session_id,
        customer_id="customer_1",
        agent_type="support",
        owner="web",
        created_at=clock.now - timedelta(seconds=age_s),
        updated_at=clock.now,
        expires_at=clock.now + timedelta(seconds=ttl_s),
        status=SessionStatus.HANDED_OFF,
        metadata={"page": "/plans", "naïve": "✓"},
        turns=(
            Turn(
                turn_id="turn_1",
                client_message_id="m1",
                text="Où est ma commande? 📦",
                at=clock.now,
                outcome=Outcome.HANDED_OFF,
                reply="A colleague will take over.",
                citations=(Citation(passage_id="p", document_id="d", title="t", version="1", quote="verbatim"),),
                degraded=("context",),
                reason=HandoffReason.CUSTOMER_REQUEST,
                ticket_id="tck_1",
                timings_ms={"total": 1.5},
            ),
            Turn(turn_id="turn_2", client_message_id=None, text="pending", at=clock.now),
        ),
    )


class TestStore:
    async def test_a_session_comes_back_as_it_was(self, store: SessionStore, clock: Clock) -> None:
        session = session_at(clock)
        await store.save(session)
        assert await store.load("ses_1") == session

    async def test_saving_again_replaces(self, store: SessionStore, clock: Clock) -> None:
        await store.save(session_at(clock))
        ended = replace(session_at(clock), status=SessionStatus.ENDED, turns=())
        await store.save(ended)
        assert await store.load("ses_1") == ended

    async def test_unknown_and_removed_sessions_are_not_found(self, store: SessionStore, clock: Clock) -> None:
        with pytest.raises(NotFound):
            await store.load("ses_1")
        await store.save(session_at(clock))
        await store.remove("ses_1")
        with pytest.raises(NotFound):
            await store.load("ses_1")
        assert await store.of_customer("customer_1") == []

    async def test_a_session_is_gone_at_its_expiry(self, store: SessionStore, clock: Clock) -> None:
        await store.save(session_at(clock, ttl_s=60))
        clock.now += timedelta(seconds=60)
        with pytest.raises(NotFound):
            await store.load("ses_1")
        assert await store.of_customer("customer_1") == []

    async def test_saving_restarts_the_expiry(self, store: SessionStore, clock: Clock) -> None:
        session = session_at(clock, ttl_s=60)
        await store.save(session)
        clock.now += timedelta(seconds=59)
        await store.save(replace(session, expires_at=clock.now + timedelta(seconds=60)))
        clock.now += timedelta(seconds=59)
        assert (await store.load("ses_1")).session_id == "ses_1"

    async def test_a_customers_sessions_come_newest_first(self, store: SessionStore, clock: Clock) -> None:
        await store.save(session_at(clock, "ses_old", age_s=20))
        await store.save(session_at(clock, "ses_new", age_s=5))
        await store.save(replace(session_at(clock, "ses_other"), customer_id="customer_2"))
        await store.save(replace(session_at(clock, "ses_nobody"), customer_id=None))
        found = await store.of_customer("customer_1")
        assert [session.session_id for session in found] == ["ses_new", "ses_old"]


class TestLock:
    async def test_one_writer_at_a_time(self, lock: SessionLock) -> None:
        inside, most, entered = 0, 0, 0

        async def write() -> None:
            nonlocal inside, most, entered
            async with lock.hold("ses_1", deadline=Deadline.after(10)):
                inside += 1
                most, entered = max(most, inside), entered + 1
                await asyncio.sleep(0.005)
                inside -= 1

        await asyncio.gather(*(write() for _ in range(6)))
        assert (most, entered) == (1, 6)

    async def test_waiting_ends_at_the_deadline_and_other_sessions_are_free(self, lock: SessionLock) -> None:
        async with lock.hold("ses_1", deadline=Deadline.after(1)):
            with pytest.raises(InProgress):
                async with lock.hold("ses_1", deadline=Deadline.after(0.1)):
                    pass
            async with lock.hold("ses_2", deadline=Deadline.after(0.1)):
                pass

    async def test_a_failing_or_cancelled_holder_lets_go(self, lock: SessionLock) -> None:
        with pytest.raises(ValueError, match="defect"):
            async with lock.hold("ses_1", deadline=Deadline.after(1)):
                raise ValueError("defect")

        async def hold_long() -> None:
            async with lock.hold("ses_1", deadline=Deadline.after(1)):
                held.set()
                await asyncio.Event().wait()

        held = asyncio.Event()
        holder = asyncio.create_task(hold_long())
        await held.wait()
        holder.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holder
        async with lock.hold("ses_1", deadline=Deadline.after(1)):
            pass


class TestRedis:
    async def test_another_process_sees_the_session(
        self, redis_server: RedisServer, client: Redis, clock: Clock
    ) -> None:
        await RedisSessionStore(client).save(session_at(clock))
        elsewhere = connect(redis_server.url)
        assert (await RedisSessionStore(elsewhere).load("ses_1")).session_id == "ses_1"
        await elsewhere.aclose()

    async def test_redis_itself_forgets_what_has_expired(self, client: Redis, clock: Clock) -> None:
        await RedisSessionStore(client).save(session_at(clock, ttl_s=0.2))

        async def forgotten() -> bool:
            return await client.keys("*") == []

        await until(forgotten)

    async def test_a_silent_redis_is_named_quickly_and_heals(
        self, redis_server: RedisServer, client: Redis, clock: Clock
    ) -> None:
        store = RedisSessionStore(client)
        await store.save(session_at(clock))
        redis_server.pause()
        started = time.monotonic()
        try:
            with pytest.raises(CacheUnavailable):
                await store.load("ses_1")
            with pytest.raises(CacheUnavailable):
                async with RedisSessionLock(client).hold("ses_1", deadline=Deadline.after(5)):
                    pass
        finally:
            redis_server.go_on()
        assert time.monotonic() - started < 4
        assert (await store.load("ses_1")).session_id == "ses_1"

    async def test_nobody_listening_is_named(self, clock: Clock) -> None:
        nowhere = connect("redis://127.0.0.1:1/0", timeout_s=0.2)
        with pytest.raises(CacheUnavailable):
            await RedisSessionStore(nowhere).check_health()
        await nowhere.aclose()

    async def test_a_schema_from_the_future_is_not_mistaken_for_a_missing_session(
        self, client: Redis, clock: Clock
    ) -> None:
        store = RedisSessionStore(client)
        await store.save(session_at(clock))
        key = (await client.keys("*:session:*"))[0]
        await client.set(key, JsonSessionCodec().encode(session_at(clock)).replace(b'"schema":1', b'"schema":2'))
        with pytest.raises(CacheUnavailable):
            await store.load("ses_1")

    async def test_a_long_turn_keeps_its_lease(self, client: Redis) -> None:
        lock = RedisSessionLock(client, lease_s=0.3)
        async with lock.hold("ses_1", deadline=Deadline.after(1)):
            renewals, last = 0, await client.pttl("rapport:sessions:lock:ses_1")

            async def outlived_its_first_lease() -> bool:
                nonlocal renewals, last
                before, last = last, await client.pttl("rapport:sessions:lock:ses_1")
                renewals += last > before  # time alone only makes it less
                return renewals == 4  # a third of a lease apart

            await until(outlived_its_first_lease)
            with pytest.raises(InProgress):
                async with lock.hold("ses_1", deadline=Deadline.after(0.1)):
                    pass

    async def test_a_dead_holders_lease_runs_out(self, client: Redis) -> None:
        await client.set("rapport:sessions:lock:ses_1", "token of a dead replica", px=200)
        async with RedisSessionLock(client).hold("ses_1", deadline=Deadline.after(3)):
            pass

    async def test_a_holder_that_lost_its_lease_is_stopped_and_leaves_the_new_one_alone(self, client: Redis) -> None:
        lock = RedisSessionLock(client, lease_s=0.3)

        async def lose_it() -> None:
            async with lock.hold("ses_1", deadline=Deadline.after(1)):
                await client.set("rapport:sessions:lock:ses_1", "somebody else")
                await asyncio.Event().wait()

        with pytest.raises(CacheUnavailable):
            await lose_it()
        assert await client.get("rapport:sessions:lock:ses_1") == b"somebody else"
