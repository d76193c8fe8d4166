"""One writer per session over all replicas, as a lease in Redis."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from redis.exceptions import RedisError

from models.errors import CacheUnavailable, InProgress
from models.resilience.deadline import Deadline

logger = logging.getLogger(__name__)

_RELEASE = """
if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end
return 0
"""
_RENEW = """
if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) end
return 0
"""
_FAILURES = (RedisError, OSError, TimeoutError)


class RedisSessionLock:
    """A key with a random token: only its holder renews or releases it, and a dead holder's lease runs out.

    A holder whose lease is lost is cancelled and sees `CacheUnavailable`: two writers at once are worse than a turn
    that has to be sent again.
    """

    def __init__(
        self,
        client: Redis,
        *,
        lease_s: float = 10.0,
        poll_s: float = 0.03,
        prefix: str = "rapport:sessions",
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._redis = client
        self._lease_s = lease_s
        self._poll_s = poll_s
        self._prefix = prefix
        self._clock = clock
        self._jitter = jitter
        self._release = client.register_script(_RELEASE)
        self._renew = client.register_script(_RENEW)

    @asynccontextmanager
    async def hold(self, session_id: str, *, deadline: Deadline) -> AsyncIterator[None]:
        key, token = f"{self._prefix}:lock:{session_id}", secrets.token_hex(16)
        holder = asyncio.current_task()
        if holder is None:
            raise RuntimeError("a session lock is held by a task")
        renewal: asyncio.Task[None] | None = None
        lost = asyncio.Event()
        try:
            try:
                await self._acquire(key, token, deadline)
                renewal = asyncio.create_task(self._keep(key, token, holder, lost))
                yield
            finally:
                if renewal is not None:
                    renewal.cancel()
                await self._let_go(key, token)
        except asyncio.CancelledError as exc:
            if lost.is_set() and holder.uncancel() == 0:
                raise CacheUnavailable("the lock of this session was lost") from exc
            raise

    async def _acquire(self, key: str, token: str, deadline: Deadline) -> None:
        lease_ms = int(self._lease_s * 1000)
        while True:
            try:
                if await self._redis.set(key, token, nx=True, px=lease_ms):
                    return
            except _FAILURES as exc:
                raise CacheUnavailable("the session store does not answer") from exc
            pause = self._poll_s * (0.5 + self._jitter())
            if deadline.remaining_s() <= pause:
                raise InProgress("another message of this session is still being answered")
            await asyncio.sleep(pause)

    async def _keep(self, key: str, token: str, holder: asyncio.Task[object], lost: asyncio.Event) -> None:
        """Renew until cancelled; a silent Redis is forgiven until the lease must have run out."""
        held_until = self._clock() + self._lease_s
        while True:
            await asyncio.sleep(self._lease_s / 3)
            try:
                renewed = bool(await self._renew(keys=[key], args=[token, int(self._lease_s * 1000)]))
            except _FAILURES:
                renewed = self._clock() < held_until
            else:
                held_until = self._clock() + self._lease_s
            if not renewed:
                lost.set()
                holder.cancel()
                return

    async def _let_go(self, key: str, token: str) -> None:
        try:
            await self._release(keys=[key], args=[token])
        except _FAILURES as exc:
            # The lease runs out by itself; the turn's result is worth more than this error.
            logger.warning("a session lock was left to expire", extra={"error": type(exc).__name__})
