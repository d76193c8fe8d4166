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
#: For how long the history is trusted to have as its newest version what was recorded here: others record too.
_NOTED_S = 60.0


@dataclass(slots=True, eq=False)
class Flight:
    """The contexts of some customers for one view, on their way; `ready` holds them, without the unknown.

    It is `overtaken` when newer data of one of them was in memory by the time it landed.
    """

    key: str | None
    view: AgentView
    batch: Batch
    started: float
    ready: asyncio.Future[dict[str, Assembled]]
    task: asyncio.Task[None] | None = field(default=None, repr=False)
    overtaken: bool = False


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
        noted_customers: int = 10_000,
    ) -> None:
        self._collector = collector
        self._assembler = assembler
        self._sections = sections
        self._history = history
        self._clock = clock
        self._wall_clock = wall_clock
        self._metrics = metrics
        #: The version of each customer that the history has, by agent type.
        self._noted: LRU[dict[str, str]] = LRU(entries=noted_customers, clock=clock)
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
        return await self._make(flight)

    def outdate(self, customer_ids: Collection[str] | None = None) -> None:
        """Data of these customers changed (`None`: of anybody): what is under way is neither joined nor kept."""
        if customer_ids is None:
            self._noted.clear()
        else:
            self._noted.drop(*customer_ids)
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
            made = await self._make(flight, keep=True)
        except asyncio.CancelledError:
            flight.ready.cancel()
            raise
        except Exception as exc:
            self._fail(flight.ready, exc)
            return
        finally:
            if flight.key is not None and self._joinable.get(flight.key) is flight:
                del self._joinable[flight.key]
        flight.ready.set_result(made)
        superseded = flight.batch.outdated or flight.overtaken
        if flight.key is not None and flight.view.key == flight.view.agent_type and not superseded:
            for customer_id, one in made.items():
                await self._note(flight, customer_id, one)

    async def _make(self, flight: Flight, *, keep: bool = False) -> dict[str, Assembled]:
        made = {}
        for count, collection in enumerate(flight.batch.collections, start=1):
            if not collection.unknown:
                made[collection.customer_id] = one = self._assemble(flight, collection)
                if keep and not flight.batch.outdated:
                    self._keep(flight, collection, one)
            if count % _BEFORE_A_BREAK == 0:
                await asyncio.sleep(0)
        return made

    def _keep(self, flight: Flight, collection: Collecting, made: Assembled) -> None:
        """In memory, unless a reader who asked for newer data has brought it there meanwhile."""
        used = {name: answer.record for name, answer in collection.answers.items()}
        if self._sections.have_newer(collection.customer_id, used):
            flight.overtaken = True
        else:
            generations = collection.found.generations
            self._sections.keep_context(collection.customer_id, flight.view.key, made.stored, generations)

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

    async def _note(self, flight: Flight, customer_id: str, made: Assembled) -> None:
        """Only what one reader saw whole: many at once are a job's business, and a gap is no change of content."""
        context = made.stored.context
        if self._history is None or made.served_from is not ServedFrom.ORIGIN or not context.complete:
            return
        noted = self._noted.peek(customer_id) or {}
        if noted.get(context.agent_type) == context.context_version:
            return
        sections = lasting(context.sections())
        entry = HistoryEntry(
            customer_id=customer_id,
            agent_type=context.agent_type,
            context_version=context.context_version,
            content=content_of(sections),
            at=self._wall_clock(),
            sources=sources_of(context.outcomes),
            rules=flight.view.fingerprint,
        )
        try:
            await self._history.record(entry)
        except DatabaseUnavailable as exc:
            self._metrics.count("context_history_errors_total")
            self._history_state.down(exc)
        except Exception as exc:  # of which only the kind is told: its text may hold the content
            self._metrics.count("context_history_errors_total")
            logger.error("a context version could not be recorded", extra={"error": type(exc).__name__})
        else:
            self._history_state.up()
            if not flight.batch.outdated:
                noted = {**(self._noted.peek(customer_id) or {}), context.agent_type: context.context_version}
                self._noted.keep(customer_id, noted, ttl_s=_NOTED_S)
