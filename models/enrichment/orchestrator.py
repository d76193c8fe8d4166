"""Reads of customer context: from the cache if possible, else from the providers, always within the deadline."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from models.clock import utc_now
from models.enrichment.assembly import Assembled, Assembler
from models.enrichment.cache import TieredCache
from models.enrichment.collector import Collector
from models.enrichment.encoding import SCHEMA_VERSION, decode, epoch_ms, splice, splice_summary
from models.enrichment.flights import Flights
from models.enrichment.prompt import fit
from models.enrichment.protocol import ContextHistory, ContextProvider, Invalidations
from models.enrichment.selection import AgentView, AgentViews
from models.enrichment.types import ContextReading, EnrichedContext, ReadFormat, ServedFrom
from models.errors import ContextEnrichmentError, DeadlineExceeded, Forbidden, InvalidRequest
from models.resilience.deadline import Deadline
from models.telemetry import Metrics, NoMetrics

_CUSTOMER_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class ContextOrchestrator:
    """A `ContextSource` and `ContextReader` over the given providers and cache.

    `start()` follows the invalidations of other replicas; `close()` ends all work in the background. Without a cache
    every read asks the providers.
    """

    def __init__(
        self,
        providers: Iterable[ContextProvider],
        *,
        views: AgentViews,
        cache: TieredCache | None = None,
        invalidations: Invalidations | None = None,
        history: ContextHistory | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = utc_now,
        metrics: Metrics | None = None,
        ttl_s: float = 300.0,
        partial_ttl_s: float = 2.0,
        stale_if_error_s: float = 600.0,
        max_in_flight: int = 64,
        remembered_customers: int = 1000,
    ) -> None:
        self._metrics = metrics or NoMetrics()
        self._collector = Collector(
            providers,
            clock=clock,
            wall_clock=wall_clock,
            metrics=self._metrics,
            remembered_customers=0 if cache is None else remembered_customers,
            stale_if_error_s=stale_if_error_s,
            max_in_flight=max_in_flight,
        )
        self._specs = self._collector.specs
        views.check(self._specs)
        self._flights = Flights(
            self._collector,
            Assembler(self._specs, ttl_s=ttl_s, partial_ttl_s=partial_ttl_s, clock=clock, wall_clock=wall_clock),
            cache=cache,
            history=history,
            clock=clock,
            wall_clock=wall_clock,
            metrics=self._metrics,
        )
        self._views = views
        self._prefix = f"ctx:{cache_version(views)}:"
        self._cache = cache
        self._invalidations = invalidations
        self._clock = clock
        self._wall_clock = wall_clock
        self._listener: asyncio.Task[None] | None = None

    async def read(
        self,
        customer_id: str,
        *,
        agent_type: str,
        deadline: Deadline,
        max_age_ms: int | None = None,
        force_refresh: bool = False,
        required: Sequence[str] = (),
        format: ReadFormat = ReadFormat.JSON,
        max_tokens: int | None = None,
    ) -> ContextReading:
        """One read as bytes. On an L1 hit this neither waits nor serialises.

        Raises `UnknownCustomer`, `UnknownAgentType`, `InvalidRequest`, `Forbidden` when the agent type does not see a
        required provider, and `DeadlineExceeded` when that provider is absent.
        """
        started = self._clock()
        deadline_ms = math.ceil(deadline.remaining_s() * 1000)
        found = await self._find(customer_id, agent_type, deadline, max_age_ms, force_refresh, required)
        stored, tier = found.stored, found.served_from
        now_ms = epoch_ms(self._wall_clock())
        elapsed_ms = (self._clock() - started) * 1000
        media_type = "application/json"
        if format is ReadFormat.JSON:
            body = splice(
                stored,
                now_ms=now_ms,
                served_from=tier,
                deadline_ms=deadline_ms,
                elapsed_ms=elapsed_ms,
                provider_tiers=found.provider_tiers,
            )
        elif format is ReadFormat.SUMMARY:
            body = splice_summary(stored, served_from=tier)
        else:
            media_type, body = "text/plain; charset=utf-8", fit(stored.prompt, max_tokens=max_tokens).encode()
        return ContextReading(
            body=body,
            media_type=media_type,
            served_from=tier,
            complete=stored.complete,
            age_ms=max(0, now_ms - stored.oldest_ms),
            ttl_ms=max(0, stored.expires_at_ms - now_ms),
            context_version=stored.context_version,
            cache_hit=tier is not ServedFrom.ORIGIN,
            elapsed_ms=elapsed_ms,
        )

    async def enrich(
        self,
        customer_id: str,
        *,
        agent_type: str,
        deadline: Deadline,
        force_refresh: bool = False,
        required: Sequence[str] = (),
    ) -> EnrichedContext:
        """The same read as a value."""
        found = await self._find(customer_id, agent_type, deadline, None, force_refresh, required)
        return decode(found.stored, cache_hit=found.served_from is not ServedFrom.ORIGIN)

    async def invalidate(self, customer_id: str) -> None:
        """Forget the customer here at once and on every other replica soon.

        Raises `CacheUnavailable` when the others could not be told; what is here is forgotten even then.
        """
        self._forget(customer_id)
        if self._cache is not None:
            await self._cache.remove(*self._keys(customer_id))
        if self._invalidations is not None:
            await self._invalidations.publish(customer_id)

    def start(self) -> None:
        """Begin to follow the invalidations of other replicas; once per process, inside its event loop."""
        if self._invalidations is not None and self._listener is None:
            self._listener = asyncio.create_task(
                self._invalidations.listen(self._changed_elsewhere, self._missed_changes)
            )

    async def settle(self) -> None:
        """Return once everything under way in the background has been done."""
        await self._flights.settle()

    async def close(self) -> None:
        """Cancel all work in the background, wait until it has ended, and let go of the cache."""
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        await self._flights.close()
        if self._cache is not None:
            await self._cache.close()

    async def _find(
        self,
        customer_id: str,
        agent_type: str,
        deadline: Deadline,
        max_age_ms: int | None,
        force_refresh: bool,
        required: Sequence[str],
    ) -> Assembled:
        view = self._views.view(agent_type)
        key = f"{self._prefix}{customer_id}:{view.agent_type}"
        found = None
        if self._cache is not None and not force_refresh:
            stored = self._cache.l1.peek(key)
            if (
                stored is not None
                and not (required and self._lacks(stored.absent, required, view))
                and (max_age_ms is None or epoch_ms(self._wall_clock()) - stored.oldest_ms <= max_age_ms)
            ):
                found = Assembled(stored, ServedFrom.L1)
        if found is None:
            found = await self._obtain(key, customer_id, view, deadline, max_age_ms, force_refresh, required)
        self._metrics.count("context_reads_total", served_from=found.served_from)
        return found

    async def _obtain(
        self,
        key: str,
        customer_id: str,
        view: AgentView,
        deadline: Deadline,
        max_age_ms: int | None,
        force_refresh: bool,
        required: Sequence[str],
    ) -> Assembled:
        """Join or start the flight for this key, wait for it until the deadline, and take what has come in by then."""
        if not _CUSTOMER_ID.fullmatch(customer_id):
            raise InvalidRequest("a customer id has 1 to 64 letters, digits, underscores or hyphens")
        self._lacks(frozenset(), required, view)
        not_before_ms = -math.inf
        if force_refresh:
            not_before_ms = epoch_ms(self._wall_clock()) + 1
        elif max_age_ms is not None:
            not_before_ms = epoch_ms(self._wall_clock()) - max_age_ms
        started = self._clock()
        flight = self._flights.board(key, customer_id, view, not_before_ms)
        # Waited for, not awaited: a read that is cancelled must not cancel everybody's flight.
        await asyncio.wait((flight.ready,), timeout=deadline.remaining_s())
        if not flight.ready.done():
            found = self._flights.so_far(flight, started=started)
        elif flight.ready.cancelled():
            raise ContextEnrichmentError("the assembly of this context was stopped")
        else:
            found = flight.ready.result()
        if absent := self._lacks(found.stored.absent, required, view):
            raise DeadlineExceeded(f"required context providers did not answer: {', '.join(absent)}")
        return found

    def _lacks(self, absent: frozenset[str], required: Sequence[str], view: AgentView) -> list[str]:
        """Which required providers are absent; a name that nobody or not this agent type may require raises."""
        for name in required:
            if name not in self._specs:
                raise InvalidRequest(f"required names no context provider; choose from: {', '.join(self._specs)}")
            if name not in view.providers:
                raise Forbidden(f"agent type {view.agent_type} does not see {name}")
        return [name for name in required if name in absent]

    def _keys(self, customer_id: str) -> list[str]:
        return [f"{self._prefix}{customer_id}:{agent_type}" for agent_type in self._views.names()]

    def _forget(self, customer_id: str) -> None:
        keys = self._keys(customer_id)
        self._flights.outdate(keys)
        self._collector.forget(customer_id)
        if self._cache is not None:
            self._cache.l1.drop(*keys)

    async def _changed_elsewhere(self, customer_id: str, foreign: bool) -> None:
        self._forget(customer_id)
        if foreign and self._cache is not None:
            await self._cache.discard(*self._keys(customer_id))

    async def _missed_changes(self) -> None:
        self._flights.outdate()
        self._collector.forget()
        if self._cache is not None:
            self._cache.l1.clear()


def cache_version(views: AgentViews) -> str:
    """Names the key space of replicas that encode and mask alike."""
    return f"{SCHEMA_VERSION}-{views.fingerprint}"
