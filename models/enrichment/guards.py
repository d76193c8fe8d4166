"""One provider behind a breaker and a bulkhead: whatever it does, its failure stays its own."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from models.enrichment.policy import CachePolicy
from models.enrichment.records import SectionRecord
from models.enrichment.types import ProviderSpec, ProviderState
from models.errors import DeadlineExceeded, Forbidden, UnknownCustomer
from models.resilience.breaker import BreakerState, CircuitBreaker
from models.resilience.deadline import Deadline
from models.telemetry import Metrics, Transition

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a provider gave no data; `unknown` when it says that there is no such customer."""

    state: ProviderState
    detail: str
    unknown: bool = False


#: What becomes of asking a provider about one customer.
Landing = SectionRecord | Failure

UNKNOWN = Failure(state=ProviderState.MISSING, detail="there is no such customer", unknown=True)
CIRCUIT_OPEN = Failure(state=ProviderState.SKIPPED, detail="circuit open")
TOO_MANY = Failure(state=ProviderState.SKIPPED, detail="too many fetches of this provider are running")
TOO_SLOW = Failure(state=ProviderState.TIMEOUT, detail="no answer within its own timeout")
REFUSED = Failure(state=ProviderState.DENIED, detail="the source refused us")
FAILED = Failure(state=ProviderState.ERROR, detail="the source failed")


class Guard:
    """Calls one provider, for at most its `timeout_s` and at most `max_in_flight` times at once.

    After `breaker_failures` failures in a row it is left alone for `breaker_open_s`, then tried again once.
    """

    def __init__(
        self,
        spec: ProviderSpec,
        policy: CachePolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        metrics: Metrics,
    ) -> None:
        self._spec = spec
        self._max_in_flight = policy.max_in_flight
        self._breaker = CircuitBreaker(
            f"context provider {spec.name}",
            failures=policy.breaker_failures,
            reset_after_s=policy.breaker_open_s,
            counts=_is_outage,
            clock=clock,
        )
        self._clock = clock
        self._metrics = metrics
        self._state = Transition(f"provider {spec.name}", logger)
        self._running: set[asyncio.Task[object]] = set()

    async def call(self, fetch: Callable[[Deadline], Awaitable[T]]) -> T | Failure:
        """What `fetch` returns, or why it did not; raises nothing but a cancellation of the caller."""
        if len(self._running) >= self._max_in_flight:
            return self._told(TOO_MANY)
        started, asked = self._clock(), False
        try:
            with self._breaker.guard():
                asked = True
                answer = await self._in_time(fetch)
        except UnknownCustomer:
            self._state.up()
            return UNKNOWN
        except Exception as exc:
            return self._told(_failure(exc) if asked else CIRCUIT_OPEN, exc)
        finally:
            is_open = self._breaker.state is BreakerState.OPEN
            self._metrics.observe("context_breaker_open", float(is_open), provider=self._spec.name)
        self._state.up()
        self._metrics.observe("context_provider_latency_seconds", self._clock() - started, provider=self._spec.name)
        return answer

    async def close(self) -> None:
        """Cancel what is running; what does not heed that is given a second."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=1.0)

    async def _in_time(self, fetch: Callable[[Deadline], Awaitable[T]]) -> T:
        # A task of its own, because a fetch that does not heed its cancellation must not hold up its readers.
        task = asyncio.ensure_future(fetch(Deadline.after(self._spec.timeout_s, self._clock)))
        self._running.add(task)
        task.add_done_callback(self._ended)
        try:
            done, _ = await asyncio.wait((task,), timeout=self._spec.timeout_s)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if done:
            return task.result()
        task.cancel()
        raise TimeoutError(f"{self._spec.name} did not answer in time")

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # told to whoever waited; nobody does for what comes after the timeout

    def _told(self, failure: Failure, exc: Exception | None = None) -> Failure:
        if exc is not None:
            self._state.down(exc)
        return failure


def _failure(exc: Exception) -> Failure:
    if isinstance(exc, TimeoutError | DeadlineExceeded):
        return TOO_SLOW
    return REFUSED if isinstance(exc, Forbidden) else FAILED


def _is_outage(error: BaseException) -> bool | None:
    """Anything that a provider may not raise is a failure of it; a cancelled caller says nothing."""
    if not isinstance(error, Exception):
        return None
    return not isinstance(error, UnknownCustomer | Forbidden)
