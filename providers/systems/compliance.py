"""The register of safety and compliance reports on our database."""

from __future__ import annotations

from datetime import timedelta

from models.clock import WallClock, utc_now
from models.ids import NewId, new_id
from models.workflows.types import Channel, Severity
from providers.database import Database
from providers.record_tables import ComplianceRecord
from providers.systems.outbox import enqueue


class SqlComplianceSystem:
    """Commits reports with the instant by which someone must have looked, and an outbox row for whoever alerts them."""

    def __init__(self, database: Database, *, clock: WallClock = utc_now, ids: NewId = new_id) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids

    async def record(
        self,
        *,
        customer_id: str | None,
        channel: Channel,
        severity: Severity,
        redacted_text: str,
        due_in: timedelta,
        queue: str,
        request_id: str,
    ) -> str:
        """Commit a record and return its id (`cmp_...`) once it is on disk. Raises `DatabaseUnavailable`."""
        record_id, now = self._ids("cmp"), self._clock()
        due_at = now + due_in
        async with self._database.transaction() as session:
            session.add(
                ComplianceRecord(
                    record_id=record_id,
                    customer_id=customer_id,
                    channel=channel.value,
                    severity=severity.value,
                    redacted_text=redacted_text,
                    queue=queue,
                    request_id=request_id,
                    status="open",
                    recorded_at=now,
                    due_at=due_at,
                    closed_at=None,
                )
            )
            payload = {"queue": queue, "severity": severity.value, "due_at": due_at.isoformat()}
            enqueue(session, topic="compliance.recorded", subject_id=record_id, payload=payload, at=now)
        return record_id
