"""Who the customer is and what the customer is worth."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import and_, select
from sqlalchemy.ext.asyncio import AsyncSession

from models.enrichment.types import CustomerIntelligence, ProviderSpec
from models.errors import UnknownCustomer
from providers.base import SqlProvider, current_subscription
from providers.tables import Account, Contact, Customer, SubscriptionStatus

#: Shown where there is no subscription to take a currency from.
_DEFAULT_CURRENCY = "USD"
_PAYING = (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE)


class CustomerIntelligenceProvider(SqlProvider[CustomerIntelligence]):
    """Company profile, plan and value; the provider that knows who is no customer.

    Only a paying subscription has monthly revenue: a trial or a cancelled one counts as 0.
    """

    spec = ProviderSpec(name="customer_intelligence", section="customer_intelligence", tier=0, ttl_s=300.0)

    async def load(self, session: AsyncSession, customer_id: str, now: datetime) -> CustomerIntelligence:
        query = (
            select(Customer, Account, Contact)
            .join(Account, Account.account_id == Customer.account_id)
            .outerjoin(Contact, and_(Contact.customer_id == Customer.customer_id, Contact.is_primary))
            .where(Customer.customer_id == customer_id)
            .limit(1)
        )
        row = (await session.execute(query)).one_or_none()
        if row is None:
            raise UnknownCustomer("there is no such customer")
        customer, account = row[0], row[1]
        contact: Contact | None = row[2]
        plan = await session.scalar(current_subscription(customer_id))
        return CustomerIntelligence(
            company_name=account.company_name,
            industry=account.industry,
            plan=plan.plan if plan else "none",
            mrr=plan.mrr_cents / 100 if plan and plan.status in _PAYING else 0.0,
            currency=plan.currency if plan else _DEFAULT_CURRENCY,
            health_score=customer.health_score,
            churn_risk=customer.churn_risk,
            customer_since=customer.customer_since,
            lifecycle=customer.lifecycle,
            contact_name=contact.name if contact else "",
            contact_email=contact.email if contact else "",
        )
