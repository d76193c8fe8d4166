"""Token buckets: one in memory, and one that leases tokens from a shared store so that most takes touch no network."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from models.errors import CacheUnavailable
from models.telemetry import Transition

Clock = Callable[[], float]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """At most `capacity` tokens at once, refilled at `per_second`."""

    capacity: int
    per_second: float

    @classmethod
    def per_minute(cls, requests: int) -> Limit:
        """`requests` a minute, all of which may come at once."""
        return cls(capacity=requests, per_second=requests / 60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """`granted` tokens are the caller's; if it is 0, one more will exist in `retry_after_s`."""

    granted: int
    retry_after_s: float = 0.0


class TokenStore(Protocol):
    """Token buckets by key, shared by whoever shares the store."""

    async def lease(self, key: str, limit: Limit, wanted: int) -> Lease:
        """Take up to `wanted` tokens in one step, but never more than a quarter of what is left (at least one).

        Raises `CacheUnavailable`.
        """
        ...


def grant(tokens: float, wanted: int) -> int:
    """How many of the available tokens one lease may take.

    Leases shrink as the bucket empties, so that tokens held by an idle replica are few when they are scarce.
    """
    return min(wanted, max(1, math.floor(tokens / 4)), math.floor(tokens))


class TokenBucket:
    """One bucket in this process (Turner's leaky bucket as a meter)."""

    def __init__(self, limit: Limit, clock: Clock = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._tokens = float(limit.capacity)
        self._at = clock()

    @property
    def available(self) -> float:
        """Tokens there are now."""
        now = self._clock()
        self._tokens = min(self._limit.capacity, self._tokens + (now - self._at) * self._limit.per_second)
        self._at = now
        return self._tokens

    def take(self, tokens: int = 1) -> float:
        """0.0 if the tokens were taken; otherwise nothing is taken, and these are the seconds until they will exist."""
        missing = tokens - self.available
        if missing > 0:
            return missing / self._limit.per_second
        self._tokens -= tokens
        return 0.0


class MemoryTokenStore:
    """A `TokenStore` of this process alone, for one replica or while Redis is away; forgets the least used keys."""

    def __init__(self, clock: Clock = time.monotonic, *, max_keys: int = 10_000) -> None:
        self._clock = clock
        self._max_keys = max_keys
        self._buckets: OrderedDict[tuple[str, Limit], TokenBucket] = OrderedDict()

    async def lease(self, key: str, limit: Limit, wanted: int) -> Lease:
        bucket = self._buckets.pop((key, limit), None) or TokenBucket(limit, self._clock)
        self._buckets[(key, limit)] = bucket
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)
        granted = grant(bucket.available, wanted)
        wait_s = bucket.take(granted or 1)
        return Lease(granted=granted, retry_after_s=0.0 if granted else wait_s)


class _Held:
    """Tokens leased for one key and not used yet."""

    __slots__ = ("leasing", "refused_until", "tokens", "until")

    def __init__(self) -> None:
        self.tokens = 0
        self.until = 0.0
        self.refused_until = 0.0
        self.leasing: asyncio.Task[None] | None = None


class LeasedTokenBucket:
    """Rate limits by key over all replicas, with tokens leased in batches from a shared store.

    `take` is a local subtraction while leased tokens last; a batch that is half used is refilled in the background. The
    limit is never exceeded while the store answers. A replica that holds unused tokens can make another one refuse
    early; leases are small near exhaustion and lapse after `hold_s`, which bounds that. While the store is unavailable,
    each replica limits on its own.
    """

    def __init__(
        self,
        store: TokenStore,
        *,
        batch: int = 10,
        hold_s: float = 5.0,
        clock: Clock = time.monotonic,
        max_keys: int = 10_000,
    ) -> None:
        self._store = store
        self._fallback = MemoryTokenStore(clock, max_keys=max_keys)
        self._batch = batch
        self._hold_s = hold_s
        self._clock = clock
        self._max_keys = max_keys
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._transition = Transition("rate-limit store", _log)

    async def take(self, key: str, limit: Limit) -> float:
        """0.0 if the request may go on; otherwise the seconds until another try makes sense."""
        held = self._find(key)
        while True:
            now = self._clock()
            if held.until <= now:
                held.tokens = 0
            if held.tokens > 0:
                held.tokens -= 1
                if held.tokens <= self._batch // 2 and held.refused_until <= now:
                    self._lease(key, limit, held)
                return 0.0
            if held.refused_until > now:
                return held.refused_until - now
            # Shielded: one caller's cancellation must not take the lease away from the others.
            await asyncio.shield(self._lease(key, limit, held))

    def _find(self, key: str) -> _Held:
        held = self._held.pop(key, None) or _Held()
        self._held[key] = held
        if len(self._held) > self._max_keys:
            self._held.popitem(last=False)
        return held

    def _lease(self, key: str, limit: Limit, held: _Held) -> asyncio.Task[None]:
        if held.leasing is None or held.leasing.done():
            held.leasing = asyncio.get_running_loop().create_task(self._refill(key, limit, held))
        return held.leasing

    async def _refill(self, key: str, limit: Limit, held: _Held) -> None:
        try:
            lease = await self._store.lease(key, limit, self._batch)
        except CacheUnavailable as exc:
            self._transition.down(exc)
            lease = await self._fallback.lease(key, limit, self._batch)
        else:
            self._transition.up()
        now = self._clock()
        if lease.granted:
            held.tokens = (held.tokens if held.until > now else 0) + lease.granted
            held.until = now + self._hold_s
            held.refused_until = 0.0
        else:
            held.refused_until = now + lease.retry_after_s
