"""Contexts being made: one per view and customer however many want it, each outliving the deadlines of its readers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from models.clock import utc_now
from models.enrichment.assembly import Assembled, Assembler
from models.enrichment.cache import LRU
from models.enrichment.collector import Batch, Collecting, Collector
from models.enrichment.encoding import content_of
from models.enrichment.fetches import Need
from models.enrichment.history import lasting, sources_of
from models.enrichment.protocol import ContextHistory
from models.enrichment.sections import Sections
from models.enrichment.selection import AgentView
from models.enrichment.types import HistoryEntry, ServedFrom
from models.errors import ContextEnrichmentError, DatabaseUnavailable, RapportError
from models.telemetry import Metrics, Transition

logger = logging.getLogger(__name__)

#: Contexts made in one go before others get their turn: about a millisecond's work.
_BEFORE_A_BREAK = 4


@dataclass(slots=True, eq=False)
class Flight:
    """The contexts of some customers for one view, on their way; `ready` holds them, without the unknown."""

    key: str | None
    view: AgentView
    batch: Batch
    started: float
    ready: asyncio.Future[dict[str, Assembled]]
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class Flights:
    """Starts, shares and lands flights; what lands is kept in L1, and noted in the history when its content changed."""

    def __init__(
        self,
        collector: Collector,
        assembler: Assembler,
        sections: Sections,
        *,
        history: ContextHistory | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = utc_now,
        metrics: Metrics,
        noted_versions: int = 10_000,
    ) -> None:
        self._collector = collector
        self._assembler = assembler
        self._sections = sections
        self._history = history
        self._clock = clock
        self._wall_clock = wall_clock
        self._metrics = metrics
        self._noted: LRU[str] = LRU(entries=noted_versions, clock=clock)
        self._history_state = Transition("context history", logger)
        self._joinable: dict[str, Flight] = {}
        self._flying: set[Flight] = set()

    def board(self, customer_id: str, view: AgentView, need: Need, *, refreshing: bool = False) -> Flight:
        """Join the flight of this customer and view if its data will be new enough, else start one."""
        key = f"{customer_id}/{view.key}"
        flight = self._joinable.get(key)
        if flight is not None:
            if not flight.batch.begun:
                flight.batch.need = flight.batch.need.joined_with(need)
                flight.batch.refreshing = flight.batch.refreshing or refreshing
            if flight.batch.need.covers(need):
                return flight
        flight = self._start(key, [customer_id], view, need, refreshing)
        self._joinable[key] = flight
        return flight

    def board_many(
        self, customer_ids: Sequence[str], view: AgentView, need: Need, *, refreshing: bool = False
    ) -> Flight:
        """Start one flight for all of them; what it fetches is shared with others all the same."""
        return self._start(None, customer_ids, view, need, refreshing)

    async def so_far(self, flight: Flight) -> dict[str, Assembled]:
        """What has come in until now, with a stand-in for every provider that has not."""
        made = {}
        for count, collection in enumerate(flight.batch.collections, start=1):
            if not collection.unknown:
                made[collection.customer_id] = self._assemble(flight, collection)
            if count % _BEFORE_A_BREAK == 0:
                await asyncio.sleep(0)
        return made

    def outdate(self, customer_ids: Collection[str] | None = None) -> None:
        """Data of these customers changed (`None`: of anybody): what is under way is neither joined nor kept."""
        for flight in self._flying:
            if customer_ids is None or any(c.customer_id in customer_ids for c in flight.batch.collections):
                flight.batch.outdated = True
                if flight.key is not None and self._joinable.get(flight.key) is flight:
                    del self._joinable[flight.key]

    async def settle(self) -> None:
        """Return once every flight has landed."""
        while tasks := [flight.task for flight in self._flying if flight.task is not None]:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """Cancel every flight and wait until it has ended."""
        tasks = [flight.task for flight in self._flying if flight.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(
        self, key: str | None, customer_ids: Sequence[str], view: AgentView, need: Need, refreshing: bool
    ) -> Flight:
        loop = asyncio.get_running_loop()
        collections = [Collecting(customer_id) for customer_id in customer_ids]
        batch = Batch(collections, view.providers, need, refreshing, loop.create_future(), loop.create_future())
        flight = Flight(key, view, batch, self._clock(), loop.create_future())
        flight.task = asyncio.create_task(self._fly(flight))
        self._flying.add(flight)
        flight.task.add_done_callback(lambda _task: self._flying.discard(flight))
        return flight

    async def _fly(self, flight: Flight) -> None:
        try:
            await self._collector.collect(flight.batch)
            made = await self.so_far(flight)
        except asyncio.CancelledError:
            flight.ready.cancel()
            raise
        except Exception as exc:
            self._fail(flight.ready, exc)
            return
        finally:
            if flight.key is not None and self._joinable.get(flight.key) is flight:
                del self._joinable[flight.key]
        if not flight.batch.outdated:
            for customer_id, one in made.items():
                self._sections.keep_context(customer_id, flight.view.key, one.stored)
        flight.ready.set_result(made)
        if flight.key is not None and flight.view.key == flight.view.agent_type and not flight.batch.outdated:
            for customer_id, one in made.items():
                await self._note(customer_id, one)

    def _assemble(self, flight: Flight, collection: Collecting) -> Assembled:
        answers = [
            collection.answers.get(name) or self._collector.stand_in(flight.batch, collection, name)
            for name in flight.view.providers
        ]
        return self._assembler.assemble(collection.customer_id, answers, flight.view, started=flight.started)

    def _fail(self, ready: asyncio.Future[dict[str, Assembled]], exc: Exception) -> None:
        if not isinstance(exc, RapportError):
            logger.error("a context could not be assembled", exc_info=exc)
            failure = ContextEnrichmentError("a context could not be assembled")
            failure.__cause__, exc = exc, failure
        ready.set_exception(exc)
        ready.exception()  # every reader may have left by now, which is no defect worth a warning

    async def _note(self, customer_id: str, made: Assembled) -> None:
        """Only what one reader saw whole: many at once are a job's business, and a gap is no change of content."""
        context = made.stored.context
        noted = f"{customer_id}/{context.agent_type}"
        if self._history is None or made.served_from is not ServedFrom.ORIGIN or not context.complete:
            return
        if self._noted.peek(noted) == context.context_version:
            return
        sections = lasting(context.sections())
        entry = HistoryEntry(
            customer_id=customer_id,
            agent_type=context.agent_type,
            context_version=context.context_version,
            content=content_of(sections),
            at=self._wall_clock(),
            sources=sources_of(context.outcomes),
        )
        try:
            await self._history.record(entry)
        except DatabaseUnavailable as exc:
            self._metrics.count("context_history_errors_total")
            self._history_state.down(exc)
        else:
            self._history_state.up()
            self._noted.keep(noted, context.context_version, ttl_s=3600.0)
