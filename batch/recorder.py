"""Runs the stages of one campaign so that none can stop the others, and keeps the record of each."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from batch.columns import ERROR, ERROR_CODE, KEY, Row
from batch.stages.stage import describe
from models.campaign.types import RowFailure, StageRecord, StageState
from models.errors import Internal, RapportError
from models.safety.audit import hash_subject

T = TypeVar("T")
_log = logging.getLogger(__name__)

#: How many failed rows a record names; all are counted.
SHOWN_FAILURES = 20

#: Hears a stage's name and how many stages are done, before each stage and after the last.
Progress = Callable[[str, int, int], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work(Generic[T]):
    """What a stage brought: its value, the rows that passed through it, and the rows that failed."""

    value: T
    rows_in: int = 0
    rows_out: int = 0
    failures: tuple[RowFailure, ...] = ()
    failed: int = 0
    #: Why the value is less than it should be, although no row failed.
    note: str = ""
    partial: bool = False


class StageRecorder:
    """Keeps one `StageRecord` per stage, in order; `run` never raises for what a stage does."""

    def __init__(self, *, total: int, clock: Callable[[], datetime], progress: Progress) -> None:
        self.records: list[StageRecord] = []
        self._total, self._clock, self._progress = total, clock, progress

    async def run(self, name: str, work: Callable[[], Awaitable[Work[T]]], *, fallback: T) -> T:
        """The stage's value, or `fallback` when it failed; the next stage goes on with either."""
        await self._progress(name, len(self.records), self._total)
        started_at, started = self._clock(), time.monotonic()
        try:
            done = await work()
        except Exception as exc:  # one stage's failure is a record in the report, never the end of the campaign
            code, text = describe(_cause(exc))
            log = _log.exception if code == Internal.code else _log.warning
            log("a campaign stage failed", extra={"stage": name, "code": code})
            self.records.append(
                StageRecord(
                    name=name,
                    state=StageState.FAILED,
                    error_code=code,
                    error=text,
                    started_at=started_at,
                    duration_s=time.monotonic() - started,
                )
            )
            return fallback
        self.records.append(
            StageRecord(
                name=name,
                state=_state(done),
                rows_in=done.rows_in,
                rows_out=done.rows_out,
                rows_failed=done.failed,
                note=done.note,
                failures=done.failures[:SHOWN_FAILURES],
                started_at=started_at,
                duration_s=time.monotonic() - started,
            )
        )
        return done.value


def _state(done: Work[T]) -> StageState:
    if done.failed and not done.rows_out:
        return StageState.FAILED
    if done.failed or done.partial:
        return StageState.PARTIAL
    return StageState.COMPLETED if done.rows_in else StageState.SKIPPED


def _cause(exc: Exception) -> BaseException:
    """What a Ray task's wrapped error was about; our own errors already say it."""
    if isinstance(exc, RapportError):
        return exc
    cause = getattr(exc, "cause", None) or exc.__cause__
    return cause if isinstance(cause, Exception) else exc


def row_failures(rows: list[Row], *, salt: str | None = None) -> tuple[RowFailure, ...]:
    """The failed rows, their keys hashed when a salt is given."""
    return tuple(
        RowFailure(
            key=hash_subject(salt, row[KEY]) if salt and not row[KEY].startswith("shard ") else row[KEY],
            code=row[ERROR_CODE],
            detail=row[ERROR],
        )
        for row in rows
    )
