"""What every stage has in common: a batch is mapped row by row, and a failing row keeps its error in its columns."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from typing import ClassVar

import pyarrow as pa

from batch.columns import Row, failed, is_well, table
from models.errors import Internal, RapportError

_log = logging.getLogger(__name__)

#: Tries of a transient failure, and the pause after the first; it doubles.
ATTEMPTS = 3
FIRST_PAUSE_S = 0.2


class Stage(ABC):
    """A callable class for `map_batches`: one object an actor, so `open` may load a model once.

    A row that fails in `map_row` comes out with `error_code` and `error`; transient failures are tried again first. A
    failing `open` fails every row of this actor, and never the job. Rows keep their order.
    """

    out: ClassVar[pa.Schema]
    #: Whether `open` loads something worth an actor of its own.
    holds_resources: ClassVar[bool] = False
    #: Tries of a transient failure in `map_row`; 1 for a stage that has a policy of its own.
    attempts: ClassVar[int] = ATTEMPTS
    #: Rows of one batch that are mapped at the same time.
    concurrency: int = 1

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None
        self._opened = False
        self._opening = asyncio.Lock()

    def __call__(self, batch: pa.Table) -> pa.Table:
        if self._runner is None:
            # One loop for the actor's life: connections and Serve handles belong to the loop that opened them.
            self._runner = asyncio.Runner()
        rows = self._runner.run(self._map(batch.to_pylist()))
        return table(rows, self.out)

    async def open(self) -> None:
        """Load what the rows need; runs once an actor, and again after a failure."""
        return

    async def close(self) -> None:
        """Let go of what `open` has taken; runs when the actor ends, unless it is killed."""
        return

    def __del__(self) -> None:  # the only thing that Ray Data tells an object whose actor ends
        if self._runner is not None:
            with self._runner as runner:
                if self._opened:
                    runner.run(self.close())

    @abstractmethod
    async def map_row(self, row: Row) -> list[Row]:
        """What becomes of one row. Raises whatever goes wrong."""

    def stand_in(self, row: Row) -> Row:
        """The row that carries the error when this one failed: itself, unless it has another schema."""
        return row

    async def _map(self, rows: list[Row]) -> list[Row]:
        if self.concurrency == 1:  # a task for each of a million rows would cost more than most rows
            return [out for row in rows for out in (await self._guarded(row) if is_well(row) else [row])]
        places = asyncio.Semaphore(self.concurrency)

        async def in_its_place(row: Row) -> list[Row]:
            async with places:
                return await self._guarded(row) if is_well(row) else [row]

        return [out for outs in await asyncio.gather(*map(in_its_place, rows)) for out in outs]

    async def _guarded(self, row: Row) -> list[Row]:
        # A retry library would cost each of a million rows more than the row itself.
        for attempt in range(self.attempts):
            try:
                await self._open_once()
                return await self.map_row(row)
            except Exception as exc:  # the row carries it on; one bad row must not stop a million good ones
                transient = isinstance(exc, RapportError) and exc.retryable
                if not transient or attempt == self.attempts - 1:
                    return [self._as_failed(row, exc)]
            await asyncio.sleep(FIRST_PAUSE_S * 2**attempt)
        raise AssertionError("unreachable: the last attempt returns")

    async def _open_once(self) -> None:
        if not self._opened:
            async with self._opening:
                if not self._opened:
                    await self.open()
                    self._opened = True

    def _as_failed(self, row: Row, exc: Exception) -> Row:
        code, text = describe(exc)
        if code == Internal.code:
            _log.error("a row failed", exc_info=exc, extra={"stage": type(self).__name__})
        return failed(self.stand_in(row), code, text)


def describe(exc: BaseException) -> tuple[str, str]:
    """Code and safe text of a failure: our own message, but of a foreign exception only its type."""
    if isinstance(exc, RapportError):
        return exc.code, str(exc) or exc.title
    return Internal.code, f"unexpected {type(exc).__name__}"
