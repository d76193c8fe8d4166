"""The audit trail on our database: taking a line never waits, keeping it never takes longer than a second.

Each process writes its own chain: a line's hash covers its content and the hash of the line before it, so a changed,
missing or inserted line shows (`first_break`). One chain per writer needs no lock between writers. The chain cannot
show that its newest lines were cut off; the triggers of the database refuse that.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.exc import SQLAlchemyError

from models.errors import DatabaseUnavailable
from models.safety.types import AuditRecord
from models.telemetry import Metrics, NoMetrics, Transition
from providers.database import Database
from providers.systems.identity import NewId, random_id
from providers.tables import AuditLine

_log = logging.getLogger(__name__)
_FIRST_HASH = "0" * 64
_MAX_GROUP = 500
_MAX_BACKOFF_S = 5.0


class SqlAuditLog:
    """Takes audit lines at once and commits them in groups from a background task.

    When the database is away, lines are kept in order and tried again; beyond `max_pending` new lines are dropped,
    counted, and owned up to by the next `flush`. All methods belong to the event loop that called `start`.
    """

    def __init__(
        self,
        database: Database,
        *,
        group_s: float = 0.25,
        max_pending: int = 20_000,
        metrics: Metrics | None = None,
        new_id: NewId = random_id,
    ) -> None:
        self.writer_id = new_id("wrt")
        self._database = database
        self._group_s = group_s
        self._max_pending = max_pending
        self._metrics = metrics or NoMetrics()
        self._pending: deque[AuditRecord] = deque()
        self._flushes: list[tuple[int, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._taken = 0
        self._committed = 0
        self._chain = (0, _FIRST_HASH)
        self._uncertain = False
        self._dropped = 0
        self._dropped_since_flush = 0
        self._transition = Transition("audit", _log)
        self._task: asyncio.Task[None] | None = None

    @property
    def dropped(self) -> int:
        """Lines lost since the start because the buffer was full or the line could not be written at all."""
        return self._dropped

    @property
    def pending(self) -> int:
        """Lines taken and not yet durable."""
        return len(self._pending)

    def start(self) -> None:
        """Begin writing; call it inside the event loop. Starting twice is harmless."""
        if self._task is None:
            self._task = asyncio.create_task(self._write_forever(), name="audit-writer")

    def record(self, record: AuditRecord) -> None:
        """Take the line without waiting; it is durable within one second while the database answers."""
        if len(self._pending) >= self._max_pending:
            self._drop(1)
            return
        self._pending.append(record)
        self._taken += 1
        self._wake.set()
        if len(self._pending) >= _MAX_GROUP:
            self._hurry.set()

    async def flush(self) -> None:
        """Return once every line taken so far is durable.

        Raises `DatabaseUnavailable` when the next attempt to write fails (the lines are kept), and when lines were
        dropped since the last flush.
        """
        self.start()
        if self._committed < self._taken:
            done = asyncio.get_running_loop().create_future()
            self._flushes.append((self._taken, done))
            self._wake.set()
            self._hurry.set()
            await done
        if self._dropped_since_flush:
            lost, self._dropped_since_flush = self._dropped_since_flush, 0
            raise DatabaseUnavailable(f"{lost} audit lines were lost")

    async def close(self) -> None:
        """Write what is pending and stop. Raises `DatabaseUnavailable` naming how many lines could not be kept."""
        if self._task is None and not self._pending:
            return
        try:
            await self.flush()
        except DatabaseUnavailable as error:
            if self._pending:
                raise DatabaseUnavailable(f"{len(self._pending)} audit lines could not be written") from error
            raise
        finally:
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
                self._task = None

    async def _write_forever(self) -> None:
        backoff_s = self._group_s
        while True:
            await self._wake.wait()
            await self._pause(self._group_s)
            self._hurry.clear()
            try:
                while self._pending:
                    await self._write_group()
            except DatabaseUnavailable as error:
                self._transition.down(error, pending=len(self._pending))
                self._settle_flushes(error)
                await self._pause(backoff_s)
                backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)
            else:
                self._wake.clear()
                self._transition.up()
                backoff_s = self._group_s

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            pass

    async def _write_group(self) -> None:
        if self._uncertain:
            await self._reconcile()
        group = [self._pending[n] for n in range(min(len(self._pending), _MAX_GROUP))]
        seq, last_hash = self._chain
        rows: list[dict[str, Any]] = []
        unwritable = 0
        for record in group:
            try:
                row = _row(record, writer_id=self.writer_id, seq=seq + 1, prev_hash=last_hash)
            except (TypeError, ValueError):
                unwritable += 1
                continue
            rows.append(row)
            seq, last_hash = row["seq"], row["row_hash"]
        self._uncertain = True
        try:
            async with self._database.transaction() as session:
                if rows:
                    await session.execute(insert(AuditLine), rows)
        except SQLAlchemyError as error:
            # The database answers but refuses these lines; holding them would stop the trail for good.
            _log.error("audit lines refused", extra={"lines": len(group), "error": type(error).__name__})
            unwritable, seq, last_hash = len(group), *self._chain
        self._uncertain = False
        self._chain = (seq, last_hash)
        for _ in group:
            self._pending.popleft()
        self._committed += len(group)
        if unwritable:
            self._drop(unwritable)
        self._settle_flushes()

    async def _reconcile(self) -> None:
        """After a failed commit: find out what the database kept of it, so that no line is written twice."""
        query = (
            select(AuditLine.seq, AuditLine.row_hash)
            .where(AuditLine.writer_id == self.writer_id)
            .order_by(AuditLine.seq.desc())
            .limit(1)
        )
        async with self._database.session() as session:
            newest = (await session.execute(query)).first()
        if newest is not None and newest.seq > self._chain[0]:
            kept = self._pending_covered(newest.seq - self._chain[0])
            for _ in range(kept):
                self._pending.popleft()
            self._committed += kept
            self._chain = (newest.seq, newest.row_hash)
        self._uncertain = False
        self._settle_flushes()

    def _pending_covered(self, lines: int) -> int:
        """How many pending records stand behind that many committed lines; unwritable ones between them count too."""
        covered = 0
        for record in self._pending:
            if lines == 0:
                break
            covered += 1
            try:
                _row(record, writer_id="", seq=0, prev_hash="")
            except (TypeError, ValueError):
                self._drop(1)
            else:
                lines -= 1
        return covered

    def _settle_flushes(self, error: DatabaseUnavailable | None = None) -> None:
        waiting, self._flushes = self._flushes, []
        for upto, done in waiting:
            if done.done():
                continue
            if self._committed >= upto:
                done.set_result(None)
            elif error is not None:
                done.set_exception(error)
            else:
                self._flushes.append((upto, done))

    def _drop(self, lines: int) -> None:
        self._dropped += lines
        self._dropped_since_flush += lines
        self._metrics.count("audit_lines_dropped_total", lines)


async def first_break(database: Database, writer_id: str) -> int | None:
    """The sequence number of the first line of a chain that is not as it was written, or `None` when all are.

    Raises `DatabaseUnavailable`.
    """
    query = select(AuditLine).where(AuditLine.writer_id == writer_id).order_by(AuditLine.seq)
    seq, last_hash = 0, _FIRST_HASH
    async with database.session() as session:
        async for line in await session.stream_scalars(query):
            record = AuditRecord(
                audit_id=line.audit_id,
                at=line.at,
                actor=line.actor,
                action=line.action,
                subject=line.subject,
                outcome=line.outcome,
                request_id=line.request_id,
                details=line.details,
            )
            expected = _row(record, writer_id=writer_id, seq=seq + 1, prev_hash=last_hash)
            if (line.seq, line.prev_hash, line.row_hash) != (seq + 1, last_hash, expected["row_hash"]):
                return seq + 1
            seq, last_hash = line.seq, line.row_hash
    return None


def _row(record: AuditRecord, *, writer_id: str, seq: int, prev_hash: str) -> dict[str, Any]:
    texts = {
        name: _storable(getattr(record, name))
        for name in ("audit_id", "actor", "action", "subject", "outcome", "request_id")
    }
    details = _finite(record.details)
    covered = [writer_id, seq, prev_hash, record.at.timestamp(), *texts.values(), details]
    canonical = json.dumps(covered, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return {
        **texts,
        "writer_id": writer_id,
        "seq": seq,
        "at": record.at,
        "details": details,
        "prev_hash": prev_hash,
        "row_hash": hashlib.sha256(canonical.encode()).hexdigest(),
    }
