"""How the customer uses the product."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from models.enrichment.types import EngagementMetrics, ProviderSpec
from providers.base import SqlProvider
from providers.tables import EventName, ProductEvent

WINDOW = timedelta(days=30)
#: What Medley's product offers; adoption is the share of it in use.
FEATURES_OFFERED = 8
_FEATURES_SHOWN = 3


class EngagementMetricsProvider(SqlProvider[EngagementMetrics]):
    """Logins, features and active people of the last 30 days; the last login may lie further back."""

    spec = ProviderSpec(name="engagement_metrics", section="engagement_metrics", tier=1, ttl_s=60.0)

    async def load(self, session: AsyncSession, customer_id: str, now: datetime) -> EngagementMetrics:
        since = now - WINDOW
        mine = ProductEvent.customer_id == customer_id
        last_login = select(func.max(ProductEvent.at)).where(
            mine, ProductEvent.name == EventName.LOGIN, ProductEvent.at <= now
        )
        logins = select(func.coalesce(func.sum(ProductEvent.quantity), 0)).where(
            mine, ProductEvent.name == EventName.LOGIN, ProductEvent.at.between(since, now)
        )
        people = select(func.count(ProductEvent.contact_id.distinct())).where(
            mine, ProductEvent.name.in_(tuple(EventName)), ProductEvent.at.between(since, now)
        )
        numbers = select(last_login.scalar_subquery(), logins.scalar_subquery(), people.scalar_subquery())
        last, login_count, active_users = (await session.execute(numbers)).one()
        features = (
            select(ProductEvent.feature)
            .where(
                mine,
                ProductEvent.name == EventName.FEATURE_USED,
                ProductEvent.at.between(since, now),
                ProductEvent.feature.is_not(None),
            )
            .group_by(ProductEvent.feature)
            .order_by(func.sum(ProductEvent.quantity).desc(), ProductEvent.feature)
        )
        used = [feature for feature in await session.scalars(features) if feature]
        return EngagementMetrics(
            last_login_at=last,
            login_count_30d=int(login_count),
            most_used_features=tuple(used[:_FEATURES_SHOWN]),
            feature_adoption_score=round(min(1.0, len(used) / FEATURES_OFFERED), 2),
            active_users_30d=active_users,
        )
