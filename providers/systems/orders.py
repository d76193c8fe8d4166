"""Order management on our database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from models.workflows.types import OrderSummary
from providers.database import Database
from providers.tables import Order, OrderItem


class SqlOrderSystem:
    """Reads orders; one customer never sees another's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, order_id: str, *, customer_id: str) -> OrderSummary | None:
        """The order if it belongs to that customer, else `None`. Raises `DatabaseUnavailable`."""
        query = select(Order).where(Order.order_id == order_id, Order.customer_id == customer_id)
        async with self._database.session() as session:
            found = await _summaries(session, (await session.scalars(query)).all())
        return found[0] if found else None

    async def recent(self, customer_id: str, *, limit: int = 5) -> list[OrderSummary]:
        """The customer's latest orders, newest first. Raises `DatabaseUnavailable`."""
        query = (
            select(Order)
            .where(Order.customer_id == customer_id)
            .order_by(Order.placed_at.desc(), Order.order_id)
            .limit(limit)
        )
        async with self._database.session() as session:
            return await _summaries(session, (await session.scalars(query)).all())


async def _summaries(session: AsyncSession, orders: Sequence[Order]) -> list[OrderSummary]:
    if not orders:
        return []
    items = defaultdict[str, list[str]](list)
    lines = (
        select(OrderItem.order_id, OrderItem.name, OrderItem.quantity)
        .where(OrderItem.order_id.in_([order.order_id for order in orders]))
        .order_by(OrderItem.order_id, OrderItem.line)
    )
    for order_id, name, quantity in await session.execute(lines):
        items[order_id].append(name if quantity == 1 else f"{quantity} x {name}")
    return [
        OrderSummary(
            order_id=order.order_id,
            status=order.status,
            placed_at=order.placed_at,
            total=order.total_cents / 100,
            currency=order.currency,
            tracking_number=order.tracking_number,
            items=tuple(items[order.order_id]),
        )
        for order in orders
    ]
