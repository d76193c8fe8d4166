"""The audit trail on our database: taking a line never waits, keeping it never takes longer than a second.

Each process writes its own chain: a line's hash covers its content and the hash of the line before it, so a changed,
missing or inserted line shows (`first_break`). One chain per writer needs no lock between writers. The chain cannot
show that its newest lines were cut off; the triggers of the database refuse that.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import logging
from collections import deque
from collections.abc import Sequence
from datetime import UTC
from typing import Any

from sqlalchemy import insert, select

from models.errors import DatabaseUnavailable
from models.ids import NewId, new_id
from models.safety.types import AuditRecord
from models.telemetry import Metrics, NoMetrics, Transition
from providers.database import Database
from providers.record_tables import AuditLine
from providers.table_types import storable

_log = logging.getLogger(__name__)
_FIRST_HASH = "0" * 64
_MAX_GROUP = 500
_MAX_BACKOFF_S = 5.0
_TEXTS = ("audit_id", "actor", "action", "subject", "outcome", "request_id")


class SqlAuditLog:
    """Takes audit lines at once and commits them in groups from a background task.

    When the database is away, lines are kept in order and tried again. Beyond `max_pending` new lines are dropped,
    counted, and owned up to by the next `flush`; so is a line that no database could hold. All methods belong to the
    event loop that called `start`.
    """

    def __init__(
        self,
        database: Database,
        *,
        group_s: float = 0.25,
        max_pending: int = 20_000,
        metrics: Metrics | None = None,
        ids: NewId = new_id,
    ) -> None:
        self.writer_id = ids("wrt")
        self._database = database
        self._group_s = group_s
        self._max_pending = max_pending
        self._metrics = metrics or NoMetrics()
        self._pending: deque[AuditRecord] = deque()
        self._flushes: list[tuple[int, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._taken = 0
        self._chain = (0, _FIRST_HASH)
        self._uncertain = False
        self._dropped = 0
        self._dropped_since_flush = 0
        self._transition = Transition("audit", _log)
        self._task: asyncio.Task[None] | None = None

    @property
    def dropped(self) -> int:
        """Lines lost since the start because the buffer was full or the line could not be stored."""
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
        line = _checked(record)
        if line is None or len(self._pending) >= self._max_pending:
            self._dropped += 1
            self._dropped_since_flush += 1
            self._metrics.count("audit_lines_dropped_total")
            return
        self._pending.append(line)
        self._taken += 1
        self._wake.set()
        if len(self._pending) == _MAX_GROUP:
            self._hurry.set()

    async def record_durably(self, records: Sequence[AuditRecord], *, timeout_s: float) -> None:
        """Take the lines and return once they are durable; lines of other callers share the commit.

        Raises `DatabaseUnavailable` when one was dropped, when the next attempt to write fails (the lines are kept), or
        when they are not durable within `timeout_s`.
        """
        self.start()
        dropped = self._dropped
        for record in records:
            self.record(record)
        if self._dropped != dropped:
            raise DatabaseUnavailable(f"{self._dropped - dropped} audit lines were lost")
        try:
            async with asyncio.timeout(timeout_s):
                await self._all_durable()
        except TimeoutError as exc:
            raise DatabaseUnavailable("audit lines were not durable in time") from exc

    async def flush(self) -> None:
        """Return once every line taken so far is durable.

        Raises `DatabaseUnavailable` when the next attempt to write fails (the lines are kept), and when lines were
        dropped since the last flush.
        """
        self.start()
        await self._all_durable()
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

    async def _all_durable(self) -> None:
        """Return once what has been taken by now is durable; raises when the next attempt to write fails."""
        if self._pending:
            done = asyncio.get_running_loop().create_future()
            self._flushes.append((self._taken, done))
            self._wake.set()
            self._hurry.set()
            await done

    async def _write_forever(self) -> None:
        backoff_s = self._group_s
        while True:
            await self._wake.wait()
            await self._pause(self._group_s)
            try:
                while self._pending:
                    await self._write_group()
            except Exception as error:  # whatever it was, the lines are still here and the writer must live
                self._transition.down(error, pending=len(self._pending))
                self._settle_flushes(error)
                await self._pause(backoff_s)
                backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)
            else:
                self._wake.clear()
                self._transition.up()
                backoff_s = self._group_s

    async def _pause(self, seconds: float) -> None:
        """Wait so that lines gather, or less when someone is in a hurry."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        self._hurry.clear()

    async def _write_group(self) -> None:
        if self._uncertain:
            await self._reconcile()
        rows: list[dict[str, Any]] = []
        seq, last_hash = self._chain
        for record in itertools.islice(self._pending, _MAX_GROUP):
            rows.append(_row(record, writer_id=self.writer_id, seq=seq + 1, prev_hash=last_hash))
            seq, last_hash = rows[-1]["seq"], rows[-1]["row_hash"]
        if rows:
            self._uncertain = True
            async with self._database.transaction() as session:
                await session.execute(insert(AuditLine), rows)
            self._committed_up_to(seq, last_hash)

    async def _reconcile(self) -> None:
        """After a failed commit: ask what the database kept of it, so that no line is written twice."""
        query = (
            select(AuditLine.seq, AuditLine.row_hash)
            .where(AuditLine.writer_id == self.writer_id)
            .order_by(AuditLine.seq.desc())
            .limit(1)
        )
        async with self._database.session() as session:
            newest = (await session.execute(query)).first()
        self._committed_up_to(*(newest or self._chain))

    def _committed_up_to(self, seq: int, row_hash: str) -> None:
        for _ in range(seq - self._chain[0]):
            self._pending.popleft()
        self._chain = (seq, row_hash)
        self._uncertain = False
        self._settle_flushes()

    def _settle_flushes(self, error: Exception | None = None) -> None:
        durable = self._chain[0]
        waiting, self._flushes = self._flushes, []
        for upto, done in waiting:
            if done.done():
                continue
            if durable >= upto:
                done.set_result(None)
            elif error is None:
                self._flushes.append((upto, done))
            elif isinstance(error, DatabaseUnavailable):
                done.set_exception(error)
            else:
                failure = DatabaseUnavailable("the audit trail could not be written")
                failure.__cause__ = error
                done.set_exception(failure)


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


def _checked(record: AuditRecord) -> AuditRecord | None:
    """The record as the database will hold it, or `None` when it never could: one bad line must not stop the trail."""
    try:
        json.dumps(dict(record.details), allow_nan=False)
    except (TypeError, ValueError):
        return None
    if record.at.tzinfo is None:
        return None
    return AuditRecord(
        audit_id=storable(record.audit_id),
        at=record.at.astimezone(UTC),
        actor=storable(record.actor),
        action=storable(record.action),
        subject=storable(record.subject),
        outcome=storable(record.outcome),
        request_id=storable(record.request_id),
        details=dict(record.details),
    )


def _row(record: AuditRecord, *, writer_id: str, seq: int, prev_hash: str) -> dict[str, Any]:
    texts = {name: getattr(record, name) for name in _TEXTS}
    details = dict(record.details)
    covered = [writer_id, seq, prev_hash, record.at.isoformat(), *texts.values(), details]
    canonical = json.dumps(covered, sort_keys=True, separators=(",", ":"))
    row_hash = hashlib.sha256(canonical.encode()).hexdigest()
    keys = {"writer_id": writer_id, "seq": seq, "prev_hash": prev_hash, "row_hash": row_hash}
    return {**keys, **texts, "at": record.at, "details": details}
