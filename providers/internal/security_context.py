"""What happened to the customer's security."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, literal, null, or_, select, type_coerce, union_all
from sqlalchemy.orm import aliased

from models.enrichment.types import ProviderSpec, SecurityContext
from providers.base import SqlProvider
from providers.queries import IDS, NOW, Query, instant
from providers.table_types import UtcDateTime
from providers.tables import Customer, SecurityEvent, SecuritySeverity

WINDOW = timedelta(days=90)

_SEVERITIES = tuple(SecuritySeverity)
_RECENT = SecurityEvent.at.between(instant("since"), NOW)
_OPEN = or_(SecurityEvent.resolved_at.is_(None), SecurityEvent.resolved_at > NOW)

_newest = aliased(SecurityEvent)
_newest_event = (
    select(_newest.event_id)
    .where(_newest.customer_id == Customer.customer_id, _newest.at.between(instant("since"), NOW))
    .order_by(_newest.at.desc(), _newest.event_id.desc())
    .limit(1)
    .scalar_subquery()
)
#: A row for each severity with its counts, and one without that tells of a customer's newest event.
_EVENTS = Query(
    union_all(
        select(
            SecurityEvent.customer_id,
            SecurityEvent.severity,
            func.count().label("events"),
            func.count().filter(_OPEN).label("open_events"),
            null().label("kind"),
            null().label("detail"),
            type_coerce(null(), UtcDateTime()).label("at"),
        )
        .where(SecurityEvent.customer_id.in_(IDS), _RECENT)
        .group_by(SecurityEvent.customer_id, SecurityEvent.severity),
        select(
            SecurityEvent.customer_id,
            null(),
            literal(0),
            literal(0),
            SecurityEvent.kind,
            SecurityEvent.detail,
            SecurityEvent.at,
        )
        .join(Customer, SecurityEvent.event_id == _newest_event)
        .where(Customer.customer_id.in_(IDS)),
    )
)


@dataclass(slots=True)
class _Found:
    """Counts by severity, and the newest event."""

    events: dict[str, int]
    open_events: dict[str, int]
    kind: str | None = None
    detail: str = ""
    at: datetime | None = None

    def section(self) -> SecurityContext:
        open_severities = [severity for severity, count in self.open_events.items() if count]
        return SecurityContext(
            open_events=sum(self.open_events.values()),
            events_90d=sum(self.events.values()),
            highest_open_severity=max(open_severities, key=_rank, default=None),
            last_event_at=self.at,
            last_event_kind=self.kind,
            last_event_detail=self.detail,
        )


class SecurityContextProvider(SqlProvider[SecurityContext]):
    """Events of the last 90 days: how bad the unresolved ones are, and the newest; zeros when there was none."""

    spec = ProviderSpec(name="security_context", section="security_context", tier=1, ttl_s=60.0)

    def load(
        self, connection: Connection, customer_ids: Sequence[str], now: datetime
    ) -> Mapping[str, SecurityContext | None]:
        found = {customer_id: _Found(events={}, open_events={}) for customer_id in customer_ids}
        rows = _EVENTS.rows(connection, customer_ids, since=now - WINDOW, now=now)
        for customer_id, severity, events, open_events, kind, detail, at in rows:
            mine = found[customer_id]
            if severity is None:
                mine.kind, mine.detail, mine.at = kind, detail, at
            else:
                mine.events[severity], mine.open_events[severity] = events, open_events
        return {customer_id: mine.section() for customer_id, mine in found.items()}


def _rank(severity: str) -> tuple[int, str]:
    """A severity we do not know stands before all that we do."""
    return (_SEVERITIES.index(SecuritySeverity(severity)) if severity in _SEVERITIES else -1, severity)
