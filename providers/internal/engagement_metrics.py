"""How the customer uses the product."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, literal, null, select, type_coerce, union_all

from models.enrichment.types import EngagementMetrics, ProviderSpec
from providers.base import SqlProvider
from providers.product import FEATURES
from providers.queries import IDS, NOW, Query, instant, one_of
from providers.table_types import UtcDateTime
from providers.tables import Customer, EventName, ProductEvent

WINDOW = timedelta(days=30)
_FEATURES_SHOWN = 3

_SINCE = instant("since")
_LOGIN = ProductEvent.name == EventName.LOGIN.value
_MINE = ProductEvent.customer_id == Customer.customer_id
_RECENT = ProductEvent.at.between(_SINCE, NOW)

#: A row for each feature that a customer used, and one without a feature for the customer's logins and people.
_USE = Query(
    union_all(
        select(
            Customer.customer_id,
            type_coerce(null(), ProductEvent.feature.type).label("feature"),
            select(func.sum(ProductEvent.quantity)).where(_MINE, _LOGIN, _RECENT).scalar_subquery().label("quantity"),
            select(func.count(ProductEvent.contact_id.distinct()))
            .where(_MINE, ProductEvent.name.in_(one_of(EventName)), _RECENT)
            .scalar_subquery()
            .label("people"),
            # Alone in its subquery, a maximum is one step in the index however long ago it lies.
            select(func.max(ProductEvent.at))
            .where(_MINE, _LOGIN, ProductEvent.at <= NOW)
            .scalar_subquery()
            .label("last"),
        ).where(Customer.customer_id.in_(IDS)),
        select(
            ProductEvent.customer_id,
            ProductEvent.feature,
            func.sum(ProductEvent.quantity),
            literal(0),
            type_coerce(null(), UtcDateTime()),
        )
        .where(
            ProductEvent.customer_id.in_(IDS),
            ProductEvent.name == EventName.FEATURE_USED.value,
            _RECENT,
            ProductEvent.feature.is_not(None),
        )
        .group_by(ProductEvent.customer_id, ProductEvent.feature),
    )
)


@dataclass(slots=True)
class _Use:
    logins: int = 0
    people: int = 0
    last_login: datetime | None = None
    features: dict[str, int] = field(default_factory=dict)

    def section(self) -> EngagementMetrics:
        most_used = sorted(self.features, key=lambda feature: (-self.features[feature], feature))
        return EngagementMetrics(
            last_login_at=self.last_login,
            login_count_30d=self.logins,
            most_used_features=tuple(most_used[:_FEATURES_SHOWN]),
            feature_adoption_score=round(min(1.0, len(most_used) / len(FEATURES)), 2),
            active_users_30d=self.people,
        )


class EngagementMetricsProvider(SqlProvider[EngagementMetrics]):
    """Logins, features and active people of the last 30 days; the last login may lie further back."""

    spec = ProviderSpec(name="engagement_metrics", section="engagement_metrics", tier=1, ttl_s=60.0)

    def load(
        self, connection: Connection, customer_ids: Sequence[str], now: datetime
    ) -> Mapping[str, EngagementMetrics | None]:
        use: defaultdict[str, _Use] = defaultdict(_Use)
        rows = _USE.rows(connection, customer_ids, since=now - WINDOW, now=now)
        for customer_id, feature, quantity, people, last in rows:
            mine = use[customer_id]
            if feature is not None:
                mine.features[feature] = int(quantity)
            else:
                mine.logins, mine.people, mine.last_login = int(quantity or 0), people, last
        return {customer_id: use[customer_id].section() for customer_id in customer_ids}
