"""Every shared tier keeps the same promises; on a real Redis, replicas agree on what is outdated whatever happens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.enrichment.cache import LRUCache, TieredCache
from models.enrichment.generations import Change, Generations, Shelf, Write
from models.enrichment.orchestrator import ContextOrchestrator
from models.enrichment.policy import CachePolicy
from models.enrichment.protocol import SectionCache
from models.enrichment.redis_cache import RedisCache
from models.enrichment.redis_invalidations import CHANNEL, RedisInvalidations
from models.enrichment.selection import AgentViews
from models.enrichment.types import Scope, ServedFrom
from models.errors import CacheUnavailable
from models.resilience.redis_client import connect
from tests.fakes.enrichment import FakeProvider, MemorySections, ask, documented_providers
from tests.fakes.redis_server import RedisServer
from tests.waiting import until

CUSTOMER = "customer_123"


@pytest.fixture(scope="module")
def shared_redis() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.stop()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that the test may stop, and start again with what it saved."""
    server = RedisServer(tmp_path)
    yield server
    if server.process.poll() is None:
        server.stop()


@pytest.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest, shared_redis: RedisServer) -> AsyncIterator[SectionCache]:
    if request.param == "memory":
        yield MemorySections()
        return
    client = connect(shared_redis.url, timeout_s=2.0)
    await client.flushdb()
    redis = RedisCache(client)
    yield redis
    await redis.close()


async def shelf_of(cache: SectionCache, key: str = "k") -> Shelf:
    (shelf,) = await cache.load([key])
    return shelf


async def generations_of(cache: SectionCache, key: str = "k") -> Generations:
    generations = (await shelf_of(cache, key)).generations
    assert generations is not None
    return generations


def write(generations: Generations, key: str = "k", **values: bytes) -> Write:
    return Write(key=key, values=values or {"a": b"1"}, generations=generations, ttl_s=60.0)


def kept(shelf: Shelf, *names: str) -> Mapping[str, bytes | None]:
    return {name: shelf.values.get(name) for name in names}


class TestEverySharedTier:
    async def test_gives_back_what_it_was_given(self, cache: SectionCache) -> None:
        before = await generations_of(cache)
        assert await cache.save([write(before, a=b"\x00\xff", b=b"2"), write(before, c=b"3")]) == [True, True]
        assert await cache.save([write(before, a=b"new")]) == [True]
        shelf = await shelf_of(cache)
        assert kept(shelf, "a", "b", "c") == {"a": b"new", "b": b"2", "c": b"3"}
        assert shelf.generations == before, "reading and writing begin nothing new"

    async def test_answers_for_many_in_their_order(self, cache: SectionCache) -> None:
        keys = [f"k{n}" for n in range(120)]
        shelves = await cache.load(keys)
        writes = [write(shelf.generations, key, a=key.encode()) for key, shelf in zip(keys, shelves, strict=True)]  # type: ignore[arg-type]  # none is missing here
        assert await cache.save(writes) == [True] * 120
        assert [shelf.values["a"] for shelf in await cache.load(keys[::-1])] == [key.encode() for key in keys[::-1]]

    async def test_an_invalidated_customer_has_nothing_and_old_writes_are_refused(self, cache: SectionCache) -> None:
        before, other = await generations_of(cache), await generations_of(cache, "other")
        await cache.save([write(before), write(other, "other")])
        await cache.outdate(["k"], [])
        assert await cache.save([write(before), write(other, "other")]) == [False, True]
        assert "a" not in (await shelf_of(cache)).values
        assert "a" in (await shelf_of(cache, "other")).values
        assert await cache.save([write(await generations_of(cache))]) == [True]

    async def test_a_tag_of_one_customer_changes_its_stamps_only(self, cache: SectionCache) -> None:
        before, other = await generations_of(cache), await generations_of(cache, "other")
        await cache.save([replace(write(before), values={"a": b"1", ":unknown": b"x"}), write(other, "other")])
        await cache.outdate(["k"], ["support"])
        shelf = await shelf_of(cache)
        assert kept(shelf, "a", ":unknown") == {"a": b"1", ":unknown": None}
        now = shelf.generations
        assert now is not None
        assert now.stamp(["support"]) != before.stamp(["support"])
        assert now.stamp(["profile"]) == before.stamp(["profile"])
        assert (await generations_of(cache, "other")).stamp(["support"]) == other.stamp(["support"])
        assert await cache.save([write(before), write(other, "other")]) == [False, True]

    async def test_a_tag_for_everyone_changes_everybodys_stamps(self, cache: SectionCache) -> None:
        before = {key: await generations_of(cache, key) for key in ("k", "other")}
        await cache.outdate([], ["support"])
        for key, old in before.items():
            now = await generations_of(cache, key)
            assert now.stamp(["support"]) != old.stamp(["support"])
            assert now.stamp(["profile"]) == old.stamp(["profile"])
            assert await cache.save([write(old, key)]) == [False]
        later = await generations_of(cache)
        await cache.outdate([], ["support"])
        assert (await generations_of(cache)).stamp(["support"]) != later.stamp(["support"])


class TestRedisCache:
    @pytest.fixture
    async def redis(self, own_redis: RedisServer) -> AsyncIterator[RedisCache]:
        built = RedisCache(connect(own_redis.url, timeout_s=0.3))
        yield built
        await built.close()

    async def test_says_when_redis_is_away_and_works_again_when_it_is_back(
        self, own_redis: RedisServer, redis: RedisCache
    ) -> None:
        before = await generations_of(redis)
        own_redis.pause()
        for call in (redis.load(["k"]), redis.save([write(before)]), redis.outdate(["k"], []), redis.check_health()):
            with pytest.raises(CacheUnavailable):
                await call
        own_redis.go_on()
        assert await redis.save([write(await generations_of(redis))]) == [True]
        own_redis.stop()
        with pytest.raises(CacheUnavailable):
            await redis.load(["k"])

    async def test_nothing_saved_by_an_earlier_run_comes_back(self, own_redis: RedisServer, redis: RedisCache) -> None:
        before = await generations_of(redis)
        await redis.save([write(before)])
        admin = connect(own_redis.url, timeout_s=2.0)
        await admin.save()
        await redis.outdate(["k"], [])  # the saved values are of before this
        own_redis.stop()
        own_redis.start_again()
        assert await admin.hget("ctx:c:k", "a") == b"1", "the server has the outdated value again"
        after = await generations_of(redis)
        assert after.stamp(["any"]) != before.stamp(["any"])
        assert await redis.save([write(before)]) == [False]
        await admin.aclose()

    async def test_what_redis_evicts_takes_its_word_along(self, own_redis: RedisServer, redis: RedisCache) -> None:
        await redis.outdate([], ["support"])
        before = await generations_of(redis)
        await redis.save([write(before)])
        admin = connect(own_redis.url, timeout_s=2.0)
        await admin.delete("ctx:tags")
        after = await generations_of(redis)
        assert after.stamp(["support"]) != before.stamp(["support"])
        await admin.delete("ctx:c:k")
        assert (await generations_of(redis)).customer != before.customer
        await admin.aclose()

    async def test_a_full_redis_reads_on(self, own_redis: RedisServer, redis: RedisCache) -> None:
        before = await generations_of(redis)
        await redis.save([write(before)])
        admin = connect(own_redis.url, timeout_s=2.0)
        await admin.config_set("maxmemory", 1)
        assert (await shelf_of(redis)).values["a"] == b"1"
        assert (await shelf_of(redis, "new")).generations is None
        with pytest.raises(CacheUnavailable):
            await redis.save([write(before)])
        await redis.outdate(["k"], [])
        assert "a" not in (await shelf_of(redis)).values
        await admin.aclose()

    @pytest.mark.parametrize("keys", [["k"], []])
    async def test_a_full_redis_still_forgets_what_a_tag_outdates(
        self, own_redis: RedisServer, redis: RedisCache, keys: list[str]
    ) -> None:
        before = await generations_of(redis)
        await redis.save([write(before)])
        admin = connect(own_redis.url, timeout_s=2.0)
        await admin.config_set("maxmemory", 1)
        await redis.outdate(keys, ["support"])
        await redis.outdate(keys, ["support"])
        full = (await shelf_of(redis)).generations
        assert full is None or full.stamp(["support"]) != before.stamp(["support"])
        await admin.config_set("maxmemory", 0)
        after = await generations_of(redis)
        assert after.stamp(["support"]) != before.stamp(["support"])
        assert await redis.save([write(before)]) == [False]
        assert await redis.save([write(after)]) == [True]
        await admin.aclose()

    async def test_forgotten_scripts_are_sent_again(self, own_redis: RedisServer, redis: RedisCache) -> None:
        before = await generations_of(redis)
        admin = connect(own_redis.url, timeout_s=2.0)
        await admin.script_flush()
        assert await redis.save([write(before)]) == [True]
        await admin.aclose()

    async def test_a_shelf_lives_as_long_as_its_longest_record(self, own_redis: RedisServer, redis: RedisCache) -> None:
        before = await generations_of(redis)
        await redis.save([replace(write(before), ttl_s=900.0)])
        await redis.save([replace(write(before, b=b"2"), ttl_s=5.0)])
        admin = connect(own_redis.url, timeout_s=2.0)
        assert 890_000 < await admin.pttl("ctx:c:k") <= 900_000
        await redis.save([replace(write(await generations_of(redis, "brief"), "brief"), ttl_s=0.01)])
        await admin.pexpire("ctx:c:brief", 1)

        async def gone() -> bool:
            return not await admin.exists("ctx:c:brief")

        await until(gone)
        await admin.aclose()


class Replica:
    """One orchestrator with its own L1, on a shared Redis and shared sources."""

    def __init__(self, url: str, providers: dict[str, FakeProvider], *, timeout_s: float = 1.0) -> None:
        client = connect(url, timeout_s=timeout_s)
        self.heard: asyncio.Queue[Change | str] = asyncio.Queue()
        news = RedisInvalidations(client, retry_after_s=0.05)
        self._listen = news.listen
        news.listen = self.listen  # type: ignore[method-assign]  # to know when news has been acted upon
        self.context = ContextOrchestrator(
            providers.values(),
            views=AgentViews.load().only(providers),
            cache=TieredCache(LRUCache(entries=100), RedisCache(client), retry_after_s=0.05),
            invalidations=news,
            policy=CachePolicy(),
        )
        self.context.start()

    async def listen(self, on_change: Any, on_gap: Any) -> None:
        async def change(told: Change) -> None:
            await on_change(told)
            self.heard.put_nowait(told)

        async def gap() -> None:
            await on_gap()
            self.heard.put_nowait("gap")

        await self._listen(change, gap)

    async def hears(self) -> Change | str:
        return await asyncio.wait_for(self.heard.get(), timeout=10)

    async def read(self, customer_id: str = CUSTOMER) -> tuple[ServedFrom, str]:
        reading = await self.context.read(customer_id, ask())
        await self.context.settle()
        return reading.served_from, json.loads(reading.body)["customer_intelligence"]["company_name"]


class TestReplicas:
    @pytest.fixture
    def sources(self) -> dict[str, FakeProvider]:
        everyone = FakeProvider("product_status", scope=Scope.EVERYONE)
        return {**documented_providers(), "product_status": everyone}

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
        assert {name: provider.asked for name, provider in sources.items()} == {
            name: ["*" if name == "product_status" else CUSTOMER] for name in sources
        }

    async def test_a_change_reaches_every_replica(
        self, replicas: tuple[Replica, Replica], sources: dict[str, FakeProvider]
    ) -> None:
        one, two = replicas
        for replica in replicas:
            await replica.read()
        sources["customer_intelligence"].changes(company_name="Acme Inc")
        await one.context.invalidate([CUSTOMER])
        assert await two.hears() == Change(customer_ids=(CUSTOMER,))
        assert await two.read() == (ServedFrom.ORIGIN, "Acme Inc")
        await one.hears()
        assert (await one.read())[1] == "Acme Inc"

    @pytest.mark.parametrize("customer_ids", [[], [CUSTOMER]])
    async def test_a_tag_outdates_its_sections_everywhere_and_no_others(
        self, replicas: tuple[Replica, Replica], sources: dict[str, FakeProvider], customer_ids: list[str]
    ) -> None:
        one, two = replicas
        for replica in replicas:
            await replica.read()
        sources["customer_intelligence"].changes(company_name="Acme Inc")
        await one.context.invalidate(customer_ids, ["customer_intelligence"])
        assert await two.hears() == Change(customer_ids=tuple(customer_ids), tags=("customer_intelligence",))
        assert (await two.read())[1] == "Acme Inc"
        assert (await one.read())[1] == "Acme Inc"
        asked = {name: len(provider.asked) for name, provider in sources.items()}
        assert asked == {name: 2 if name == "customer_intelligence" else 1 for name in sources}

    async def test_a_change_reaches_every_replica_of_a_full_redis(
        self, own_redis: RedisServer, replicas: tuple[Replica, Replica], sources: dict[str, FakeProvider]
    ) -> None:
        one, two = replicas
        for replica in replicas:
            await replica.read()
        admin = connect(own_redis.url, timeout_s=2.0)
        await admin.config_set("maxmemory", 1)
        await admin.aclose()
        sources["customer_intelligence"].changes(company_name="Acme Inc")
        await one.context.invalidate(tags=["customer_intelligence"])
        assert await two.hears() == Change(tags=("customer_intelligence",))
        assert (await two.read())[1] == "Acme Inc"
        assert (await one.read())[1] == "Acme Inc"

    async def test_a_fetch_that_raced_an_invalidation_leaves_nothing_behind(
        self, replicas: tuple[Replica, Replica], sources: dict[str, FakeProvider]
    ) -> None:
        one, two = replicas
        profile = sources["customer_intelligence"]
        profile.gate = asyncio.Event()
        early = asyncio.create_task(one.read())
        await profile.arrivals.get()
        profile.changes(company_name="Acme Inc")
        await two.context.invalidate([CUSTOMER])
        profile.gate.set()
        assert (await early)[1] == "Acme Corp"
        assert await one.hears() == Change(customer_ids=(CUSTOMER,))
        assert (await two.read())[1] == "Acme Inc"
        assert (await one.read())[1] == "Acme Inc"

    async def test_a_lost_subscription_drops_the_whole_memory(
        self, own_redis: RedisServer, replicas: tuple[Replica, Replica]
    ) -> None:
        one, _ = replicas
        await one.read()
        admin = connect(own_redis.url, timeout_s=2.0)
        await admin.client_kill_filter(_type="pubsub")
        await admin.aclose()
        assert await one.hears() == "gap"
        assert (await one.read())[0] is ServedFrom.L2

    async def test_news_that_cannot_be_read_counts_as_missed(
        self, own_redis: RedisServer, replicas: tuple[Replica, Replica]
    ) -> None:
        one, _ = replicas
        await one.read()
        admin = connect(own_redis.url, timeout_s=2.0)
        await admin.publish(CHANNEL, b"\xff news of another release")
        await admin.aclose()
        assert await one.hears() == "gap"
        assert (await one.read())[0] is ServedFrom.L2

    async def test_reads_go_on_without_redis(
        self, own_redis: RedisServer, replicas: tuple[Replica, Replica], sources: dict[str, FakeProvider]
    ) -> None:
        one, two = replicas
        await one.read()
        own_redis.stop()
        assert (await two.read())[0] is ServedFrom.ORIGIN
        sources["customer_intelligence"].changes(company_name="Acme Inc")
        with pytest.raises(CacheUnavailable):
            await one.context.invalidate([CUSTOMER])
        assert await one.read() == (ServedFrom.ORIGIN, "Acme Inc")

    async def test_a_restart_with_old_values_brings_none_of_them_back(
        self, own_redis: RedisServer, replicas: tuple[Replica, Replica], sources: dict[str, FakeProvider]
    ) -> None:
        one, _ = replicas
        await one.read()
        admin = connect(own_redis.url, timeout_s=2.0)
        await admin.save()
        sources["customer_intelligence"].changes(company_name="Acme Inc")
        await one.context.invalidate([CUSTOMER])
        await one.read()
        own_redis.stop()
        own_redis.start_again()
        assert await admin.exists(f"ctx:c:{CUSTOMER}"), "the server has the outdated values again"
        await admin.aclose()
        for replica in replicas:
            while await replica.hears() != "gap":
                pass
            assert (await replica.read())[1] == "Acme Inc"

    async def test_a_redis_that_hangs_delays_a_read_by_its_timeout_at_most(
        self, own_redis: RedisServer, sources: dict[str, FakeProvider]
    ) -> None:
        replica = Replica(own_redis.url, sources, timeout_s=0.1)
        await replica.hears()
        own_redis.pause()
        assert (await replica.read())[0] is ServedFrom.ORIGIN
        assert (await replica.read())[0] is ServedFrom.L1
        own_redis.go_on()
        await replica.context.close()
