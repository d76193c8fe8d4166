"""Work that outlives its request: a disconnect cancels nothing that has effects."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from deployments.ingress.errors import log_failure
from models.errors import Overloaded
from models.telemetry import request_id

logger = logging.getLogger("rapport.ingress")

T = TypeVar("T")


class Background:
    """Runs at most `limit` pieces of work beside the requests that started them."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The work's result; a cancelled caller leaves the work running. Raises as the work, and as `start`."""
        task = self._begin(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log)  # nobody else is left to hear of its failure
            raise

    def start(self, work: Coroutine[Any, Any, T]) -> None:
        """Begin the work and wait for nothing; its failure is logged. Raises `Overloaded` when `limit` is reached."""
        self._begin(work).add_done_callback(_log)

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        # The task gets a context of its own: Ray finds the calls to cancel after a disconnect through the context of
        # the request, and must not find these.
        if len(self._tasks) >= self._limit:
            work.close()
            raise Overloaded("too much work is running").with_retry_after(1.0)
        context = contextvars.Context()
        context.run(request_id.set, request_id.get())
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def drain(self, timeout_s: float) -> None:
        """Let running work end, and cancel what has not ended by then."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(set(self._tasks), timeout=timeout_s)
        for task in late:
            task.cancel()
        if late:
            logger.warning("background work was cut off", extra={"count": len(late)})
            await asyncio.wait(late, timeout=1.0)


def _log(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log_failure(error)
