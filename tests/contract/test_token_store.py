"""What every token store promises: memory, and a real Redis shared by several clients."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from redis.asyncio import Redis

from models.errors import CacheUnavailable
from models.resilience.bucket import LeasedTokenBucket, Limit, MemoryTokenStore, TokenStore
from models.resilience.redis_bucket import RedisTokenStore
from tests.fakes.redis_server import RedisServer
from tests.waiting import until

#: So slow that nothing refills during a test.
FIXED = Limit(capacity=60, per_second=0.001)


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> TokenStore:
    if request.param == "memory":
        return MemoryTokenStore()
    return RedisTokenStore(request.getfixturevalue("redis"), prefix=f"{uuid.uuid4().hex}:")


async def test_leases_shrink_as_the_bucket_empties_and_never_exceed_it(store: TokenStore) -> None:
    granted = []
    while lease := (await store.lease("k", FIXED, 20)).granted:
        granted.append(lease)
    assert sum(granted) == 60
    assert granted == sorted(granted, reverse=True)
    assert granted[0] == 15


async def test_an_empty_bucket_says_when_the_next_token_comes(store: TokenStore) -> None:
    limit = Limit(capacity=1, per_second=0.5)
    assert (await store.lease("k", limit, 1)).granted == 1
    refused = await store.lease("k", limit, 1)
    assert refused.granted == 0
    assert refused.retry_after_s == pytest.approx(2.0, abs=0.2)


async def test_tokens_come_back_with_time(store: TokenStore) -> None:
    limit = Limit(capacity=2, per_second=20)
    while (await store.lease("k", limit, 2)).granted:
        continue

    async def one_came_back() -> bool:
        return (await store.lease("k", limit, 1)).granted == 1

    await until(one_came_back)


async def test_keys_are_apart(store: TokenStore) -> None:
    first, second = await store.lease("a", FIXED, 4), await store.lease("b", FIXED, 4)
    assert (first.granted, second.granted) == (4, 4)


async def test_replicas_that_lease_at_once_share_one_limit(redis_server: RedisServer) -> None:
    clients = [Redis.from_url(redis_server.url) for _ in range(4)]
    prefix = f"{uuid.uuid4().hex}:"
    replicas = [LeasedTokenBucket(RedisTokenStore(client, prefix=prefix)) for client in clients]

    async def burst(replica: LeasedTokenBucket) -> int:
        return sum([await replica.take("k", FIXED) == 0.0 for _ in range(40)])

    assert sum(await asyncio.gather(*(burst(replica) for replica in replicas))) == 60
    for client in clients:
        await client.aclose()


async def test_a_full_bucket_is_forgotten(redis: Redis) -> None:
    prefix = f"{uuid.uuid4().hex}:"
    await RedisTokenStore(redis, prefix=prefix).lease("k", Limit.per_minute(60), 1)
    assert 60_000 < await redis.pttl(f"{prefix}k") <= 61_000


async def test_an_outage_is_typed() -> None:
    server = RedisServer()
    client = Redis.from_url(server.url, socket_timeout=0.3)
    server.stop()
    with pytest.raises(CacheUnavailable):
        await RedisTokenStore(client).lease("k", FIXED, 1)
    assert await LeasedTokenBucket(RedisTokenStore(client)).take("k", FIXED) == 0.0
    await client.aclose()
