"""The cache keeps what is used, forgets in time, and does without its second tier."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from models.enrichment.cache import LRU, LRUCache, TieredCache
from models.enrichment.generations import Generations, Write
from tests.fakes.enrichment import HandClock, ListMetrics, MemorySections

GENERATIONS = Generations(customer="0", tags="0", epoch="0")


def write(key: str, *, customer: str = "0") -> Write:
    generations = Generations(customer=customer, tags="0", epoch="0")
    return Write(key=key, values={"a": b"1"}, generations=generations, ttl_s=60.0)


class Tiers:
    def __init__(self, **options: int) -> None:
        self.clock = HandClock()
        self.l2 = MemorySections()
        self.metrics = ListMetrics()
        self.refused: list[str] = []
        self.cache = TieredCache(
            LRUCache(entries=10, clock=self.clock), self.l2, clock=self.clock, metrics=self.metrics, **options
        )

    def save(self, *keys: str, customer: str = "0") -> None:
        for key in keys:
            self.cache.save(write(key, customer=customer), refused=lambda key=key: self.refused.append(key))  # type: ignore[misc]  # bound per key


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
    assert list(lru.values()) == [2]
    clock.forward(4)
    assert lru.peek("long") is None


async def test_writes_are_gathered_while_one_is_under_way(tiers: Tiers) -> None:
    class Slow(MemorySections):
        async def save(self, writes: Sequence[Write]) -> list[bool]:
            await asyncio.sleep(0)
            return await super().save(writes)

    tiers.l2 = Slow()
    tiers.cache = TieredCache(LRUCache(entries=1), tiers.l2)
    tiers.save("first")
    await asyncio.sleep(0)
    tiers.save(*(f"k{n}" for n in range(20)))
    await tiers.cache.settle()
    assert tiers.l2.saves == 2
    assert len(tiers.l2.shelves) == 21


async def test_who_wrote_too_late_is_told(tiers: Tiers) -> None:
    await tiers.l2.outdate(["gone"], [])
    tiers.save("kept", "gone")
    await tiers.cache.settle()
    assert tiers.refused == ["gone"]
    assert list(tiers.l2.shelves) == ["kept"]


async def test_an_absent_l2_costs_one_try_and_one_log_line(tiers: Tiers, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    tiers.l2.down = True
    for _ in range(5):
        assert await tiers.cache.load(["k"]) is None
        assert not tiers.cache.shared
        tiers.save("k")
        await tiers.cache.settle()
    assert (tiers.l2.loads, tiers.l2.saves) == (1, 0)
    tiers.clock.forward(1)
    assert await tiers.cache.load(["k"]) is None
    assert tiers.l2.loads == 2
    tiers.l2.down = False
    tiers.clock.forward(1)
    assert await tiers.cache.load(["k"]) is not None
    tiers.save("k")
    await tiers.cache.settle()
    assert [(record.message, record.__dict__["source"]) for record in caplog.records] == [
        ("source went away", "context cache"),
        ("source went away", "writing to the context cache"),
        ("source is back", "context cache"),
        ("source is back", "writing to the context cache"),
    ]
    assert tiers.metrics.of("context_cache_errors_total", tier="l2") == 2


async def test_only_one_read_tries_whether_it_is_back(tiers: Tiers) -> None:
    tiers.l2.down = True
    await tiers.cache.load(["k"])
    tiers.clock.forward(1)
    assert await asyncio.gather(*(tiers.cache.load(["k"]) for _ in range(50))) == [None] * 50
    assert tiers.l2.loads == 2


async def test_a_full_l2_loses_writes_and_no_reads(tiers: Tiers) -> None:
    tiers.l2.full = True
    tiers.save("k")
    await tiers.cache.settle()
    tiers.save("k")
    await tiers.cache.settle()
    assert tiers.l2.saves == 1
    assert await tiers.cache.load(["k"]) is not None


async def test_a_crowd_of_writes_is_bounded() -> None:
    tiers = Tiers(max_waiting_writes=3)
    tiers.save(*(f"k{n}" for n in range(10)))
    await tiers.cache.settle()
    assert len(tiers.l2.shelves) == 3


async def test_memory_alone_is_a_cache_too() -> None:
    cache = TieredCache(LRUCache(entries=1))
    assert not cache.shared
    assert await cache.load(["k"]) is None
    cache.save(write("k"), refused=lambda: None)
    await cache.outdate(["k"], [])
    await cache.settle()
    await cache.close()


def test_a_stamp_tells_generations_apart() -> None:
    tags = frozenset({"profile", "database"})
    base = GENERATIONS.stamp(tags)
    assert base == Generations(customer="9", tags="9", epoch="0", tokens={"other": "1"}).stamp(tags)
    others = [
        Generations(customer="0", tags="0", epoch="1"),
        Generations(customer="0", tags="0", epoch="0", tokens={"database": "1"}),
        Generations(customer="0", tags="0", epoch="0", own_tokens={"database": "1"}),
        Generations(customer="0", tags="0", epoch="0", tokens={"profile": "1"}),
        Generations(customer="0", tags="0", epoch="0", tokens={"profile": "2"}),
    ]
    assert len({base, GENERATIONS.stamp(()), *(other.stamp(tags) for other in others)}) == 7
