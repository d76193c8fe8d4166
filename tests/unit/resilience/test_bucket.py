"""Token buckets: limits hold, and leased tokens spare the store."""

from __future__ import annotations

import asyncio

import pytest

from models.errors import CacheUnavailable
from models.resilience.bucket import Lease, LeasedTokenBucket, Limit, MemoryTokenStore, TokenBucket


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class CountingStore(MemoryTokenStore):
    """A memory store that counts leases and can go away."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.leases = 0
        self.away = False

    async def lease(self, key: str, limit: Limit, wanted: int) -> Lease:
        self.leases += 1
        if self.away:
            raise CacheUnavailable("away")
        return await super().lease(key, limit, wanted)


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def admitted(bucket: LeasedTokenBucket, tries: int, key: str = "k", limit: Limit | None = None) -> int:
    limit = limit or Limit.per_minute(60)
    return sum([await bucket.take(key, limit) == 0.0 for _ in range(tries)])


def test_a_bucket_gives_its_capacity_then_its_rate(clock: Clock) -> None:
    bucket = TokenBucket(Limit.per_minute(60), clock)
    assert [bucket.take() for _ in range(60)] == [0.0] * 60
    assert bucket.take() == pytest.approx(1.0)
    clock.now += 1.0
    assert bucket.take() == 0.0
    clock.now += 1000.0
    assert bucket.available == 60


async def test_replicas_together_never_exceed_the_limit(clock: Clock) -> None:
    store = MemoryTokenStore(clock)
    replicas = [LeasedTokenBucket(store, clock=clock) for _ in range(4)]
    total = 0
    for _ in range(40):
        for replica in replicas:
            total += await admitted(replica, 1)
    assert total == 60


async def test_most_requests_touch_no_store(clock: Clock) -> None:
    store = CountingStore(clock)
    limit = Limit.per_minute(6000)
    assert await admitted(LeasedTokenBucket(store, clock=clock), 100, limit=limit) == 100
    assert store.leases <= 25


async def test_a_refusal_says_when_and_is_remembered_until_then(clock: Clock) -> None:
    store = CountingStore(clock)
    bucket = LeasedTokenBucket(store, clock=clock)
    assert await admitted(bucket, 60) == 60
    wait_s = await bucket.take("k", Limit.per_minute(60))
    assert 0 < wait_s <= 1.0
    asked = store.leases
    assert await admitted(bucket, 50) == 0
    assert store.leases == asked
    clock.now += wait_s
    assert await bucket.take("k", Limit.per_minute(60)) == 0.0


async def test_unused_leases_lapse(clock: Clock) -> None:
    store = MemoryTokenStore(clock)
    idle, busy = LeasedTokenBucket(store, clock=clock, hold_s=5), LeasedTokenBucket(store, clock=clock)
    assert await admitted(idle, 1) == 1
    assert await admitted(busy, 60) < 60
    clock.now += 120
    assert await admitted(busy, 60) == 60
    assert await admitted(idle, 60) == 0


async def test_keys_do_not_share(clock: Clock) -> None:
    bucket = LeasedTokenBucket(MemoryTokenStore(clock), clock=clock)
    assert await admitted(bucket, 61, key="a") == 60
    assert await admitted(bucket, 61, key="b") == 60


async def test_without_the_store_each_replica_limits_alone_and_comes_back(clock: Clock) -> None:
    store = CountingStore(clock)
    store.away = True
    bucket = LeasedTokenBucket(store, clock=clock)
    assert await admitted(bucket, 100) == 60
    store.away = False
    clock.now += 60
    assert await admitted(bucket, 1) == 1


async def test_many_at_once_share_one_lease(clock: Clock) -> None:
    store = CountingStore(clock)
    bucket = LeasedTokenBucket(store, clock=clock, batch=50)
    limit = Limit(capacity=1000, per_second=10)
    waits = await asyncio.gather(*(bucket.take("k", limit) for _ in range(20)))
    assert set(waits) == {0.0}
    assert store.leases == 1
