"""What needs attention: flags derived from the customer's data by the rules of one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import Connection, func, select

from models.enrichment.types import AccountHealth, ProviderSpec
from providers.base import SqlProvider
from providers.queries import IDS, NOW, Query, instant, newest_subscription, open_tickets, overdue_invoice
from providers.tables import Conversation, Customer, EventName, ProductEvent, Subscription, SubscriptionStatus


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


_logins = (
    ProductEvent.customer_id == Customer.customer_id,
    ProductEvent.name == EventName.LOGIN.value,
    ProductEvent.at <= NOW,
)
_talks = Conversation.customer_id == Customer.customer_id
_FACTS = Query(
    select(
        Customer.customer_id,
        Customer.health_score,
        Customer.churn_risk,
        Subscription.status,
        Subscription.seats_used,
        Subscription.seats_total,
        Subscription.renewal_at,
        Subscription.trial_ends_at,
        overdue_invoice(Customer.customer_id).label("overdue"),
        open_tickets(Customer.customer_id).label("open_tickets"),
        select(func.count(Conversation.csat)).where(_talks).scalar_subquery().label("ratings"),
        select(func.sum(Conversation.csat)).where(_talks).scalar_subquery().label("csat"),
        select(func.sum(ProductEvent.quantity))
        .where(*_logins, ProductEvent.at >= instant("since"))
        .scalar_subquery()
        .label("logins_30d"),
        select(func.max(ProductEvent.at)).where(*_logins).scalar_subquery().label("last_login"),
    )
    .outerjoin(Subscription, Subscription.subscription_id == newest_subscription(Customer.customer_id))
    .where(Customer.customer_id.in_(IDS))
)


class AccountHealthProvider(SqlProvider[AccountHealth]):
    """Applies `RULES` to the customer's subscription, payments, support and use of the product.

    It reads what it judges itself, though other sections show some of the same: those may come from a cache, and a flag
    would then be older than it says.
    """

    spec = ProviderSpec(name="account_health", section="account_health", tier=0, ttl_s=60.0)

    def load(
        self, connection: Connection, customer_ids: Sequence[str], now: datetime
    ) -> Mapping[str, AccountHealth | None]:
        rows = _FACTS.rows(connection, customer_ids, now=now, since=now - timedelta(days=30))
        return {customer_id: _judged(_facts(now, *facts)) for customer_id, *facts in rows}


def _judged(facts: Facts) -> AccountHealth:
    flags = {flag: tuple(rule.text for rule in RULES if rule.flag is flag and rule.holds(facts)) for flag in Flag}
    return AccountHealth(red_flags=flags[Flag.RED], yellow_flags=flags[Flag.YELLOW], green_flags=flags[Flag.GREEN])


def _facts(
    now: datetime,
    health_score: int,
    churn_risk: float,
    status: str | None,
    seats_used: int,
    seats_total: int,
    renewal_at: datetime | None,
    trial_ends_at: datetime | None,
    overdue: bool,
    open_tickets: int,
    ratings: int,
    csat: int | None,
    logins_30d: int | None,
    last_login: datetime | None,
) -> Facts:
    return Facts(
        health_score=health_score,
        churn_risk=churn_risk,
        subscribed=status is not None,
        overdue=overdue or status == SubscriptionStatus.PAST_DUE,
        canceled=status == SubscriptionStatus.CANCELED,
        days_to_renewal=_days(renewal_at - now) if renewal_at else None,
        trial_days_left=_days(trial_ends_at - now) if trial_ends_at else None,
        seat_share=seats_used / seats_total if seats_total else 0.0,
        open_tickets=open_tickets,
        ratings=ratings,
        csat=round((csat or 0) / ratings, 1) if ratings else 0.0,
        logins_30d=int(logins_30d or 0),
        idle_days=_days(now - last_login) if last_login else None,
    )


def _days(span: timedelta) -> float:
    return span / timedelta(days=1)
