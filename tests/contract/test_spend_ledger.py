"""What every spend ledger promises: memory, and a real Redis shared by several clients."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from redis.asyncio import Redis

from models.errors import BudgetExhausted, CacheUnavailable
from models.llm.redis_spend import RedisSpendLedger
from models.llm.spend import MemorySpendLedger, Scope, SpendLedger
from tests.fakes.redis_server import RedisServer

DAY = Scope(key="day:2026-05-04", limit_usd=10.0, keep_s=60.0, renews_in_s=3600.0)
CAMPAIGN = Scope(key="campaign:cpn_1", limit_usd=4.0, keep_s=60.0)
UNLIMITED = Scope(key="shop:7", limit_usd=None, keep_s=60.0)


@pytest.fixture(params=["memory", "redis"])
def ledger(request: pytest.FixtureRequest) -> SpendLedger:
    if request.param == "memory":
        return MemorySpendLedger()
    return RedisSpendLedger(request.getfixturevalue("redis"), prefix=f"{uuid.uuid4().hex}:")


async def test_what_is_set_aside_counts_until_it_is_settled(ledger: SpendLedger) -> None:
    reservation = await ledger.reserve([DAY, CAMPAIGN], 3.0)
    assert [await ledger.spent(scope.key) for scope in (DAY, CAMPAIGN)] == [3.0, 3.0]
    await ledger.settle(reservation, 0.000000150)
    assert [await ledger.spent(scope.key) for scope in (DAY, CAMPAIGN)] == [0.000000150] * 2


async def test_a_scope_without_room_refuses_and_nothing_is_set_aside_anywhere(ledger: SpendLedger) -> None:
    await ledger.reserve([DAY, CAMPAIGN], 3.0)
    with pytest.raises(BudgetExhausted, match="campaign:cpn_1") as refused:
        await ledger.reserve([DAY, CAMPAIGN], 1.5)
    assert refused.value.retry_after_s is None
    assert await ledger.spent(DAY.key) == 3.0
    await ledger.reserve([DAY, CAMPAIGN], 1.0)
    with pytest.raises(BudgetExhausted, match="day:2026-05-04") as spent:
        await ledger.reserve([DAY], 7.0)
    assert spent.value.retry_after_s == 3600.0


async def test_concurrent_callers_never_pass_the_limit(ledger: SpendLedger) -> None:
    async def call() -> bool:
        try:
            reservation = await ledger.reserve([DAY], 0.9)
        except BudgetExhausted:
            return False
        await ledger.settle(reservation, 0.8)
        return True

    made = sum(await asyncio.gather(*(call() for _ in range(60))))
    assert await ledger.spent(DAY.key) == pytest.approx(0.8 * made)
    assert 0.8 * made <= 10.0


async def test_a_scope_without_a_limit_is_only_summed(ledger: SpendLedger) -> None:
    for _ in range(3):
        await ledger.settle(await ledger.reserve([UNLIMITED], 1e6), 1e6)
    assert await ledger.spent(UNLIMITED.key) == 3e6
    assert await ledger.spent("never:used") == 0.0


async def test_a_call_may_cost_more_than_was_set_aside(ledger: SpendLedger) -> None:
    await ledger.settle(await ledger.reserve([CAMPAIGN], 1.0), 5.0)
    assert await ledger.spent(CAMPAIGN.key) == 5.0
    with pytest.raises(BudgetExhausted):
        await ledger.reserve([CAMPAIGN], 0.01)


async def test_a_sum_is_forgotten_after_its_time(ledger: SpendLedger) -> None:
    short = Scope(key="day:gone", limit_usd=1.0, keep_s=0.05)
    reservation = await ledger.reserve([short], 1.0)
    await asyncio.sleep(0.08)
    assert await ledger.spent(short.key) == 0.0
    # What is given back to a forgotten sum does not make it negative.
    await ledger.settle(reservation, 0.0)
    assert await ledger.spent(short.key) == 0.0


async def test_replicas_share_one_budget(redis_server: RedisServer) -> None:
    clients = [Redis.from_url(redis_server.url) for _ in range(4)]
    prefix = f"{uuid.uuid4().hex}:"

    async def spend(ledger: RedisSpendLedger) -> int:
        made = 0
        for _ in range(10):
            try:
                await ledger.settle(await ledger.reserve([DAY], 0.5), 0.5)
            except BudgetExhausted:
                continue
            made += 1
        return made

    assert sum(await asyncio.gather(*(spend(RedisSpendLedger(client, prefix=prefix)) for client in clients))) == 20
    for client in clients:
        await client.aclose()


async def test_an_outage_is_typed() -> None:
    server = RedisServer()
    client = Redis.from_url(server.url, socket_timeout=0.3)
    ledger = RedisSpendLedger(client)
    reservation = await ledger.reserve([DAY], 1.0)
    server.stop()
    for call in (ledger.reserve([DAY], 1.0), ledger.settle(reservation, 0.0), ledger.spent(DAY.key)):
        with pytest.raises(CacheUnavailable):
            await call
    await client.aclose()
