"""Reads of customer context: from the cache if possible, else from the providers, always within the deadline."""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from models.clock import utc_now
from models.enrichment.assembly import Assembled, Assembler
from models.enrichment.cache import TieredCache
from models.enrichment.collector import Collector
from models.enrichment.dependencies import check_specs
from models.enrichment.encoding import StoredContext, splice, splice_many, splice_summary
from models.enrichment.fetches import Fetches, Need
from models.enrichment.flights import Flights
from models.enrichment.generations import Change
from models.enrichment.policy import MAX_SKEW_MS, CachePolicy, Freshener
from models.enrichment.prompt import fit
from models.enrichment.protocol import ClosableProvider, ContextHistory, ContextProvider, Invalidations, Relevance
from models.enrichment.records import epoch_ms
from models.enrichment.sections import EVERYONE, Sections
from models.enrichment.selection import AgentView, AgentViews
from models.enrichment.types import ContextReading, ContextRequest, EnrichedContext, ReadFormat, Scope, ServedFrom
from models.errors import ContextEnrichmentError, DeadlineExceeded, Forbidden, InvalidRequest, UnknownCustomer
from models.telemetry import Metrics, NoMetrics

MAX_CUSTOMERS = 1000
#: With less time than this a read waits for the providers of the most important tier only.
HURRY_S = 0.05
#: How long what is cancelled may take to end before it is told again.
_HEED_S = 0.2
_CUSTOMER_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class ContextOrchestrator:
    """A `ContextSource` and `ContextReader` over the given providers and cache.

    `start()` follows the invalidations of other replicas; `close()` ends all work in the background. Without a cache
    every read asks the providers. A read whose deadline is less than 50 ms away starts every provider but waits only
    for the most important tier of its view.
    """

    def __init__(
        self,
        providers: Iterable[ContextProvider],
        *,
        views: AgentViews,
        cache: TieredCache | None = None,
        invalidations: Invalidations | None = None,
        history: ContextHistory | None = None,
        relevance: Relevance | None = None,
        policy: CachePolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = utc_now,
        chance: Callable[[], float] = random.random,
        metrics: Metrics | None = None,
    ) -> None:
        self._providers = list(providers)
        by_name = {provider.spec.name: provider for provider in self._providers}
        self._specs = check_specs(provider.spec for provider in self._providers)
        views.check(self._specs)
        self._metrics = metrics or NoMetrics()
        freshener = Freshener(policy or CachePolicy(), clock=clock, wall_clock=wall_clock, chance=chance)
        self._sections = Sections(self._specs, freshener, cache, on_outdated=self._outdated)
        self._fetches = Fetches(by_name, self._sections, freshener, metrics=self._metrics, clock=clock)
        collector = Collector(self._specs, self._sections, self._fetches, freshener, metrics=self._metrics)
        self._flights = Flights(
            collector,
            Assembler(freshener, clock=clock, wall_clock=wall_clock),
            self._sections,
            history=history,
            clock=clock,
            wall_clock=wall_clock,
            metrics=self._metrics,
        )
        self._views = views
        self._cache = cache
        self._invalidations = invalidations
        self._relevance = relevance
        self._clock = clock
        self._wall_clock = wall_clock
        self._listener: asyncio.Task[None] | None = None

    async def read(self, customer_id: str, request: ContextRequest) -> ContextReading:
        """One read as bytes. On an L1 hit without a message this neither waits nor serialises. Raises as `enrich`."""
        started, now_ms = self._clock(), self._now_ms()
        deadline_ms = math.ceil(request.deadline.remaining_s() * 1000)
        scores, by_message = None, False
        if request.message is None or self._relevance is None:
            found = await self._find(customer_id, request, started, now_ms)
        else:
            found, scores, by_message = await self._ranked(customer_id, request, self._relevance, request.message)
        stored, tier = found.stored, found.served_from
        if found.provider_tiers is not None or scores is not None:  # then this read has waited
            now_ms = self._now_ms()
        elapsed_ms = (self._clock() - started) * 1000
        media_type = "application/json"
        if request.format is ReadFormat.JSON:
            body = splice(
                stored,
                now_ms=now_ms,
                served_from=tier,
                deadline_ms=deadline_ms,
                elapsed_ms=elapsed_ms,
                provider_tiers=found.provider_tiers,
                relevance=scores,
                ranked_by_message=by_message,
            )
        elif request.format is ReadFormat.SUMMARY:
            body = splice_summary(stored, served_from=tier)
        else:
            media_type = "text/plain; charset=utf-8"
            body = fit(stored.prompt, max_tokens=request.max_tokens, relevance=scores).encode()
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

    async def read_many(self, customer_ids: Sequence[str], request: ContextRequest) -> bytes:
        """One read of up to 1,000 customers as JSON; each is in the answer once. Raises as `enrich`."""
        started = self._clock()
        deadline_ms = math.ceil(request.deadline.remaining_s() * 1000)
        found = await self._find_many(customer_ids, request)
        now_ms = self._now_ms()
        elapsed_ms = (self._clock() - started) * 1000
        bodies, unknown, complete = [], [], True
        for customer_id, one in found.items():
            if one is None:
                unknown.append(customer_id)
                continue
            complete = complete and one.stored.complete
            bodies.append(
                splice(
                    one.stored,
                    now_ms=now_ms,
                    served_from=one.served_from,
                    deadline_ms=deadline_ms,
                    elapsed_ms=elapsed_ms,
                    provider_tiers=one.provider_tiers,
                )
            )
        return splice_many(bodies, unknown=unknown, complete=complete, deadline_ms=deadline_ms, elapsed_ms=elapsed_ms)

    async def enrich(self, customer_id: str, request: ContextRequest) -> EnrichedContext:
        """The same read as a value.

        Raises `UnknownCustomer`, `UnknownAgentType`, `InvalidRequest`, `Forbidden` when the agent type does not see a
        required provider, `DeadlineExceeded` when that provider is absent, and `ContextEnrichmentError`.
        """
        return _value(await self._find(customer_id, request, self._clock(), self._now_ms()))

    async def enrich_many(self, customer_ids: Sequence[str], request: ContextRequest) -> dict[str, EnrichedContext]:
        """The contexts of up to 1,000 customers by id, without the unknown. Raises as `enrich`, but for those."""
        found = await self._find_many(customer_ids, request)
        return {customer_id: _value(one) for customer_id, one in found.items() if one is not None}

    async def invalidate(self, customer_ids: Sequence[str] = (), tags: Sequence[str] = ()) -> None:
        """Forget what changed, here at once and on every other replica soon.

        Everything of the customers, or with tags only their sections that bear one of them; tags alone are about all
        customers. A tag that no provider bears is about nothing. Raises `CacheUnavailable` when the others could not be
        told; what is here is forgotten even then.
        """
        borne = tuple(tag for tag in dict.fromkeys(tags) if tag in self._sections.tags)
        change = Change(customer_ids=tuple(customer_ids), tags=borne)
        if not borne and (tags or not customer_ids):
            return
        self._metrics.count("context_invalidations_total", kind="customer" if customer_ids else "tag")
        self._forget(change)
        if self._cache is not None:
            await self._cache.outdate(change.customer_ids, change.tags)
            self._forget(change)  # a read may have found the old values in the shared tier until now
        if self._invalidations is not None:
            await self._invalidations.publish(change)

    def start(self) -> None:
        """Begin to follow the invalidations of other replicas; once per process, inside its event loop."""
        if self._invalidations is not None and self._listener is None:
            self._listener = asyncio.create_task(
                self._invalidations.listen(self._changed_elsewhere, self._missed_changes)
            )

    async def settle(self) -> None:
        """Return once everything under way in the background has been done."""
        await self._flights.settle()
        await self._fetches.settle()
        if self._cache is not None:
            await self._cache.settle()

    async def close(self) -> None:
        """Cancel all work in the background, wait until it has ended, and let go of the cache."""
        while self._listener is not None and not self._listener.done():
            self._listener.cancel()  # again until it heeds it: libraries lose cancellations
            await asyncio.wait((self._listener,), timeout=_HEED_S)
        await self._flights.close()
        await self._fetches.close()
        for provider in self._providers:
            if isinstance(provider, ClosableProvider):
                await provider.close()
        if self._cache is not None:
            await self._cache.close()

    async def _find(self, customer_id: str, request: ContextRequest, now_s: float, now_ms: int) -> Assembled:
        view = self._views.resolve(request)
        found = self._in_memory(customer_id, view, request, now_s, now_ms)
        if found is None:
            self._metrics.count("context_cache_requests_total", tier="l1", result="miss")
            found = await self._obtain(customer_id, view, request)
        else:
            if now_ms >= found.stored.refresh_at_ms:
                self._flights.board(customer_id, view, Need(), refreshing=True)
            result = "stale" if found.stored.stale else "hit"
            self._metrics.count("context_cache_requests_total", tier="l1", result=result)
        self._metrics.count("context_reads_total", served_from=found.served_from)
        return found

    async def _find_many(self, customer_ids: Sequence[str], request: ContextRequest) -> dict[str, Assembled | None]:
        """By id in the order asked; `None` for the unknown."""
        if len(customer_ids) > MAX_CUSTOMERS:
            raise InvalidRequest(f"at most {MAX_CUSTOMERS:,} customers can be read at once")
        view = self._views.resolve(request)
        self._lacks(frozenset(), request, view)
        found: dict[str, Assembled | None] = {}
        missing: list[str] = []
        due: list[str] = []
        now_s, now_ms = self._clock(), self._now_ms()
        for customer_id in customer_ids:
            if customer_id not in found:
                found[customer_id] = one = self._in_memory(customer_id, view, request, now_s, now_ms)
                if one is None:
                    _check_id(customer_id)
                    missing.append(customer_id)
                elif now_ms >= one.stored.refresh_at_ms:
                    due.append(customer_id)
        if due:
            self._flights.board_many(due, view, Need(), refreshing=True)
        if missing:
            flight = self._flights.board_many(missing, view, self._need(request))
            await asyncio.wait((flight.ready,), timeout=request.deadline.remaining_s())
            found.update(_landed(flight.ready) if flight.ready.done() else await self._flights.so_far(flight))
        self._metrics.count("context_cache_requests_total", len(found) - len(missing), tier="l1", result="hit")
        self._metrics.count("context_cache_requests_total", len(missing), tier="l1", result="miss")
        for one in found.values():
            if one is not None and (absent := self._lacks(one.stored.absent, request, view)):
                raise DeadlineExceeded(f"required context providers did not answer: {', '.join(absent)}")
        return found

    def _in_memory(
        self, customer_id: str, view: AgentView, request: ContextRequest, now_s: float, now_ms: int
    ) -> Assembled | None:
        """The encoded context in L1, if it will do for this request now."""
        stored = None if request.force_refresh else self._sections.context(customer_id, view.key)
        if (
            stored is None
            or now_ms >= stored.expires_at_ms
            or now_s >= stored.kept_until
            or stored.newest_ms > now_ms + MAX_SKEW_MS
            or (request.max_age_ms is not None and _older(stored, request.max_age_ms, now_s, now_ms))
            or (request.required and self._lacks(stored.absent, request, view))
        ):
            return None
        return Assembled(stored, ServedFrom.L1)

    async def _obtain(self, customer_id: str, view: AgentView, request: ContextRequest) -> Assembled:
        """Join or start the flight for this read, wait for it until the deadline, and take what has come in by then."""
        _check_id(customer_id)
        self._lacks(frozenset(), request, view)
        flight = self._flights.board(customer_id, view, self._need(request))
        left_s = request.deadline.remaining_s()
        # Waited for, not awaited: a read that is cancelled must not cancel everybody's flight.
        if left_s < HURRY_S:
            await asyncio.wait(
                (flight.ready, flight.batch.critical), timeout=left_s, return_when=asyncio.FIRST_COMPLETED
            )
        else:
            await asyncio.wait((flight.ready,), timeout=left_s)
        made = _landed(flight.ready) if flight.ready.done() else await self._flights.so_far(flight)
        found = made.get(customer_id)
        if found is None:
            raise UnknownCustomer("there is no such customer")
        if absent := self._lacks(found.stored.absent, request, view):
            raise DeadlineExceeded(f"required context providers did not answer: {', '.join(absent)}")
        return found

    def _need(self, request: ContextRequest) -> Need:
        if request.force_refresh:
            return Need(after=self._fetches.count)
        if request.max_age_ms is not None:
            return Need(since=self._clock() - request.max_age_ms / 1000)
        return Need()

    def _lacks(self, absent: frozenset[str], request: ContextRequest, view: AgentView) -> list[str]:
        """Which required providers are absent; a name that nobody or not this agent type may require raises."""
        for name in request.required:
            if name not in self._specs:
                raise InvalidRequest(f"required names no context provider; choose from: {', '.join(self._specs)}")
            if name not in view.providers:
                raise Forbidden(f"agent type {view.agent_type} does not see {name}")
        return [name for name in request.required if name in absent]

    async def _ranked(
        self, customer_id: str, request: ContextRequest, relevance: Relevance, message: str
    ) -> tuple[Assembled, Mapping[str, float], bool]:
        """The context, how much each of its sections matters, and whether the message had a say in that.

        It is embedded meanwhile; if that takes too long, tier, freshness and agent type decide alone.
        """
        embedding = asyncio.ensure_future(relevance.vector(message, request.deadline))
        try:
            found = await self._find(customer_id, request, self._clock(), self._now_ms())
            vector = await embedding
        finally:
            embedding.cancel()
        stored = found.stored
        now_ms = self._now_ms()
        freshness, tiers = {}, {}
        for outcome, as_of_ms in zip(stored.context.outcomes, stored.as_of_ms, strict=True):
            spec = self._specs[outcome.provider]
            tiers[spec.section] = spec.tier
            if as_of_ms is not None:
                freshness[spec.section] = max(0.0, 1 - max(0, now_ms - as_of_ms) / (spec.ttl_s * 1000))
        importance = self._views.resolve(request).importance
        present = tuple(stored.context.sections())
        scores = relevance.scores(present, vector, tiers=tiers, freshness=freshness, importance=importance)
        return found, scores, vector is not None

    def _now_ms(self) -> int:
        return epoch_ms(self._wall_clock())

    def _forget(self, change: Change) -> None:
        names = self._sections.outdated_by(change)
        keys = frozenset(change.customer_ids) or None
        self._flights.outdate(keys)
        self._fetches.outdate(names, keys)
        self._sections.forget(change)

    def _outdated(self, key: str) -> None:
        if key == EVERYONE:
            self._forget(Change(tags=tuple(n for n, spec in self._specs.items() if spec.scope is Scope.EVERYONE)))
        else:
            self._forget(Change(customer_ids=(key,)))

    async def _changed_elsewhere(self, change: Change) -> None:
        self._forget(change)

    async def _missed_changes(self) -> None:
        self._metrics.count("context_invalidations_total", kind="gap")
        self._flights.outdate()
        self._fetches.outdate(frozenset(self._specs), None)
        self._sections.forget_all()


def _value(found: Assembled) -> EnrichedContext:
    context = found.stored.context
    return context if found.served_from is ServedFrom.ORIGIN else replace(context, cache_hit=True)


def _older(stored: StoredContext, max_age_ms: int, now_s: float, now_ms: int) -> bool:
    """By either clock, for the wall clock may have been set back."""
    return now_ms - stored.oldest_ms > max_age_ms or stored.read_at < now_s - max_age_ms / 1000


def _landed(ready: asyncio.Future[dict[str, Assembled]]) -> dict[str, Assembled]:
    if ready.cancelled():
        raise ContextEnrichmentError("the assembly of this context was stopped")
    return ready.result()


def _check_id(customer_id: str) -> None:
    if not _CUSTOMER_ID.fullmatch(customer_id):
        raise InvalidRequest("a customer id has 1 to 64 letters, digits, underscores or hyphens")
