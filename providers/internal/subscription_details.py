"""What the customer pays for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, select

from models.enrichment.types import ProviderSpec, SubscriptionDetails
from providers.base import SqlProvider
from providers.queries import IDS, Query, newest_subscription, overdue_invoice
from providers.tables import Subscription, SubscriptionStatus

_PLANS = Query(
    select(
        Subscription.customer_id,
        Subscription.plan,
        Subscription.billing_cycle,
        Subscription.seats_used,
        Subscription.seats_total,
        Subscription.renewal_at,
        Subscription.trial_ends_at,
        Subscription.status,
        overdue_invoice(Subscription.customer_id).label("overdue"),
    ).where(
        Subscription.customer_id.in_(IDS),
        Subscription.subscription_id == newest_subscription(Subscription.customer_id),
    )
)


class SubscriptionDetailsProvider(SqlProvider[SubscriptionDetails]):
    """Seats, billing and renewal of the newest subscription; nothing for a customer who never had one.

    Payment is overdue while an open invoice is past its due date, or billing says so.
    """

    spec = ProviderSpec(name="subscription_details", section="subscription_details", tier=0, ttl_s=300.0)

    def load(
        self, connection: Connection, customer_ids: Sequence[str], now: datetime
    ) -> Mapping[str, SubscriptionDetails | None]:
        sections: dict[str, SubscriptionDetails | None] = dict.fromkeys(customer_ids)
        for (
            customer_id,
            plan,
            billing_cycle,
            seats_used,
            seats_total,
            renewal_at,
            trial_ends_at,
            status,
            overdue,
        ) in _PLANS.rows(connection, customer_ids, now=now):
            sections[customer_id] = SubscriptionDetails(
                plan=plan,
                billing_cycle=billing_cycle,
                seats_used=seats_used,
                seats_total=seats_total,
                renewal_at=renewal_at,
                trial_ends_at=trial_ends_at,
                status=status,
                payment_overdue=overdue or status == SubscriptionStatus.PAST_DUE,
            )
        return sections
