"""Assemblies under way: one per key however many want it, each outliving the deadlines of those who wait for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from models.clock import utc_now
from models.enrichment.assembly import Assembled, Assembler
from models.enrichment.cache import LRU, TieredCache
from models.enrichment.collector import Collection, Collector
from models.enrichment.encoding import content_of, epoch_ms
from models.enrichment.protocol import ContextHistory
from models.enrichment.selection import AgentView
from models.enrichment.types import HistoryEntry, ServedFrom
from models.errors import ContextEnrichmentError, DatabaseUnavailable, RapportError
from models.telemetry import Metrics, NoMetrics, Transition

logger = logging.getLogger(__name__)

#: A flight that is older by this much than its slowest provider may be is stuck, and no longer joined.
_STUCK_AFTER_S = 5.0


@dataclass(slots=True, eq=False)
class Flight:
    """One assembly. `ready` holds the context as soon as it is there; sharing it with others comes after."""

    key: str
    view: AgentView
    collection: Collection
    not_before_ms: float
    started: float
    ready: asyncio.Future[Assembled]
    under_way: bool = False
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class Flights:
    """Starts, shares and lands flights; what lands is cached, and noted in the history when its content changed."""

    def __init__(
        self,
        collector: Collector,
        assembler: Assembler,
        *,
        cache: TieredCache | None = None,
        history: ContextHistory | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = utc_now,
        metrics: Metrics | None = None,
        noted_versions: int = 10_000,
    ) -> None:
        self._collector = collector
        self._assembler = assembler
        self._cache = cache
        self._history = history
        self._clock = clock
        self._wall_clock = wall_clock
        self._metrics = metrics or NoMetrics()
        self._noted: LRU[str] = LRU(entries=noted_versions, clock=clock)
        self._history_state = Transition("context history", logger)
        self._stuck_after_s = _STUCK_AFTER_S + max((s.timeout_s for s in collector.specs.values()), default=0.0)
        self._joinable: dict[str, Flight] = {}
        self._flying: set[Flight] = set()

    def board(self, key: str, customer_id: str, view: AgentView, not_before_ms: float) -> Flight:
        """Join the flight for this key if its data will be new enough, else start one."""
        now = self._clock()
        flight = self._joinable.get(key)
        if flight is not None and now - flight.started < self._stuck_after_s:
            if not flight.under_way:
                flight.not_before_ms = max(flight.not_before_ms, not_before_ms)
            if flight.not_before_ms >= not_before_ms:
                return flight
        ready: asyncio.Future[Assembled] = asyncio.get_running_loop().create_future()
        flight = Flight(key, view, Collection(customer_id), not_before_ms, now, ready)
        flight.task = asyncio.create_task(self._fly(flight))
        self._joinable[key] = flight
        self._flying.add(flight)
        flight.task.add_done_callback(lambda _task: self._flying.discard(flight))
        return flight

    def so_far(self, flight: Flight, *, started: float) -> Assembled:
        """What has come in until now, with a stand-in for every provider that has not."""
        collection = flight.collection
        return self._assembler.assemble(
            collection,
            flight.view,
            stand_in=lambda name: self._collector.without_waiting(collection.customer_id, name),
            started=started,
        )

    def outdate(self, keys: Sequence[str] | None = None) -> None:
        """The data behind these keys changed (`None`: behind all): what is under way is neither joined nor kept."""
        for flight in self._flying:
            if keys is None or flight.key in keys:
                flight.collection.outdated = True
        for key in list(self._joinable) if keys is None else keys:
            self._joinable.pop(key, None)

    async def settle(self) -> None:
        """Return once every flight has landed and been shared."""
        while tasks := [flight.task for flight in self._flying if flight.task is not None]:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """Cancel every flight and wait until it has ended."""
        tasks = [flight.task for flight in self._flying if flight.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fly(self, flight: Flight) -> None:
        try:
            found = await self._cached(flight) or await self._fresh(flight)
        except asyncio.CancelledError:
            flight.ready.cancel()
            raise
        except Exception as exc:
            self._fail(flight.ready, exc)
            return
        finally:
            if self._joinable.get(flight.key) is flight:
                del self._joinable[flight.key]
        flight.ready.set_result(found)
        if found.served_from is ServedFrom.ORIGIN:
            await self._share(flight, found)

    def _fail(self, ready: asyncio.Future[Assembled], exc: Exception) -> None:
        if not isinstance(exc, RapportError):
            logger.error("a context could not be assembled", exc_info=exc)
            failure = ContextEnrichmentError("a context could not be assembled")
            failure.__cause__, exc = exc, failure
        ready.set_exception(exc)
        ready.exception()  # every reader may have left by now, which is no defect worth a warning

    async def _cached(self, flight: Flight) -> Assembled | None:
        if self._cache is None or flight.not_before_ms > epoch_ms(self._wall_clock()):
            return None
        hit = await self._cache.find(flight.key)
        if hit is not None and flight.collection.outdated:
            self._cache.l1.drop(flight.key)
        if hit is None or not hit[0].complete or hit[0].oldest_ms < flight.not_before_ms:
            return None
        return Assembled(*hit)

    async def _fresh(self, flight: Flight) -> Assembled:
        flight.under_way = True
        await self._collector.collect(flight.collection, flight.view.providers, not_before_ms=flight.not_before_ms)
        found = self.so_far(flight, started=flight.started)
        if self._cache is not None and not flight.collection.outdated:
            self._cache.keep(flight.key, found.stored, ttl_s=self._left_s(found))
        return found

    async def _share(self, flight: Flight, found: Assembled) -> None:
        """A complete context goes to other replicas and into the history; one with gaps is nobody else's business."""
        collection = flight.collection
        if not found.stored.complete or collection.outdated:
            return
        if self._cache is not None:
            await self._cache.put(flight.key, found.stored, ttl_s=self._left_s(found))
            if collection.outdated:  # the change was announced while L2 was being written
                await self._cache.discard(flight.key)
                return
        version = found.stored.context_version
        if self._history is None or self._noted.peek(flight.key) == version:
            return
        entry = HistoryEntry(
            customer_id=collection.customer_id,
            agent_type=flight.view.agent_type,
            context_version=version,
            content=content_of(found.sections or {}),
            at=self._wall_clock(),
        )
        try:
            await self._history.record(entry)
        except DatabaseUnavailable as exc:
            self._metrics.count("context_history_errors_total")
            self._history_state.down(exc)
        else:
            self._history_state.up()
            self._noted.keep(flight.key, version, ttl_s=3600.0)

    def _left_s(self, found: Assembled) -> float:
        return (found.stored.expires_at_ms - epoch_ms(self._wall_clock())) / 1000
