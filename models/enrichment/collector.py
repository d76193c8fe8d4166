"""Asks the context providers, all at once, and says of each how it went."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from models.clock import utc_now
from models.enrichment.cache import LRU
from models.enrichment.encoding import epoch_ms
from models.enrichment.protocol import ContextProvider
from models.enrichment.types import SECTIONS, ProviderOutcome, ProviderSpec, ProviderState, Section, ServedFrom
from models.errors import ConfigurationError, DeadlineExceeded, Forbidden, UnknownCustomer
from models.resilience.deadline import Deadline
from models.telemetry import Metrics, NoMetrics, Transition

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """One provider's outcome, with the section it stands for."""

    outcome: ProviderOutcome
    section: Section | None
    served_from: ServedFrom


@dataclass(slots=True)
class Collection:
    """The answers so far for one customer; readable at any moment, complete when `Collector.collect` returns.

    Set `outdated` when the customer's data changes meanwhile: what arrives then is not remembered.
    """

    customer_id: str
    answers: dict[str, Answer] = field(default_factory=dict)
    outdated: bool = False


class Collector:
    """Owns the providers, and remembers the last section of each per customer.

    A remembered section is fresh for its provider's `ttl_s`; for `stale_if_error_s` more it stands in, marked stale,
    when the provider fails. At most `max_in_flight` fetches of one provider run at once; what is over is skipped, so
    that a hanging source cannot pile up work.
    """

    def __init__(
        self,
        providers: Iterable[ContextProvider],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = utc_now,
        metrics: Metrics | None = None,
        remembered_customers: int = 1000,
        stale_if_error_s: float = 600.0,
        max_in_flight: int = 64,
    ) -> None:
        self._providers: dict[str, ContextProvider] = {}
        for provider in providers:
            spec = provider.spec
            if spec.section not in SECTIONS:
                raise ConfigurationError(f"provider {spec.name!r} fills {spec.section!r}, which is no section")
            if spec.name in self._providers:
                raise ConfigurationError(f"provider {spec.name!r} is there twice")
            self._providers[spec.name] = provider
        self._clock = clock
        self._wall_clock = wall_clock
        self._metrics = metrics or NoMetrics()
        self._memory: LRU[dict[str, Answer]] = LRU(entries=remembered_customers, clock=clock)
        self._stale_if_error_s = stale_if_error_s
        self._memory_ttl_s = stale_if_error_s + max((p.spec.ttl_s for p in self._providers.values()), default=0.0)
        self._max_in_flight = max_in_flight
        self._in_flight = dict.fromkeys(self._providers, 0)
        self._states = {name: Transition(f"provider {name}", logger) for name in self._providers}

    @property
    def specs(self) -> dict[str, ProviderSpec]:
        """The specs by provider name."""
        return {name: provider.spec for name, provider in self._providers.items()}

    def forget(self, customer_id: str | None = None) -> None:
        """Drop what is remembered of one customer, or of all."""
        if customer_id is None:
            self._memory.clear()
        else:
            self._memory.drop(customer_id)

    async def collect(self, into: Collection, names: Sequence[str], *, not_before_ms: float) -> None:
        """Fill `into` with an answer per provider; data read before `not_before_ms` does not count as fresh.

        Returns when every provider answered or used up its own timeout; the most important tier is asked first.
        Raises `UnknownCustomer` as soon as one provider says so, and nothing else.
        """
        ordered = sorted(names, key=lambda name: self._providers[name].spec.tier)
        try:
            async with asyncio.TaskGroup() as group:
                for name in ordered:
                    group.create_task(self._answer(into, name, not_before_ms))
        except BaseExceptionGroup as failures:
            if failures.subgroup(UnknownCustomer) is None:
                raise
            raise UnknownCustomer("there is no such customer") from failures

    def without_waiting(self, customer_id: str, name: str) -> Answer:
        """The answer for a provider that has not come in time: stale if something is remembered, else a timeout."""
        return self._failed(customer_id, name, ProviderState.TIMEOUT, "no answer within the deadline of this read")

    async def _answer(self, into: Collection, name: str, not_before_ms: float) -> None:
        spec = self._providers[name].spec
        kept = self._remembered(into.customer_id, name, within_s=spec.ttl_s)
        if kept is not None and _as_of_ms(kept) >= not_before_ms:
            into.answers[name] = kept
            return
        if self._in_flight[name] >= self._max_in_flight:
            into.answers[name] = self._failed(
                into.customer_id, name, ProviderState.SKIPPED, "too many fetches of this provider are running"
            )
            return
        self._in_flight[name] += 1
        try:
            into.answers[name] = await self._fetch(into, name)
        finally:
            self._in_flight[name] -= 1

    async def _fetch(self, into: Collection, name: str) -> Answer:
        """Ask one provider; every failure but an unknown customer becomes an outcome."""
        provider, customer_id = self._providers[name], into.customer_id
        spec, as_of, started = provider.spec, self._wall_clock(), self._clock()
        try:
            async with asyncio.timeout(spec.timeout_s):
                section = await provider.fetch(customer_id, deadline=Deadline.after(spec.timeout_s, self._clock))
            if section is not None and not isinstance(section, SECTIONS[spec.section]):
                raise TypeError(f"provider {name} returned {type(section).__name__}")
        except UnknownCustomer:
            self._states[name].up()
            raise
        except (TimeoutError, DeadlineExceeded) as exc:
            return self._went_away(exc, customer_id, name, ProviderState.TIMEOUT, "no answer within its own timeout")
        except Forbidden as exc:
            return self._went_away(exc, customer_id, name, ProviderState.DENIED, "the source refused us")
        except Exception as exc:
            return self._went_away(exc, customer_id, name, ProviderState.ERROR, "the source failed")
        self._states[name].up()
        state = ProviderState.MISSING if section is None else ProviderState.FRESH
        latency_ms = (self._clock() - started) * 1000
        self._metrics.count("context_provider_outcomes_total", provider=name, state=state)
        self._metrics.observe("context_provider_latency_seconds", latency_ms / 1000, provider=name)
        outcome = ProviderOutcome(
            provider=name, section=spec.section, state=state, source=spec.source, as_of=as_of, latency_ms=latency_ms
        )
        if not into.outdated:
            self._remember(customer_id, name, Answer(outcome, section, ServedFrom.L1))
        return Answer(outcome, section, ServedFrom.ORIGIN)

    def _went_away(self, exc: Exception, customer_id: str, name: str, state: ProviderState, detail: str) -> Answer:
        self._states[name].down(exc)
        self._metrics.count("context_provider_outcomes_total", provider=name, state=state)
        return self._failed(customer_id, name, state, detail)

    def _failed(self, customer_id: str, name: str, state: ProviderState, detail: str) -> Answer:
        spec = self._providers[name].spec
        kept = self._remembered(customer_id, name, within_s=spec.ttl_s + self._stale_if_error_s)
        as_of = None
        if kept is not None:
            detail, state, as_of = f"{state}: {detail}", ProviderState.STALE, kept.outcome.as_of
        outcome = ProviderOutcome(
            provider=name, section=spec.section, state=state, source=spec.source, as_of=as_of, detail=detail
        )
        return Answer(outcome, kept.section if kept else None, ServedFrom.L1 if kept else ServedFrom.ORIGIN)

    def _remember(self, customer_id: str, name: str, answer: Answer) -> None:
        answers = self._memory.peek(customer_id) or {}
        self._memory.keep(customer_id, {**answers, name: answer}, ttl_s=self._memory_ttl_s)

    def _remembered(self, customer_id: str, name: str, *, within_s: float) -> Answer | None:
        answer = (self._memory.peek(customer_id) or {}).get(name)
        if answer is None or epoch_ms(self._wall_clock()) - _as_of_ms(answer) > within_s * 1000:
            return None
        return answer


def _as_of_ms(answer: Answer) -> int:
    return 0 if answer.outcome.as_of is None else epoch_ms(answer.outcome.as_of)
