"""Sessions in Redis: any replica can serve any session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from redis.asyncio import Redis
from redis.exceptions import RedisError

from models.clock import utc_now
from models.errors import CacheUnavailable, NotFound
from models.sessions.codec import JsonSessionCodec, SessionCodec
from models.sessions.types import Session


class RedisSessionStore:
    """A session is one value that expires by itself; a sorted set per customer names that customer's sessions.

    The store owns no policy: it keeps a session until its `expires_at`, counted from the given clock. A customer's
    index lives as long as the session saved last, so sessions of one store share one time to live.
    """

    def __init__(
        self,
        client: Redis,
        *,
        codec: SessionCodec | None = None,
        clock: Callable[[], datetime] = utc_now,
        prefix: str = "rapport:sessions",
    ) -> None:
        self._redis = client
        self._codec = codec or JsonSessionCodec()
        self._clock = clock
        self._prefix = prefix

    async def load(self, session_id: str) -> Session:
        async with _translated():
            stored = await self._redis.get(self._key(session_id))
        session = None if stored is None else self._decode(stored)
        if session is None or session.expires_at <= self._clock():
            raise NotFound("there is no such session, or it has expired")
        return session

    async def save(self, session: Session) -> None:
        ttl_ms = int((session.expires_at - self._clock()).total_seconds() * 1000)
        if ttl_ms <= 0:
            await self.remove(session.session_id)
            return
        stored = self._codec.encode(session)
        async with _translated(), self._redis.pipeline(transaction=True) as pipe:
            pipe.set(self._key(session.session_id), stored, px=ttl_ms)
            if session.customer_id is not None:
                index = self._index(session.customer_id)
                pipe.zadd(index, {session.session_id: session.expires_at.timestamp()})
                pipe.zremrangebyscore(index, "-inf", self._clock().timestamp())
                pipe.pexpire(index, ttl_ms)
            await pipe.execute()

    async def remove(self, session_id: str) -> None:
        # The customer's index heals itself: `of_customer` drops names whose session is gone.
        async with _translated():
            await self._redis.delete(self._key(session_id))

    async def of_customer(self, customer_id: str) -> list[Session]:
        index = self._index(customer_id)
        now = self._clock()
        async with _translated():
            names = [_text(name) for name in await self._redis.zrange(index, 0, -1)]
            values = await self._redis.mget([self._key(name) for name in names]) if names else []
            if gone := [name for name, stored in zip(names, values, strict=True) if stored is None]:
                await self._redis.zrem(index, *gone)
        sessions = [self._decode(stored) for stored in values if stored is not None]
        return sorted((s for s in sessions if s.expires_at > now), key=lambda s: s.created_at, reverse=True)

    async def check_health(self) -> None:
        """Return if Redis answers; raise `CacheUnavailable` otherwise."""
        async with _translated():
            await self._redis.ping()

    async def close(self) -> None:
        await self._redis.aclose()

    def _decode(self, stored: bytes | str) -> Session:
        return self._codec.decode(stored.encode() if isinstance(stored, str) else stored)

    def _key(self, session_id: str) -> str:
        return f"{self._prefix}:session:{session_id}"

    def _index(self, customer_id: str) -> str:
        return f"{self._prefix}:customer:{customer_id}"


def _text(name: object) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except (RedisError, OSError, TimeoutError) as exc:
        raise CacheUnavailable("the session store does not answer") from exc
