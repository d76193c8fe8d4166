"""Messages to other systems and our own caches, committed with what they tell of, and delivered at least once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, Update, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models.clock import WallClock, utc_now
from models.errors import RapportError
from providers.database import Database
from providers.record_tables import OutboxMessage
from providers.systems.removal import remove_in_batches

#: Topic of changes to what a context shows; the subject is a customer id, or empty when only tags are told.
CONTEXT_CHANGED = "context.changed"


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


def enqueue_context_change(
    session: AsyncSession, customer_id: str | None, *, tags: Sequence[str] = (), at: datetime
) -> None:
    """Tell every cache that data of this customer changes with the caller's transaction.

    `tags` narrow it to the sections that carry one of them. Without a customer the tags are meant for all customers.
    """
    payload = {"tags": sorted(set(tags))}
    enqueue(session, topic=CONTEXT_CHANGED, subject_id=customer_id or "", payload=payload, at=at)


Send = Callable[[Sequence[PendingMessage]], Awaitable[None]]


class SqlOutbox:
    """The deliverer's side: read what is pending, and deliver it."""

    def __init__(self, database: Database, *, clock: WallClock = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def pending(self, *, topic: str | None = None, limit: int = 100) -> list[PendingMessage]:
        """The oldest undelivered messages in the order they were written. Raises `DatabaseUnavailable`."""
        async with self._database.session() as session:
            return await _read(session, _undelivered(topic, limit))

    async def deliver(self, send: Send, *, topic: str, limit: int = 500, after: int = 0) -> int:
        """Hand the oldest undelivered messages of a topic to `send` and confirm them when it returns; their number.

        `after` leaves out the messages up to this id.

        Of several deliverers one at a time has a message on PostgreSQL, where it is locked meanwhile. On SQLite a lock
        would stop every writer, so two of them may send the same message. When `send` raises, one more attempt is
        counted and the error goes on. Raises `DatabaseUnavailable`.
        """
        query = _undelivered(topic, limit).where(OutboxMessage.message_id > after)
        if self._database.dialect == "sqlite":
            async with self._database.session() as session:
                messages = await _read(session, query)
            failure = await _attempt(send, messages)
            if messages:
                async with self._database.transaction() as session:
                    await session.execute(self._settlement(messages, delivered=failure is None))
        else:
            async with self._database.transaction() as session:
                messages = await _read(session, query.with_for_update(skip_locked=True))
                failure = await _attempt(send, messages)
                if messages:
                    await session.execute(self._settlement(messages, delivered=failure is None))
        if failure is not None:
            raise failure
        return len(messages)

    async def remove_delivered(self, *, before: datetime) -> int:
        """Delete what was delivered before then, in short transactions; how many. Raises `DatabaseUnavailable`."""
        return await remove_in_batches(self._database, OutboxMessage.message_id, OutboxMessage.delivered_at < before)

    def _settlement(self, messages: Sequence[PendingMessage], *, delivered: bool) -> Update:
        ids = [message.message_id for message in messages]
        change = update(OutboxMessage).where(OutboxMessage.message_id.in_(ids), OutboxMessage.delivered_at.is_(None))
        attempted = change.values(attempts=OutboxMessage.attempts + 1)
        return attempted.values(delivered_at=self._clock()) if delivered else attempted


async def _attempt(send: Send, messages: Sequence[PendingMessage]) -> RapportError | None:
    try:
        if messages:
            await send(messages)
    except RapportError as error:
        return error
    return None


def _undelivered(topic: str | None, limit: int) -> Select[OutboxMessage]:
    query = select(OutboxMessage).where(OutboxMessage.delivered_at.is_(None))
    if topic is not None:
        query = query.where(OutboxMessage.topic == topic)
    return query.order_by(OutboxMessage.message_id).limit(limit)


async def _read(session: AsyncSession, query: Select[OutboxMessage]) -> list[PendingMessage]:
    return [
        PendingMessage(
            message_id=row.message_id,
            topic=row.topic,
            subject_id=row.subject_id,
            payload=row.payload,
            created_at=row.created_at,
            attempts=row.attempts,
        )
        for row in await session.scalars(query)
    ]
