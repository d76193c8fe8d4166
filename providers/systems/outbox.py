"""Messages to other systems, committed together with what they tell of, and delivered at least once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models.clock import WallClock, utc_now
from providers.database import Database
from providers.tables import OutboxMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingMessage:
    """A message nobody has confirmed yet; `payload` holds ids only, never personal data."""

    message_id: int
    topic: str
    subject_id: str
    payload: dict[str, Any]
    created_at: datetime
    attempts: int


def enqueue(session: AsyncSession, *, topic: str, subject_id: str, payload: dict[str, Any], at: datetime) -> None:
    """Add a message to the caller's transaction: it exists exactly when that transaction commits."""
    session.add(
        OutboxMessage(topic=topic, subject_id=subject_id, payload=payload, created_at=at, delivered_at=None, attempts=0)
    )


class SqlOutbox:
    """The deliverer's side: read what is pending, confirm what arrived."""

    def __init__(self, database: Database, *, clock: WallClock = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def pending(self, *, limit: int = 100) -> list[PendingMessage]:
        """The oldest undelivered messages in the order they were written. Raises `DatabaseUnavailable`."""
        query = (
            select(OutboxMessage)
            .where(OutboxMessage.delivered_at.is_(None))
            .order_by(OutboxMessage.message_id)
            .limit(limit)
        )
        async with self._database.session() as session:
            rows = (await session.scalars(query)).all()
        return [
            PendingMessage(
                message_id=row.message_id,
                topic=row.topic,
                subject_id=row.subject_id,
                payload=row.payload,
                created_at=row.created_at,
                attempts=row.attempts,
            )
            for row in rows
        ]

    async def confirm(self, message_ids: Sequence[int]) -> None:
        """Mark as delivered; confirming twice is harmless. Raises `DatabaseUnavailable`."""
        await self._settle(message_ids, delivered_at=self._clock())

    async def failed(self, message_ids: Sequence[int]) -> None:
        """Count one more attempt that did not arrive. Raises `DatabaseUnavailable`."""
        await self._settle(message_ids)

    async def _settle(self, message_ids: Sequence[int], **values: datetime) -> None:
        change = (
            update(OutboxMessage)
            .where(OutboxMessage.message_id.in_(message_ids), OutboxMessage.delivered_at.is_(None))
            .values(attempts=OutboxMessage.attempts + 1, **values)
        )
        async with self._database.transaction() as session:
            await session.execute(change)
