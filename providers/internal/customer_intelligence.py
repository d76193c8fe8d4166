"""Who the customer is and what the customer is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, func, select
from sqlalchemy.orm import aliased

from models.enrichment.types import CustomerIntelligence, ProviderSpec
from providers.base import SqlProvider
from providers.queries import IDS, Query, newest_subscription
from providers.tables import Account, Contact, Customer, Subscription, SubscriptionStatus

#: Shown where there is no subscription to take a currency from.
_DEFAULT_CURRENCY = "USD"
_PAYING = (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE)

_primary = aliased(Contact)
_primary_contact = (
    select(func.min(_primary.contact_id))
    .where(_primary.customer_id == Customer.customer_id, _primary.is_primary)
    .scalar_subquery()
)
_PROFILES = Query(
    select(
        Customer.customer_id,
        Account.company_name,
        Account.industry,
        Subscription.plan,
        Subscription.status,
        Subscription.mrr_cents,
        Subscription.currency,
        Customer.health_score,
        Customer.churn_risk,
        Customer.customer_since,
        Customer.lifecycle,
        Contact.name,
        Contact.email,
    )
    .join(Account, Account.account_id == Customer.account_id)
    .outerjoin(Subscription, Subscription.subscription_id == newest_subscription(Customer.customer_id))
    .outerjoin(Contact, Contact.contact_id == _primary_contact)
    .where(Customer.customer_id.in_(IDS))
)


class CustomerIntelligenceProvider(SqlProvider[CustomerIntelligence]):
    """Company profile, plan and value; the provider that knows who is no customer.

    Only a paying subscription has monthly revenue: a trial or a cancelled one counts as 0.
    """

    spec = ProviderSpec(name="customer_intelligence", section="customer_intelligence", tier=0, ttl_s=300.0)

    def load(
        self, connection: Connection, customer_ids: Sequence[str], now: datetime
    ) -> Mapping[str, CustomerIntelligence | None]:
        return {
            customer_id: CustomerIntelligence(
                company_name=company_name,
                industry=industry,
                plan=plan or "none",
                mrr=mrr_cents / 100 if status in _PAYING else 0.0,
                currency=currency or _DEFAULT_CURRENCY,
                health_score=health_score,
                churn_risk=churn_risk,
                customer_since=customer_since,
                lifecycle=lifecycle,
                contact_name=contact_name or "",
                contact_email=contact_email or "",
            )
            for (
                customer_id,
                company_name,
                industry,
                plan,
                status,
                mrr_cents,
                currency,
                health_score,
                churn_risk,
                customer_since,
                lifecycle,
                contact_name,
                contact_email,
            ) in _PROFILES.rows(connection, customer_ids)
        }
