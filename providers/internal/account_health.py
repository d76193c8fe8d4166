"""What needs attention: flags derived from the customer's data by the rules of one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from models.enrichment.types import AccountHealth, ProviderSpec
from models.errors import UnknownCustomer
from providers.base import SqlProvider, current_subscription
from providers.tables import (
    Conversation,
    Customer,
    EventName,
    Invoice,
    InvoiceStatus,
    ProductEvent,
    Subscription,
    SubscriptionStatus,
    Ticket,
    TicketStatus,
)


class Flag(StrEnum):
    """Red for critical issues, yellow for warnings, green for opportunities."""

    RED = "red"
    YELLOW = "yellow"
    GREEN = "green"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the rules look at. `days_to_renewal`, `trial_days_left` and `idle_days` are `None` where nothing is set."""

    health_score: int
    churn_risk: float
    subscribed: bool
    overdue: bool
    canceled: bool
    days_to_renewal: float | None
    trial_days_left: float | None
    seat_share: float
    open_tickets: int
    ratings: int
    csat: float
    logins_30d: int
    idle_days: float | None


@dataclass(frozen=True, slots=True)
class Rule:
    flag: Flag
    text: str
    holds: Callable[[Facts], bool]


#: The texts name no numbers, so that a flag, and with it the context's version, changes only when a rule turns over.
RULES: tuple[Rule, ...] = (
    Rule(Flag.RED, "Payment overdue", lambda f: f.overdue),
    Rule(Flag.RED, "Subscription cancelled - win-back needed", lambda f: f.canceled),
    Rule(Flag.RED, "High churn risk", lambda f: f.churn_risk >= 0.6 and not f.canceled),
    Rule(Flag.RED, "Critical health score", lambda f: f.health_score < 40),
    Rule(Flag.YELLOW, "Rising churn risk", lambda f: 0.3 <= f.churn_risk < 0.6 and not f.canceled),
    Rule(
        Flag.YELLOW,
        "Renewal within 30 days at risk",
        lambda f: f.days_to_renewal is not None and 0 <= f.days_to_renewal <= 30 and f.churn_risk >= 0.3,
    ),
    Rule(
        Flag.YELLOW,
        "Trial ends within 7 days",
        lambda f: f.trial_days_left is not None and 0 <= f.trial_days_left <= 7,
    ),
    Rule(
        Flag.YELLOW,
        "No login in the last 14 days",
        lambda f: f.subscribed and not f.canceled and (f.idle_days is None or f.idle_days > 14),
    ),
    Rule(Flag.YELLOW, "Several open tickets", lambda f: f.open_tickets >= 3),
    Rule(Flag.YELLOW, "Low CSAT scores", lambda f: f.ratings >= 3 and f.csat < 3.5),
    Rule(Flag.GREEN, "High engagement - upsell opportunity", lambda f: f.logins_30d >= 30 and f.churn_risk < 0.3),
    Rule(Flag.GREEN, "High CSAT scores - ask for referral", lambda f: f.ratings >= 3 and f.csat >= 4.5),
    Rule(Flag.GREEN, "Seats almost used up - offer more", lambda f: f.seat_share >= 0.9 and not f.canceled),
)


class AccountHealthProvider(SqlProvider[AccountHealth]):
    """Applies `RULES` to the customer's subscription, payments, support and use of the product."""

    spec = ProviderSpec(name="account_health", section="account_health", tier=0, ttl_s=60.0)

    async def load(self, session: AsyncSession, customer_id: str, now: datetime) -> AccountHealth:
        facts = await _facts(session, customer_id, now)
        flags = {flag: tuple(rule.text for rule in RULES if rule.flag is flag and rule.holds(facts)) for flag in Flag}
        return AccountHealth(red_flags=flags[Flag.RED], yellow_flags=flags[Flag.YELLOW], green_flags=flags[Flag.GREEN])


async def _facts(session: AsyncSession, customer_id: str, now: datetime) -> Facts:
    logins = (ProductEvent.customer_id == customer_id, ProductEvent.name == EventName.LOGIN, ProductEvent.at <= now)
    numbers = select(
        Customer.health_score,
        Customer.churn_risk,
        select(func.count())
        .select_from(Ticket)
        .where(Ticket.customer_id == customer_id, Ticket.status.in_((TicketStatus.OPEN, TicketStatus.PENDING)))
        .scalar_subquery(),
        select(func.count(Conversation.csat)).where(Conversation.customer_id == customer_id).scalar_subquery(),
        select(func.avg(Conversation.csat)).where(Conversation.customer_id == customer_id).scalar_subquery(),
        select(func.coalesce(func.sum(ProductEvent.quantity), 0))
        .where(*logins, ProductEvent.at >= now - timedelta(days=30))
        .scalar_subquery(),
        select(func.max(ProductEvent.at)).where(*logins).scalar_subquery(),
        select(Invoice.invoice_id)
        .where(Invoice.customer_id == customer_id, Invoice.status == InvoiceStatus.OPEN, Invoice.due_at < now)
        .exists(),
    ).where(Customer.customer_id == customer_id)
    row = (await session.execute(numbers)).one_or_none()
    if row is None:
        raise UnknownCustomer("there is no such customer")
    health_score, churn_risk, open_tickets, ratings, csat, logins_30d, last_login, overdue = row
    plan: Subscription | None = await session.scalar(current_subscription(customer_id))
    return Facts(
        health_score=health_score,
        churn_risk=churn_risk,
        subscribed=plan is not None,
        overdue=bool(overdue) or (plan is not None and plan.status == SubscriptionStatus.PAST_DUE),
        canceled=plan is not None and plan.status == SubscriptionStatus.CANCELED,
        days_to_renewal=_days(plan.renewal_at - now) if plan and plan.renewal_at else None,
        trial_days_left=_days(plan.trial_ends_at - now) if plan and plan.trial_ends_at else None,
        seat_share=plan.seats_used / plan.seats_total if plan and plan.seats_total else 0.0,
        open_tickets=open_tickets,
        ratings=ratings,
        csat=round(float(csat or 0), 1),
        logins_30d=int(logins_30d),
        idle_days=_days(now - last_login) if last_login else None,
    )


def _days(span: timedelta) -> float:
    return span / timedelta(days=1)
