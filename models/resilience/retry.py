"""Retries with full jitter inside a time budget."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from models.errors import RapportError
from models.resilience.deadline import Deadline

R = TypeVar("R")

Sleep = Callable[[float], Awaitable[None]]


def is_retryable(error: Exception) -> bool:
    """Whether the error's own class says that another try makes sense."""
    return isinstance(error, RapportError) and error.retryable


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how long to wait between tries of idempotent work.

    The wait before retry n is uniform between 0 and `base_s * 2**n`, at most `max_s` ("full jitter", Brooker, AWS
    Architecture Blog 2015), and at least the error's `retry_after_s`. A wait that would outlast the deadline is not
    begun: the last error is raised instead, since it says more than a timeout would.
    """

    retries: int = 3
    base_s: float = 0.2
    max_s: float = 5.0
    retryable: Callable[[Exception], bool] = is_retryable
    random: random.Random = field(default_factory=random.Random)
    sleep: Sleep = asyncio.sleep

    async def run(self, attempt: Callable[[], Awaitable[R]], *, deadline: Deadline) -> R:
        """The first result of `attempt`; raises its last error."""
        for number in range(self.retries + 1):
            try:
                return await attempt()
            except Exception as exc:
                if number == self.retries or not self.retryable(exc):
                    raise
                wait_s = self.wait_s(number, exc)
                if wait_s >= deadline.remaining_s():
                    raise
            await self.sleep(wait_s)
        raise AssertionError("unreachable: the last try returns or raises")

    def wait_s(self, number: int, error: Exception) -> float:
        """Seconds to wait after the failed try `number` (from 0)."""
        jittered = self.random.uniform(0.0, min(self.max_s, self.base_s * 2**number))
        asked = error.retry_after_s if isinstance(error, RapportError) else None
        return max(jittered, asked or 0.0)
