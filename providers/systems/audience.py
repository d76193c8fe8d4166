"""The audience of campaigns: customers who agreed to marketing, read in bulk with what segmentation needs to know.

A shard is read with one grouped query per table over a range of ids, never customer by customer.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from models.campaign.types import CustomerFeatures, Shard
from providers.database import Database
from providers.tables import (
    Customer,
    EventName,
    Invoice,
    InvoiceStatus,
    Order,
    OrderStatus,
    ProductEvent,
    Subscription,
    SubscriptionStatus,
    Ticket,
    TicketStatus,
)

YEAR_DAYS, MONTH_DAYS = 365, 30
_NOT_BOUGHT = (OrderStatus.CANCELLED.value, OrderStatus.RETURNED.value)
_OPEN = (TicketStatus.OPEN.value, TicketStatus.PENDING.value)


class SqlAudience:
    """`models.campaign.protocol.Audience` on our database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def shards(self, *, limit: int | None, size: int) -> list[Shard]:
        """Cut the audience by id; the cuts are found by key, so that a million customers never stand in memory."""
        shards: list[Shard] = []
        left, after = limit, ""
        async with self._database.session() as session:
            while left is None or left > 0:
                wanted = size if left is None else min(size, left)
                found = list(await session.scalars(_members(Customer.customer_id, after, wanted)))
                if found:
                    shards.append(Shard(number=len(shards), after=after, size=len(found)))
                if len(found) < wanted:
                    break
                after, left = found[-1], None if left is None else left - wanted
        return shards

    async def without_consent(self) -> int:
        query = select(func.count()).select_from(Customer).where(Customer.marketing_consent.is_(False))
        async with self._database.session() as session:
            return await session.scalar(query) or 0

    async def read(self, shard: Shard, *, as_of: datetime) -> list[CustomerFeatures]:
        async with self._database.session() as session:
            customers = list(await session.execute(_members(Customer, shard.after, shard.size)))
            if not customers:
                return []
            last: str = customers[-1][0].customer_id
            known = _Known(session, shard.after, last, as_of)
            orders, invoices = await known.orders(), await known.invoices()
            logins, tickets, subscriptions = (
                await known.login_days(),
                await known.tickets(),
                await known.subscriptions(),
            )
        return [
            _features(
                row[0],
                as_of,
                orders.get(row[0].customer_id, (0, 0, None)),
                invoices.get(row[0].customer_id, (0,))[0],
                logins.get(row[0].customer_id, (0,))[0],
                tickets.get(row[0].customer_id, (0,))[0],
                subscriptions.get(row[0].customer_id),
            )
            for row in customers
        ]


def _members(what: Any, after: str, size: int) -> Select[Any]:
    query = select(what).where(Customer.marketing_consent.is_(True), Customer.customer_id > after)
    return query.order_by(Customer.customer_id).limit(size)


class _Known:
    """One grouped read per table over the ids `after < id <= last`."""

    def __init__(self, session: AsyncSession, after: str, last: str, as_of: datetime) -> None:
        self._session, self._after, self._last, self._as_of = session, after, last, as_of
        self._year_ago, self._month_ago = as_of - timedelta(days=YEAR_DAYS), as_of - timedelta(days=MONTH_DAYS)

    async def orders(self) -> Mapping[str, tuple[Any, ...]]:
        """Orders and their cents within a year, and the last one ever."""
        recent = Order.placed_at > self._year_ago
        return await self._grouped(
            Order.customer_id,
            func.count().filter(recent),
            func.coalesce(func.sum(Order.total_cents).filter(recent), 0),
            func.max(Order.placed_at),
            where=(Order.placed_at <= self._as_of, Order.status.not_in(_NOT_BOUGHT)),
        )

    async def invoices(self) -> Mapping[str, tuple[Any, ...]]:
        """Cents of invoices paid within a year."""
        paid = (Invoice.status == InvoiceStatus.PAID.value, Invoice.paid_at > self._year_ago)
        return await self._grouped(
            Invoice.customer_id, func.sum(Invoice.amount_cents), where=(*paid, Invoice.paid_at <= self._as_of)
        )

    async def login_days(self) -> Mapping[str, tuple[Any, ...]]:
        """Days with a login within the last month."""
        within = (ProductEvent.at > self._month_ago, ProductEvent.at <= self._as_of)
        days = func.count(func.distinct(func.date(ProductEvent.at)))
        return await self._grouped(
            ProductEvent.customer_id, days, where=(ProductEvent.name == EventName.LOGIN.value, *within)
        )

    async def tickets(self) -> Mapping[str, tuple[Any, ...]]:
        return await self._grouped(Ticket.customer_id, func.count(), where=(Ticket.status.in_(_OPEN),))

    async def subscriptions(self) -> Mapping[str, Subscription]:
        """The newest subscription of each customer."""
        query = select(Subscription).where(*self._range(Subscription.customer_id)).order_by(Subscription.started_at)
        return {row.customer_id: row for row in await self._session.scalars(query)}

    async def _grouped(
        self, key: InstrumentedAttribute[Any], *values: Any, where: tuple[ColumnElement[bool], ...]
    ) -> Mapping[str, tuple[Any, ...]]:
        rows = await self._session.execute(select(key, *values).where(*self._range(key), *where).group_by(key))
        return {row[0]: tuple(row[1:]) for row in rows}

    def _range(self, key: InstrumentedAttribute[Any]) -> tuple[ColumnElement[bool], ...]:
        return key > self._after, key <= self._last


def _features(
    customer: Customer,
    as_of: datetime,
    orders: tuple[Any, ...],
    invoiced_cents: int,
    login_days: int,
    open_tickets: int,
    subscription: Subscription | None,
) -> CustomerFeatures:
    count, ordered_cents, last_order = orders
    current = subscription if subscription and subscription.status != SubscriptionStatus.CANCELED.value else None
    renewal = current.renewal_at if current else None
    return CustomerFeatures(
        customer_id=customer.customer_id,
        recency_days=_days(as_of - (last_order or customer.customer_since)),
        frequency=float(count),
        monetary=(int(ordered_cents) + int(invoiced_cents)) / 100,
        engagement=min(login_days / MONTH_DAYS, 1.0),
        tenure_days=_days(as_of - customer.customer_since),
        seat_use=current.seats_used / current.seats_total if current and current.seats_total else 0.0,
        open_tickets=float(open_tickets),
        churn_risk=customer.churn_risk,
        renewal_in_days=_days(renewal - as_of) if renewal and renewal > as_of else None,
    )


def _days(span: timedelta) -> float:
    return round(max(span.total_seconds(), 0.0) / 86_400, 3)
