"""Chores of a replica that nobody waits for: what has expired is removed once an hour."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

logger = logging.getLogger(__name__)

Chore = Callable[[], Awaitable[object]]


class Housekeeping:
    """Does every chore at once and then every `every_s`; one that fails is left for the next round.

    Replicas do the same chores without talking, so a chore must bear being done twice.
    """

    def __init__(
        self,
        chores: Mapping[str, Chore],
        *,
        every_s: float = 3600.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._chores = dict(chores)
        self._every_s = every_s
        self._sleep = sleep
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; call it inside the event loop. Starting twice is harmless."""
        if self._task is None:
            self._task = asyncio.create_task(self._keep_house(), name="housekeeping")

    async def close(self) -> None:
        """Stop, also in the middle of a chore."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _keep_house(self) -> None:
        while True:
            for name, chore in self._chores.items():
                try:
                    await chore()
                except Exception as error:
                    logger.info(
                        "a chore waits for the next round", extra={"chore": name, "error": type(error).__name__}
                    )
            await self._sleep(self._every_s)
