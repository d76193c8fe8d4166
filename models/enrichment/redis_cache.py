"""The shared tier of the context cache, and the news of changed customers, in Redis."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from models.enrichment.encoding import StoredContext
from models.errors import CacheUnavailable
from models.telemetry import Transition

logger = logging.getLogger(__name__)

CHANNEL = "rapport:context:changed"


class RedisCache:
    """Stored contexts under the keys given, each with Redis's own expiry. Foreign or damaged values count as absent."""

    def __init__(self, client: Redis) -> None:
        self._redis = client

    async def get(self, key: str) -> StoredContext | None:
        async with _translated():
            data = await self._redis.get(key)
        if data is None:
            return None
        try:
            return StoredContext.from_bytes(data if isinstance(data, bytes) else data.encode())
        except ValueError:
            logger.warning("a cached context could not be read", extra={"bytes": len(data)})
            return None

    async def put(self, key: str, value: StoredContext, *, ttl_s: float) -> None:
        if (ttl_ms := int(ttl_s * 1000)) <= 0:
            return
        async with _translated():
            await self._redis.set(key, value.to_bytes(), px=ttl_ms)

    async def remove(self, *keys: str) -> None:
        if not keys:
            return
        async with _translated():
            await self._redis.unlink(*keys)

    async def check_health(self) -> None:
        """Return if Redis answers; raise `CacheUnavailable` otherwise."""
        async with _translated():
            await self._redis.ping()

    async def close(self) -> None:
        await self._redis.aclose()


class RedisInvalidations:
    """Changed customers over Redis pub/sub. Every (re)subscription is a gap, for pub/sub keeps nothing for the absent.

    `version` names the key space of this replica; news from another one is marked foreign.
    """

    def __init__(
        self,
        client: Redis,
        *,
        version: str,
        heartbeat_s: float = 5.0,
        retry_after_s: float = 1.0,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._redis = client
        self._version = version
        self._heartbeat_s = heartbeat_s
        self._retry_after_s = retry_after_s
        self._pause = pause
        self._state = Transition("context invalidations", logger)

    async def publish(self, customer_id: str) -> None:
        async with _translated():
            await self._redis.publish(CHANNEL, f"{self._version} {customer_id}")

    async def listen(
        self, on_customer: Callable[[str, bool], Awaitable[None]], on_gap: Callable[[], Awaitable[None]]
    ) -> None:
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(CHANNEL)
                    await self._follow(pubsub, on_customer, on_gap)
            except (RedisError, OSError) as exc:
                self._state.down(exc)
            await self._pause(self._retry_after_s)

    async def _follow(
        self,
        pubsub: PubSub,
        on_customer: Callable[[str, bool], Awaitable[None]],
        on_gap: Callable[[], Awaitable[None]],
    ) -> None:
        unanswered = False
        while True:
            message = await pubsub.get_message(timeout=self._heartbeat_s)
            if message is None:
                # A dead peer sends nothing, just as a quiet one: only an answered ping tells them apart.
                if unanswered:
                    raise TimeoutError("the subscription is silent")
                await pubsub.ping()
                unanswered = True
                continue
            unanswered = False
            if message["type"] == "subscribe":
                await on_gap()
                self._state.up()
            elif message["type"] == "message":
                version, _, customer_id = message["data"].decode(errors="replace").partition(" ")
                await on_customer(customer_id, version != self._version)


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except (RedisError, OSError) as exc:
        raise CacheUnavailable("the context cache does not answer") from exc
