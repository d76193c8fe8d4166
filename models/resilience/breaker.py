"""Stops calling what keeps failing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

from models.errors import DeadlineExceeded, DependencyUnavailable

Clock = Callable[[], float]
#: True for an outage, false if the dependency answered, `None` if the error says nothing about it.
Counts = Callable[[BaseException], bool | None]


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


def is_outage(error: BaseException) -> bool:
    """Whether the error speaks against the dependency rather than against the request."""
    return isinstance(error, DependencyUnavailable | DeadlineExceeded | TimeoutError | OSError)


class CircuitBreaker:
    """Opens after `failures` outages in a row and refuses for `reset_after_s`; then one trial call decides.

    Only errors for which `counts` is true are outages: a malformed request or a cancelled caller says nothing about the
    dependency. Not shared between processes: each replica learns for itself, which costs it `failures` calls.
    """

    def __init__(
        self,
        name: str,
        *,
        failures: int = 5,
        reset_after_s: float = 10.0,
        counts: Counts = is_outage,
        refusal: type[DependencyUnavailable] = DependencyUnavailable,
        clock: Clock = time.monotonic,
    ) -> None:
        self._name = name
        self._limit = failures
        self._reset_after_s = reset_after_s
        self._counts = counts
        self._refusal = refusal
        self._clock = clock
        self._failed = 0
        self._opened_at: float | None = None
        self._trial_running = False

    @property
    def state(self) -> BreakerState:
        if self._opened_at is None:
            return BreakerState.CLOSED
        waited = self._clock() - self._opened_at >= self._reset_after_s
        return BreakerState.HALF_OPEN if waited else BreakerState.OPEN

    @contextmanager
    def guard(self, *, counts: Counts | None = None) -> Iterator[None]:
        """Run a call (an `await` inside is fine) under the breaker; `counts` stands in for its own for this call.

        Raises `refusal`, with the seconds until the next trial, instead of running the block while open.
        """
        state = self.state
        if state is BreakerState.OPEN or (state is BreakerState.HALF_OPEN and self._trial_running):
            left = self._reset_after_s - (self._clock() - (self._opened_at or 0.0))
            error = self._refusal(f"{self._name}: circuit open after repeated failures")
            error.with_retry_after(max(0.0, left))
            raise error
        trial = state is BreakerState.HALF_OPEN
        self._trial_running = self._trial_running or trial
        try:
            yield
        except BaseException as exc:
            counted = (counts or self._counts)(exc)
            if counted:
                self._record_failure(trial)
            elif counted is False and isinstance(exc, Exception):
                # The dependency answered; that it did not like the request is not its fault.
                self._record_success(trial)
            raise
        else:
            self._record_success(trial)
        finally:
            if trial:
                self._trial_running = False

    def _record_failure(self, trial: bool) -> None:
        self._failed += 1
        if trial or (self._opened_at is None and self._failed >= self._limit):
            self._opened_at = self._clock()

    def _record_success(self, trial: bool) -> None:
        # A call that began before the breaker opened must not close it again.
        if self._opened_at is None or trial:
            self._failed = 0
            self._opened_at = None
