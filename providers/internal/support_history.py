"""What the customer has asked us before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, func, null, select, type_coerce, union_all

from models.enrichment.types import ProviderSpec, SupportHistory
from providers.base import SqlProvider
from providers.queries import IDS, OPEN_TICKET, Query
from providers.table_types import UtcDateTime
from providers.tables import Conversation, Ticket

_TOPICS = 3

#: A row for each topic of each customer, and one without a topic that counts the customer's open tickets.
_TALKS_AND_TICKETS = Query(
    union_all(
        select(
            Conversation.customer_id,
            Conversation.topic,
            func.count().label("count"),
            func.count(Conversation.csat).label("ratings"),
            func.sum(Conversation.csat).label("csat"),
            func.max(Conversation.started_at).label("last"),
        )
        .where(Conversation.customer_id.in_(IDS))
        .group_by(Conversation.customer_id, Conversation.topic),
        select(Ticket.customer_id, null(), func.count(), null(), null(), type_coerce(null(), UtcDateTime()))
        .where(Ticket.customer_id.in_(IDS), Ticket.status.in_(OPEN_TICKET))
        .group_by(Ticket.customer_id),
    )
)


@dataclass(slots=True)
class _Tally:
    tickets: int = 0
    ratings: int = 0
    csat: int = 0
    last: datetime | None = None
    topics: dict[str, int] = field(default_factory=dict)

    def section(self) -> SupportHistory:
        commonest = sorted(self.topics, key=lambda topic: (-self.topics[topic], topic))
        return SupportHistory(
            total_conversations=sum(self.topics.values()),
            avg_csat=round(self.csat / self.ratings, 2) if self.ratings else None,
            open_tickets=self.tickets,
            last_conversation_at=self.last,
            common_topics=tuple(commonest[:_TOPICS]),
        )


class SupportHistoryProvider(SqlProvider[SupportHistory]):
    """Conversations, their ratings and commonest topics, and the tickets still open or pending."""

    spec = ProviderSpec(name="support_history", section="support_history", tier=1, ttl_s=60.0)

    def load(
        self, connection: Connection, customer_ids: Sequence[str], now: datetime
    ) -> Mapping[str, SupportHistory | None]:
        tallies: defaultdict[str, _Tally] = defaultdict(_Tally)
        rows = _TALKS_AND_TICKETS.rows(connection, customer_ids)
        for customer_id, topic, count, ratings, csat, last in rows:
            tally = tallies[customer_id]
            if topic is None:
                tally.tickets = count
                continue
            tally.topics[topic] = count
            tally.ratings += ratings
            tally.csat += csat or 0
            tally.last = last if tally.last is None else max(tally.last, last)
        return {customer_id: tallies[customer_id].section() for customer_id in customer_ids}
