"""An absolute time budget that travels with a request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from models.errors import DeadlineExceeded

Clock = Callable[[], float]


class Deadline:
    """The instant by which an answer is worth having.

    Pickling keeps the *remaining* seconds and re-anchors them on the receiver's clock, because monotonic clocks differ
    between hosts: a deadline can be an argument of a handle call.
    """

    __slots__ = ("_at", "_clock")

    def __init__(self, at: float, clock: Clock = time.monotonic) -> None:
        self._at = at
        self._clock = clock

    @classmethod
    def after(cls, seconds: float, clock: Clock = time.monotonic) -> Deadline:
        """A deadline `seconds` from now."""
        return cls(clock() + seconds, clock)

    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._at - self._clock())

    @property
    def expired(self) -> bool:
        return self._clock() >= self._at

    def child(self, seconds: float) -> Deadline:
        """A budget of at most `seconds` inside this one."""
        return Deadline(min(self._at, self._clock() + seconds), self._clock)

    @asynccontextmanager
    async def enforce(self, what: str) -> AsyncIterator[None]:
        """Cancel the block at the deadline and raise `DeadlineExceeded` naming `what`."""
        try:
            async with asyncio.timeout(self.remaining_s()):
                yield
        except TimeoutError as exc:
            raise DeadlineExceeded(f"{what} did not finish within its time budget") from exc

    def __reduce__(self) -> tuple[Any, ...]:
        return (Deadline.after, (self.remaining_s(),))

    def __repr__(self) -> str:
        return f"Deadline({self.remaining_s():.3f}s left)"
