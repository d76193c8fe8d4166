"""The cache keeps what is used, forgets in time, promotes, and does without its second tier."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from models.enrichment.cache import LRU, LRUCache, TieredCache
from models.enrichment.encoding import StoredContext, encode, epoch_ms
from models.enrichment.types import EnrichedContext, ServedFrom
from models.errors import CacheUnavailable
from tests.fakes.enrichment import NOW, HandClock, ListMetrics

CONTEXT = encode(
    EnrichedContext(customer_id="c", agent_type="support", context_version="1", enriched_at=NOW, outcomes=()),
    expires_at_ms=epoch_ms(NOW) + 300_000,
)


class Shared(LRUCache):
    """A second tier that can go away."""

    down = False
    asked = 0

    async def get(self, key: str) -> StoredContext | None:
        self._answer()
        return await super().get(key)

    async def put(self, key: str, value: StoredContext, *, ttl_s: float) -> None:
        self._answer()
        await super().put(key, value, ttl_s=ttl_s)

    async def remove(self, *keys: str) -> None:
        self._answer()
        await super().remove(*keys)

    def _answer(self) -> None:
        self.asked += 1
        if self.down:
            raise CacheUnavailable("gone")


class Tiers:
    def __init__(self) -> None:
        self.clock = HandClock()
        self.l1 = LRUCache(entries=10, clock=self.clock)
        self.l2 = Shared(entries=10, clock=self.clock)
        self.metrics = ListMetrics()
        self.cache = TieredCache(
            self.l1, self.l2, clock=self.clock, wall_clock=self.clock.wall, metrics=self.metrics, retry_after_s=1.0
        )


@pytest.fixture
def tiers() -> Tiers:
    return Tiers()


def test_the_longest_unused_goes_first() -> None:
    lru: LRU[int] = LRU(entries=2, clock=HandClock())
    lru.keep("a", 1, ttl_s=9)
    lru.keep("b", 2, ttl_s=9)
    assert lru.peek("a") == 1
    lru.keep("c", 3, ttl_s=9)
    assert [lru.peek(key) for key in "abc"] == [1, None, 3]
    assert len(lru) == 2


def test_every_value_has_its_own_time() -> None:
    clock = HandClock()
    lru: LRU[int] = LRU(entries=9, clock=clock)
    lru.keep("short", 1, ttl_s=1)
    lru.keep("long", 2, ttl_s=5)
    lru.keep("never", 3, ttl_s=0)
    clock.forward(1)
    assert [lru.peek(key) for key in ("short", "long", "never")] == [None, 2, None]
    clock.forward(4)
    assert lru.peek("long") is None


async def test_what_l2_has_is_promoted(tiers: Tiers) -> None:
    await tiers.l2.put("k", CONTEXT, ttl_s=300)
    assert await tiers.cache.find("k") == (CONTEXT, ServedFrom.L2)
    assert await tiers.cache.find("k") == (CONTEXT, ServedFrom.L1)
    tiers.clock.forward(30)
    assert await tiers.cache.find("k") == (CONTEXT, ServedFrom.L2)


async def test_promotion_never_outlives_the_entry(tiers: Tiers) -> None:
    soon = replace(CONTEXT, expires_at_ms=epoch_ms(NOW) + 5_000)
    await tiers.l2.put("k", soon, ttl_s=300)
    assert await tiers.cache.find("k") is not None
    tiers.clock.forward(5)
    assert tiers.l1.peek("k") is None
    assert await tiers.cache.find("k") is None, "an entry whose time is up is not served, whatever the store thinks"


async def test_an_absent_l2_costs_one_try_and_one_log_line(tiers: Tiers, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    tiers.l2.down = True
    for _ in range(5):
        await tiers.cache.put("k", CONTEXT, ttl_s=300)
        assert await tiers.cache.find("k") == (CONTEXT, ServedFrom.L1)
        assert await tiers.cache.find("other") is None
    assert tiers.l2.asked == 1
    tiers.clock.forward(1)
    assert await tiers.cache.find("other") is None
    assert tiers.l2.asked == 2
    tiers.l2.down = False
    tiers.clock.forward(1)
    await tiers.cache.find("other")
    assert [record.message for record in caplog.records] == ["source went away", "source is back"]
    assert tiers.metrics.of("context_cache_errors_total", tier="l2") == 2


async def test_a_removal_that_l2_did_not_hear_is_said(tiers: Tiers) -> None:
    await tiers.cache.put("k", CONTEXT, ttl_s=300)
    tiers.l2.down = True
    with pytest.raises(CacheUnavailable):
        await tiers.cache.remove("k")
    assert tiers.l1.peek("k") is None
