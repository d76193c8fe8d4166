"""The two tiers of the context cache: an in-process LRU before a shared store."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Generic, TypeVar

from cachetools import TLRUCache

from models.clock import utc_now
from models.enrichment.encoding import StoredContext, epoch_ms
from models.enrichment.protocol import ContextCache
from models.enrichment.types import ServedFrom
from models.errors import CacheUnavailable
from models.telemetry import Metrics, NoMetrics, Transition

logger = logging.getLogger(__name__)

V = TypeVar("V")


class LRU(Generic[V]):
    """At most `entries` values, each until its time is up; the longest unused goes first. For one event loop.

    With no entries it keeps nothing.
    """

    def __init__(self, *, entries: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._kept: Any = TLRUCache(entries, ttu=lambda _key, kept, now: now + kept[1], timer=clock)

    def peek(self, key: str) -> V | None:
        """The value, which counts as a use; never waits."""
        try:
            value: V = self._kept[key][0]
        except KeyError:
            return None
        return value

    def keep(self, key: str, value: V, *, ttl_s: float) -> None:
        if self._kept.maxsize:
            self._kept[key] = (value, ttl_s)

    def drop(self, *keys: str) -> None:
        for key in keys:
            self._kept.pop(key, None)

    def clear(self) -> None:
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)


class LRUCache(LRU[StoredContext]):
    """The first tier, also a `ContextCache` of its own: what runs without Redis."""

    async def get(self, key: str) -> StoredContext | None:
        return self.peek(key)

    async def put(self, key: str, value: StoredContext, *, ttl_s: float) -> None:
        self.keep(key, value, ttl_s=ttl_s)

    async def remove(self, *keys: str) -> None:
        self.drop(*keys)

    async def close(self) -> None:
        self.clear()


class TieredCache:
    """L1 before L2. What is found in L2 is promoted, never beyond its own expiry.

    A failing L2 is left alone for `retry_after_s`, so that its outage costs reads nothing; it is logged once.
    """

    def __init__(
        self,
        l1: LRUCache,
        l2: ContextCache | None = None,
        *,
        l1_ttl_s: float = 30.0,
        retry_after_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = utc_now,
        metrics: Metrics | None = None,
    ) -> None:
        self.l1 = l1
        self._l2 = l2
        self._l1_ttl_s = l1_ttl_s
        self._retry_after_s = retry_after_s
        self._retry_at = float("-inf")
        self._clock = clock
        self._wall_clock = wall_clock
        self._metrics = metrics or NoMetrics()
        self._l2_state = Transition("context cache", logger)

    async def get(self, key: str) -> StoredContext | None:
        found = await self.find(key)
        return None if found is None else found[0]

    async def find(self, key: str) -> tuple[StoredContext, ServedFrom] | None:
        """The value and the tier that had it."""
        if (stored := self.l1.peek(key)) is not None:
            return stored, ServedFrom.L1
        if self._l2 is None or self._clock() < self._retry_at:
            return None
        try:
            stored = await self._l2.get(key)
        except CacheUnavailable as exc:
            self._failed(exc)
            return None
        self._l2_state.up()
        if stored is None:
            return None
        left_s = (stored.expires_at_ms - epoch_ms(self._wall_clock())) / 1000
        if left_s <= 0:
            return None
        self.l1.keep(key, stored, ttl_s=min(self._l1_ttl_s, left_s))
        return stored, ServedFrom.L2

    def keep(self, key: str, value: StoredContext, *, ttl_s: float) -> None:
        """Keep it in L1 only."""
        self.l1.keep(key, value, ttl_s=min(self._l1_ttl_s, ttl_s))

    async def put(self, key: str, value: StoredContext, *, ttl_s: float) -> None:
        self.keep(key, value, ttl_s=ttl_s)
        if self._l2 is None or self._clock() < self._retry_at:
            return
        try:
            await self._l2.put(key, value, ttl_s=ttl_s)
        except CacheUnavailable as exc:
            self._failed(exc)
        else:
            self._l2_state.up()

    async def remove(self, *keys: str) -> None:
        """Raises `CacheUnavailable` when L2 may still hold the keys; L1 does not by then."""
        self.l1.drop(*keys)
        if self._l2 is not None:
            await self._l2.remove(*keys)

    async def close(self) -> None:
        await self.l1.close()
        if self._l2 is not None:
            await self._l2.close()

    async def discard(self, *keys: str) -> None:
        """As `remove`, for a caller who cannot do anything about a failure."""
        try:
            await self.remove(*keys)
        except CacheUnavailable as exc:
            self._failed(exc)

    def _failed(self, exc: CacheUnavailable) -> None:
        self._retry_at = self._clock() + self._retry_after_s
        self._metrics.count("context_cache_errors_total", tier="l2")
        self._l2_state.down(exc)
