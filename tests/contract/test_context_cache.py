"""Every context cache keeps the same promises; the shared one tells every replica what changed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest

from models.clock import utc_now
from models.enrichment.cache import LRUCache, TieredCache
from models.enrichment.encoding import StoredContext, encode, epoch_ms
from models.enrichment.orchestrator import ContextOrchestrator, cache_version
from models.enrichment.protocol import ContextCache
from models.enrichment.redis_cache import RedisCache, RedisInvalidations
from models.enrichment.selection import AgentViews
from models.enrichment.types import EnrichedContext, ServedFrom
from models.errors import CacheUnavailable
from models.resilience.deadline import Deadline
from models.resilience.redis_client import connect
from tests.fakes.enrichment import FakeProvider, all_providers
from tests.fakes.redis_server import RedisServer
from tests.waiting import until


@pytest.fixture(scope="module")
def shared_redis() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.stop()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server that the test may stop."""
    server = RedisServer()
    yield server
    if server.process.poll() is None:
        server.stop()


@pytest.fixture
def stored() -> StoredContext:
    now = utc_now()
    context = EnrichedContext(customer_id="c", agent_type="support", context_version="1", enriched_at=now, outcomes=())
    return encode(context, expires_at_ms=epoch_ms(now) + 300_000)


@pytest.fixture(params=["lru", "redis", "tiered"])
async def cache(request: pytest.FixtureRequest, shared_redis: RedisServer) -> AsyncIterator[ContextCache]:
    client = connect(shared_redis.url, timeout_s=2.0)
    await client.flushdb()
    redis = RedisCache(client)
    lru = LRUCache(entries=100)
    built: dict[str, ContextCache] = {"lru": lru, "redis": redis, "tiered": TieredCache(lru, redis)}
    yield built[request.param]
    await redis.close()


class TestEveryCache:
    async def test_gives_back_what_it_was_given(self, cache: ContextCache, stored: StoredContext) -> None:
        assert await cache.get("k") is None
        await cache.put("k", stored, ttl_s=60)
        assert await cache.get("k") == stored

    async def test_keeps_the_newest(self, cache: ContextCache, stored: StoredContext) -> None:
        newer = replace(stored, context_version="2")
        await cache.put("k", stored, ttl_s=60)
        await cache.put("k", newer, ttl_s=60)
        assert await cache.get("k") == newer

    async def test_forgets_when_told(self, cache: ContextCache, stored: StoredContext) -> None:
        for key in ("a", "b", "c"):
            await cache.put(key, stored, ttl_s=60)
        await cache.remove("a", "b", "never-there")
        await cache.remove()
        assert [await cache.get(key) is None for key in ("a", "b", "c")] == [True, True, False]

    async def test_forgets_when_the_time_is_up(self, cache: ContextCache, stored: StoredContext) -> None:
        await cache.put("gone", stored, ttl_s=0)
        await cache.put("k", replace(stored, expires_at_ms=epoch_ms(utc_now()) + 50), ttl_s=0.05)

        async def forgotten() -> bool:
            return await cache.get("k") is None

        await until(forgotten)
        assert await cache.get("gone") is None


class TestRedisCache:
    async def test_garbage_under_our_key_counts_as_absent(self, shared_redis: RedisServer) -> None:
        client = connect(shared_redis.url, timeout_s=2.0)
        await client.set("k", b"\xff\x00 not ours")
        assert await RedisCache(client).get("k") is None
        await client.aclose()

    async def test_says_when_redis_is_away_and_works_again_when_it_is_back(
        self, own_redis: RedisServer, stored: StoredContext
    ) -> None:
        cache = RedisCache(connect(own_redis.url, timeout_s=0.1))
        await cache.check_health()
        own_redis.pause()
        for call in (cache.get("k"), cache.put("k", stored, ttl_s=60), cache.remove("k"), cache.check_health()):
            with pytest.raises(CacheUnavailable):
                await call
        own_redis.go_on()
        await cache.put("k", stored, ttl_s=60)
        assert await cache.get("k") == stored
        own_redis.stop()
        with pytest.raises(CacheUnavailable):
            await cache.get("k")
        await cache.close()


class Replica:
    """One orchestrator with its own L1, on a shared Redis and shared sources."""

    def __init__(self, url: str, providers: dict[str, FakeProvider], version: str = "") -> None:
        views = AgentViews.load()
        client = connect(url, timeout_s=1.0)
        self.heard: asyncio.Queue[str] = asyncio.Queue()
        news = RedisInvalidations(client, version=version or cache_version(views), retry_after_s=0.05)
        self._listen = news.listen
        news.listen = self.listen  # type: ignore[method-assign]  # to know when news has been acted upon
        self.cache = TieredCache(LRUCache(entries=100), RedisCache(client), retry_after_s=0.05)
        self.context = ContextOrchestrator(providers.values(), views=views, cache=self.cache, invalidations=news)
        self.context.start()

    async def listen(self, on_customer: Any, on_gap: Any) -> None:
        async def customer(customer_id: str, foreign: bool) -> None:
            await on_customer(customer_id, foreign)
            self.heard.put_nowait(customer_id)

        async def gap() -> None:
            await on_gap()
            self.heard.put_nowait("gap")

        await self._listen(customer, gap)

    async def hears(self) -> str:
        return await asyncio.wait_for(self.heard.get(), timeout=10)

    async def read(self) -> tuple[ServedFrom, str]:
        reading = await self.context.read("customer_123", agent_type="support", deadline=Deadline.after(5))
        await self.context.settle()
        return reading.served_from, json.loads(reading.body)["customer_intelligence"]["company_name"]


class TestReplicas:
    @pytest.fixture
    def sources(self) -> dict[str, FakeProvider]:
        return all_providers()

    @pytest.fixture
    async def replicas(
        self, own_redis: RedisServer, sources: dict[str, FakeProvider]
    ) -> AsyncIterator[tuple[Replica, Replica]]:
        pair = Replica(own_redis.url, sources), Replica(own_redis.url, sources)
        for replica in pair:
            assert await replica.hears() == "gap", "a new subscription may have missed something"
        yield pair
        for replica in pair:
            await replica.context.close()

    async def test_one_fetches_for_all(
        self, replicas: tuple[Replica, Replica], sources: dict[str, FakeProvider]
    ) -> None:
        one, two = replicas
        assert (await one.read())[0] is ServedFrom.ORIGIN
        assert [(await two.read())[0] for _ in range(2)] == [ServedFrom.L2, ServedFrom.L1]
        assert sources["account_health"].asked == ["customer_123"]

    async def test_a_change_reaches_every_replica(
        self, replicas: tuple[Replica, Replica], sources: dict[str, FakeProvider]
    ) -> None:
        one, two = replicas
        for replica in replicas:
            await replica.read()
        sources["customer_intelligence"].changes(company_name="Acme Inc")
        await one.context.invalidate("customer_123")
        assert await two.hears() == "customer_123"
        assert await two.read() == (ServedFrom.ORIGIN, "Acme Inc")
        assert await one.hears() == "customer_123"
        assert (await one.read())[1] == "Acme Inc"

    async def test_a_change_reaches_replicas_of_another_release(
        self, own_redis: RedisServer, replicas: tuple[Replica, Replica], sources: dict[str, FakeProvider]
    ) -> None:
        one, _ = replicas
        await one.read()
        other = RedisInvalidations(connect(own_redis.url), version="another-release")
        sources["customer_intelligence"].changes(company_name="Acme Inc")
        await other.publish("customer_123")
        assert await one.hears() == "customer_123"
        assert await one.read() == (ServedFrom.ORIGIN, "Acme Inc"), "its L2 entries are gone too"
        await other._redis.aclose()

    async def test_a_lost_subscription_drops_the_whole_l1(
        self, own_redis: RedisServer, replicas: tuple[Replica, Replica]
    ) -> None:
        one, _ = replicas
        await one.read()
        admin = connect(own_redis.url, timeout_s=2.0)
        await admin.client_kill_filter(_type="pubsub")
        await admin.aclose()
        assert await one.hears() == "gap"
        assert (await one.read())[0] is ServedFrom.L2

    async def test_reads_go_on_without_redis(
        self, own_redis: RedisServer, replicas: tuple[Replica, Replica], sources: dict[str, FakeProvider]
    ) -> None:
        one, two = replicas
        await one.read()
        own_redis.stop()
        assert (await one.read())[0] is ServedFrom.L1
        assert (await two.read())[0] is ServedFrom.ORIGIN
        sources["customer_intelligence"].changes(company_name="Acme Inc")
        with pytest.raises(CacheUnavailable):
            await one.context.invalidate("customer_123")
        assert await one.read() == (ServedFrom.ORIGIN, "Acme Inc")
