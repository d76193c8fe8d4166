"""Which features the customer took up, and which were given up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select

from models.enrichment.types import FeatureUsage, ProviderSpec
from providers.base import SqlProvider
from providers.product import FEATURES
from providers.queries import IDS, NOW, Query, instant
from providers.tables import EventName, ProductEvent

WINDOW = timedelta(days=30)

_SINCE, _BEFORE = instant("since"), instant("before")
_USES = Query(
    select(
        ProductEvent.customer_id,
        ProductEvent.feature,
        func.coalesce(func.sum(ProductEvent.quantity).filter(ProductEvent.at >= _SINCE), 0),
        func.coalesce(func.sum(ProductEvent.quantity).filter(ProductEvent.at >= _BEFORE, ProductEvent.at < _SINCE), 0),
    )
    .where(
        ProductEvent.customer_id.in_(IDS),
        ProductEvent.name == EventName.FEATURE_USED.value,
        ProductEvent.at <= NOW,
        ProductEvent.feature.is_not(None),
    )
    .group_by(ProductEvent.customer_id, ProductEvent.feature)
)


class FeatureUsageProvider(SqlProvider[FeatureUsage]):
    """Uses of each feature in the last 30 days beside the 30 days before.

    Adopted are features used now and not in the 30 days before, dropped the other way round. Never used is what
    the product offers and nobody at the customer has ever touched. Features in use come with the most used first.
    """

    spec = ProviderSpec(name="feature_usage", section="feature_usage", tier=2, ttl_s=300.0)

    def load(
        self, connection: Connection, customer_ids: Sequence[str], now: datetime
    ) -> Mapping[str, FeatureUsage | None]:
        found: defaultdict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
        rows = _USES.rows(connection, customer_ids, now=now, since=now - WINDOW, before=now - 2 * WINDOW)
        for customer_id, feature, recent, previous in rows:
            found[customer_id][feature] = (int(recent), int(previous))
        return {customer_id: _section(found[customer_id]) for customer_id in customer_ids}


def _section(uses: Mapping[str, tuple[int, int]]) -> FeatureUsage:
    recent = {feature: now for feature, (now, _) in uses.items() if now}
    previous = {feature: before for feature, (_, before) in uses.items() if before}
    total, total_before = sum(recent.values()), sum(previous.values())
    return FeatureUsage(
        uses_30d=total,
        uses_previous_30d=total_before,
        change=round(total / total_before - 1, 2) if total_before else None,
        used=tuple(sorted(recent, key=lambda feature: (-recent[feature], feature))),
        adopted=tuple(sorted(recent.keys() - previous.keys())),
        dropped=tuple(sorted(previous.keys() - recent.keys())),
        never_used=tuple(feature for feature in FEATURES if feature not in uses),
    )
