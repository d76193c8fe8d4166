"""What the customer pays for."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from models.enrichment.types import ProviderSpec, SubscriptionDetails
from providers.base import SqlProvider, current_subscription
from providers.tables import Invoice, InvoiceStatus, SubscriptionStatus


class SubscriptionDetailsProvider(SqlProvider[SubscriptionDetails]):
    """Seats, billing and renewal of the newest subscription; nothing for a customer who never had one.

    Payment is overdue while an open invoice is past its due date, or billing says so.
    """

    spec = ProviderSpec(name="subscription_details", section="subscription_details", tier=0, ttl_s=300.0)

    async def load(self, session: AsyncSession, customer_id: str, now: datetime) -> SubscriptionDetails | None:
        overdue_invoice = select(Invoice.invoice_id).where(
            Invoice.customer_id == customer_id, Invoice.status == InvoiceStatus.OPEN, Invoice.due_at < now
        )
        query = current_subscription(customer_id).add_columns(overdue_invoice.exists().label("overdue"))
        row = (await session.execute(query)).one_or_none()
        if row is None:
            return None
        plan, overdue = row[0], bool(row[1])
        return SubscriptionDetails(
            plan=plan.plan,
            billing_cycle=plan.billing_cycle,
            seats_used=plan.seats_used,
            seats_total=plan.seats_total,
            renewal_at=plan.renewal_at,
            trial_ends_at=plan.trial_ends_at,
            status=plan.status,
            payment_overdue=overdue or plan.status == SubscriptionStatus.PAST_DUE,
        )
