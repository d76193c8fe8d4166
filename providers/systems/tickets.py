"""Ticketing on our database."""

from __future__ import annotations

from sqlalchemy import update

from models.clock import WallClock, utc_now
from models.enrichment.events import OUTDATED, EventType
from models.errors import NotFound
from models.ids import NewId, new_id
from models.workflows.types import Channel
from providers.database import Database
from providers.systems.outbox import enqueue, enqueue_context_change
from providers.tables import Ticket, TicketStatus


class SqlTicketSystem:
    """Opens tickets and adds to them; the outbox tells other systems of both, and our caches of new tickets."""

    def __init__(self, database: Database, *, clock: WallClock = utc_now, ids: NewId = new_id) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids

    async def open(
        self, *, customer_id: str | None, subject: str, body: str, channel: Channel, priority: str, reason: str
    ) -> str:
        """Open a ticket and return its id (`tck_...`) once it is durable. Raises `DatabaseUnavailable`."""
        ticket_id, now = self._ids("tck"), self._clock()
        async with self._database.transaction() as session:
            session.add(
                Ticket(
                    ticket_id=ticket_id,
                    customer_id=customer_id,
                    subject=subject,
                    body=body,
                    channel=channel.value,
                    priority=priority,
                    reason=reason,
                    status=TicketStatus.OPEN.value,
                    assignee_id=None,
                    opened_at=now,
                    closed_at=None,
                )
            )
            payload = {"customer_id": customer_id, "priority": priority, "reason": reason}
            enqueue(session, topic="ticket.opened", subject_id=ticket_id, payload=payload, at=now)
            if customer_id is not None:
                enqueue_context_change(session, customer_id, tags=OUTDATED[EventType.TICKET_CHANGED], at=now)
        return ticket_id

    async def comment(self, ticket_id: str, body: str) -> None:
        """Add a paragraph to the ticket's body. Raises `NotFound`, `DatabaseUnavailable`."""
        longer = update(Ticket).where(Ticket.ticket_id == ticket_id).values(body=Ticket.body + f"\n\n{body}")
        async with self._database.transaction() as session:
            if await session.scalar(longer.returning(Ticket.ticket_id)) is None:
                raise NotFound("there is no such ticket")
            enqueue(session, topic="ticket.commented", subject_id=ticket_id, payload={}, at=self._clock())
