"""How the product itself does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, or_, select

from models.enrichment.types import OpenIncident, ProductStatus, ProviderSpec, Scope
from providers.base import SqlProvider
from providers.queries import NOW, Query, instant
from providers.tables import Incident, IncidentSeverity

_RESOLVED_WITHIN = timedelta(hours=24)
_SEVERITIES = tuple(IncidentSeverity)
_OUTAGE = (IncidentSeverity.MAJOR, IncidentSeverity.CRITICAL)

_INCIDENTS = Query(
    select(Incident.component, Incident.title, Incident.severity, Incident.started_at, Incident.resolved_at).where(
        or_(Incident.resolved_at.is_(None), Incident.resolved_at > instant("since")),
        Incident.started_at <= NOW,
    )
)


class ProductStatusProvider(SqlProvider[ProductStatus]):
    """Incidents under way, the same for every customer: any is a degradation, a major or critical one an outage."""

    spec = ProviderSpec(
        name="product_status",
        section="product_status",
        tier=1,
        ttl_s=15.0,
        stale_while_revalidate_s=15.0,
        scope=Scope.EVERYONE,
    )

    def load(
        self, connection: Connection, customer_ids: Sequence[str], now: datetime
    ) -> Mapping[str, ProductStatus | None]:
        rows = _INCIDENTS.rows(connection, since=now - _RESOLVED_WITHIN, now=now)
        incidents = [
            OpenIncident(component=component, title=title, severity=severity, started_at=started_at)
            for component, title, severity, started_at, resolved_at in rows
            if resolved_at is None or resolved_at > now
        ]
        incidents.sort(key=lambda incident: incident.started_at, reverse=True)
        incidents.sort(key=lambda incident: _badness(incident.severity), reverse=True)
        status = ProductStatus(
            status=_status(incidents), incidents=tuple(incidents), resolved_24h=len(rows) - len(incidents)
        )
        return dict.fromkeys(customer_ids, status)


def _status(worst_first: Sequence[OpenIncident]) -> str:
    if not worst_first:
        return "operational"
    return "outage" if worst_first[0].severity in _OUTAGE else "degraded"


def _badness(severity: str) -> int:
    """A severity we do not know stands before all that we do."""
    return _SEVERITIES.index(IncidentSeverity(severity)) if severity in _SEVERITIES else -1
