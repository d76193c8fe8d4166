"""Reads `Facts` as they were known at an instant; training asks about past instants, providers about now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, func, or_, select
from sqlalchemy.orm import aliased

from models.insights.types import LOGIN_WINDOW_DAYS, Facts
from providers.queries import IDS, NOW, instant
from providers.tables import (
    Conversation,
    Customer,
    EventName,
    Invoice,
    InvoiceStatus,
    ProductEvent,
    Subscription,
    Ticket,
)

#: Ratings from here down are low.
_LOW_RATING = 3
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Facts, and beside them the churn risk that is recorded today (no fact: its past is not known)."""

    facts: Facts
    recorded_risk: float | None


_newest = aliased(Subscription)
_logins = (
    ProductEvent.customer_id == Customer.customer_id,
    ProductEvent.name == EventName.LOGIN.value,
    ProductEvent.at <= NOW,
)
_counted_logins = func.coalesce(func.sum(ProductEvent.quantity), 0)
_unpaid = or_(Invoice.paid_at.is_(None), Invoice.paid_at > NOW)
_fell_due = (
    Invoice.customer_id == Customer.customer_id,
    Invoice.status != InvoiceStatus.VOID.value,
    Invoice.issued_at <= NOW,
    Invoice.due_at < NOW,
)
_FACTS = (
    select(
        Customer.customer_id,
        Customer.churn_risk,
        Subscription.started_at,
        Subscription.trial_ends_at,
        Subscription.canceled_at,
        select(func.max(ProductEvent.at)).where(*_logins, ProductEvent.at > instant("login_window")).scalar_subquery(),
        select(_counted_logins).where(*_logins, ProductEvent.at > instant("ago_30")).scalar_subquery(),
        select(_counted_logins)
        .where(*_logins, ProductEvent.at > instant("ago_90"), ProductEvent.at <= instant("ago_30"))
        .scalar_subquery(),
        select(func.count())
        .where(
            Ticket.customer_id == Customer.customer_id, Ticket.opened_at > instant("ago_90"), Ticket.opened_at <= NOW
        )
        .scalar_subquery(),
        # A talk counts once it is over: what came of it was not known before.
        select(func.count())
        .where(
            Conversation.customer_id == Customer.customer_id,
            Conversation.ended_at > instant("ago_90"),
            Conversation.ended_at <= NOW,
        )
        .scalar_subquery(),
        select(func.count())
        .where(
            Conversation.customer_id == Customer.customer_id,
            Conversation.ended_at > instant("ago_180"),
            Conversation.ended_at <= NOW,
            Conversation.csat <= _LOW_RATING,
        )
        .scalar_subquery(),
        select(Invoice.invoice_id).where(*_fell_due, _unpaid).exists(),
        select(func.count())
        .where(
            *_fell_due,
            Invoice.due_at > instant("ago_180"),
            or_(Invoice.paid_at.is_(None), Invoice.paid_at > Invoice.due_at),
        )
        .scalar_subquery(),
    )
    .outerjoin(
        Subscription,
        and_(
            Subscription.customer_id == Customer.customer_id,
            Subscription.subscription_id
            == select(_newest.subscription_id)
            .where(_newest.customer_id == Customer.customer_id, _newest.started_at <= NOW)
            .order_by(_newest.started_at.desc(), _newest.subscription_id.desc())
            .limit(1)
            .scalar_subquery(),
        ),
    )
    .where(Customer.customer_id.in_(IDS))
)


def read_known(connection: Connection, customer_ids: Sequence[str], at: datetime) -> dict[str, Known]:
    """What was known of each customer at `at`, by id; who is no customer is left out. Raises what SQLAlchemy raises."""
    parameters = {
        "ids": customer_ids,
        "now": at,
        "login_window": at - LOGIN_WINDOW_DAYS * _DAY,
        "ago_30": at - 30 * _DAY,
        "ago_90": at - 90 * _DAY,
        "ago_180": at - 180 * _DAY,
    }
    return {row[0]: _known(at, *row[1:]) for row in connection.execute(_FACTS, parameters)}


def read_facts(connection: Connection, customer_ids: Sequence[str], at: datetime) -> Mapping[str, Facts]:
    """As `read_known`, the facts alone."""
    return {customer_id: known.facts for customer_id, known in read_known(connection, customer_ids, at).items()}


def _known(
    at: datetime,
    churn_risk: float | None,
    started_at: datetime | None,
    trial_ends_at: datetime | None,
    canceled_at: datetime | None,
    last_login: datetime | None,
    logins_30d: Any,
    logins_prior_60d: Any,
    tickets_90d: int,
    conversations_90d: int,
    low_ratings_180d: int,
    overdue: bool,
    late_payments_180d: int,
) -> Known:
    facts = Facts(
        tenure_days=None if started_at is None else (at - started_at) // _DAY,
        canceled=canceled_at is not None and canceled_at <= at,
        trialing=trial_ends_at is not None and trial_ends_at > at,
        idle_days=None if last_login is None else (at - last_login) // _DAY,
        logins_30d=int(logins_30d),
        logins_prior_60d=int(logins_prior_60d),
        tickets_90d=tickets_90d,
        conversations_90d=conversations_90d,
        low_ratings_180d=low_ratings_180d,
        overdue=bool(overdue),
        late_payments_180d=late_payments_180d,
    )
    return Known(facts=facts, recorded_risk=churn_risk)
