"""The two tiers of the context cache: an in-process LRU of customers before a shared store of section records."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from cachetools import TLRUCache

from models.enrichment.encoding import StoredContext
from models.enrichment.generations import Shelf, Write
from models.enrichment.protocol import SectionCache
from models.enrichment.records import SectionRecord
from models.errors import CacheUnavailable
from models.telemetry import Metrics, NoMetrics, Transition

logger = logging.getLogger(__name__)

V = TypeVar("V")

#: Encoded contexts of one customer, one per view; agents of more kinds than this at once are rare.
_MAX_CONTEXTS = 16


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

    def values(self) -> Iterator[V]:
        """Every value whose time is not up; not counted as uses."""
        self._kept.expire()
        return iter([kept[0] for kept in self._kept.values()])

    def __len__(self) -> int:
        return len(self._kept)


@dataclass(slots=True, eq=False)
class CustomerEntry:
    """All that is in memory of one customer: section records by provider, encoded contexts by view.

    Until `unknown_until`, on the monotonic clock, there is no such customer.
    """

    records: dict[str, SectionRecord] = field(default_factory=dict)
    contexts: dict[str, StoredContext] = field(default_factory=dict)
    unknown_until: float = float("-inf")
    kept_at: float = float("-inf")

    def keep_context(self, view: str, context: StoredContext) -> None:
        self.contexts.pop(view, None)
        while len(self.contexts) >= _MAX_CONTEXTS:
            del self.contexts[next(iter(self.contexts))]
        self.contexts[view] = context


class LRUCache(LRU[CustomerEntry]):
    """The first tier; on its own it is what runs without Redis."""


class TieredCache:
    """L1, and L2 behind a gate: a failing L2 is left alone for `retry_after_s` at a time, so that its outage costs
    reads next to nothing; it is logged once. One read then tries whether it is back.

    Writes to L2 are gathered while the one before is under way, and dropped while it fails or falls behind.
    """

    def __init__(
        self,
        l1: LRUCache,
        l2: SectionCache | None = None,
        *,
        retry_after_s: float = 1.0,
        max_waiting_writes: int = 5_000,
        clock: Callable[[], float] = time.monotonic,
        metrics: Metrics | None = None,
    ) -> None:
        self.l1 = l1
        self._l2 = l2
        self._metrics = metrics or NoMetrics()
        self._reads = _Gate("context cache", retry_after_s, clock)
        self._writes = _Gate("writing to the context cache", retry_after_s, clock)
        self._waiting: list[tuple[Write, Callable[[], None]]] = []
        self._max_waiting = max_waiting_writes
        self._writer: asyncio.Task[None] | None = None

    @property
    def shared(self) -> bool:
        """Whether there is a second tier and it may be asked now."""
        return self._l2 is not None and self._reads.open

    async def load(self, keys: Sequence[str]) -> list[Shelf] | None:
        """What L2 holds under each key; `None` when it cannot be asked."""
        if self._l2 is None or not self._reads.enter():
            return None
        try:
            shelves = await self._l2.load(keys)
        except CacheUnavailable as exc:
            self._failed(exc, self._reads, self._writes)
            return None
        self._reads.up()
        return shelves

    def save(self, write: Write, *, refused: Callable[[], None]) -> None:
        """Write to L2 behind the caller's back; `refused` is called if the data was outdated by then."""
        if self._l2 is None or not self._writes.open or len(self._waiting) >= self._max_waiting:
            return
        self._waiting.append((write, refused))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write(self._l2))

    async def outdate(self, keys: Sequence[str], tags: Sequence[str]) -> None:
        """Begin new generations in L2. Raises `CacheUnavailable` when that may not have happened."""
        if self._l2 is not None:
            await self._l2.outdate(keys, tags)

    async def settle(self) -> None:
        """Return once every write has been made or dropped."""
        while self._writer is not None:
            await asyncio.wait((self._writer,))

    async def close(self) -> None:
        self.l1.clear()
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        if self._l2 is not None:
            await self._l2.close()

    async def _write(self, l2: SectionCache) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                if not self._writes.enter():
                    continue
                try:
                    kept = await l2.save([write for write, _ in batch])
                except CacheUnavailable as exc:
                    self._failed(exc, self._writes)
                    continue
                self._writes.up()
                for landed, (_, refused) in zip(kept, batch, strict=True):
                    if not landed:
                        refused()
        finally:
            self._writer = None

    def _failed(self, exc: CacheUnavailable, *gates: _Gate) -> None:
        self._metrics.count("context_cache_errors_total", tier="l2")
        for gate in gates:
            gate.down(exc)


class _Gate:
    """Shuts for a while after a failure; then lets one through at a time until one has succeeded."""

    def __init__(self, name: str, retry_after_s: float, clock: Callable[[], float]) -> None:
        self._retry_after_s = retry_after_s
        self._retry_at = float("-inf")
        self._failing = False
        self._clock = clock
        self._state = Transition(name, logger)

    @property
    def open(self) -> bool:
        return self._clock() >= self._retry_at

    def enter(self) -> bool:
        if not self.open:
            return False
        if self._failing:
            self._retry_at = self._clock() + self._retry_after_s
        return True

    def up(self) -> None:
        self._failing, self._retry_at = False, float("-inf")
        self._state.up()

    def down(self, exc: CacheUnavailable) -> None:
        self._failing, self._retry_at = True, self._clock() + self._retry_after_s
        self._state.down(exc)
