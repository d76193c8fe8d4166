"""What the customer has asked us before."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from models.enrichment.types import ProviderSpec, SupportHistory
from providers.base import SqlProvider
from providers.tables import Conversation, Ticket, TicketStatus

_TOPICS = 3


class SupportHistoryProvider(SqlProvider[SupportHistory]):
    """Conversations, their ratings and commonest topics, and the tickets still open or pending."""

    spec = ProviderSpec(name="support_history", section="support_history", tier=1, ttl_s=60.0)

    async def load(self, session: AsyncSession, customer_id: str, now: datetime) -> SupportHistory:
        open_tickets = (
            select(func.count())
            .select_from(Ticket)
            .where(Ticket.customer_id == customer_id, Ticket.status.in_((TicketStatus.OPEN, TicketStatus.PENDING)))
        )
        totals = select(
            func.count(Conversation.conversation_id),
            func.avg(Conversation.csat),
            func.max(Conversation.started_at),
            open_tickets.scalar_subquery(),
        ).where(Conversation.customer_id == customer_id)
        conversations, csat, last, tickets = (await session.execute(totals)).one()
        topics = (
            select(Conversation.topic)
            .where(Conversation.customer_id == customer_id)
            .group_by(Conversation.topic)
            .order_by(func.count().desc(), Conversation.topic)
            .limit(_TOPICS)
        )
        return SupportHistory(
            total_conversations=conversations,
            avg_csat=None if csat is None else round(float(csat), 2),
            open_tickets=tickets,
            last_conversation_at=last,
            common_topics=tuple(await session.scalars(topics)) if conversations else (),
        )
