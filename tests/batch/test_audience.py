"""Bulk reads of the audience agree with reading each customer by itself."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from models.errors import DatabaseUnavailable
from providers.database import Database
from providers.systems.audience import SqlAudience
from providers.tables import Customer, Invoice, Order, ProductEvent, Ticket
from tests.batch.conftest import AS_OF, CUSTOMERS


async def test_shards_cover_everyone_who_agreed_once(database_url: str) -> None:
    database = Database(database_url)
    audience = SqlAudience(database)
    shards = await audience.shards(limit=None, size=37)
    members = [c.customer_id for shard in shards for c in await audience.read(shard, as_of=AS_OF)]
    async with database.session() as session:
        agreed = list(await session.scalars(select(Customer.customer_id).where(Customer.marketing_consent.is_(True))))
    assert sorted(members) == sorted(agreed)
    assert await audience.without_consent() == CUSTOMERS - len(agreed) > 0
    limited = await audience.shards(limit=100, size=37)
    assert [shard.size for shard in limited] == [37, 37, 26]
    assert [c.customer_id for shard in limited for c in await audience.read(shard, as_of=AS_OF)] == members[:100]
    await database.close()


async def test_features_agree_with_each_customers_own_rows(database_url: str) -> None:
    database = Database(database_url)
    audience = SqlAudience(database)
    customers = [
        c for shard in await audience.shards(limit=40, size=40) for c in await audience.read(shard, as_of=AS_OF)
    ]
    year, month = AS_OF - timedelta(days=365), AS_OF - timedelta(days=30)
    async with database.session() as session:
        for customer in customers:
            mine = customer.customer_id
            orders = [
                o for o in await session.scalars(select(Order).where(Order.customer_id == mine))
                if o.status not in ("cancelled", "returned") and o.placed_at <= AS_OF
            ]  # fmt: skip
            recent = [o for o in orders if o.placed_at > year]
            paid = [
                i.amount_cents for i in await session.scalars(select(Invoice).where(Invoice.customer_id == mine))
                if i.status == "paid" and i.paid_at is not None and year < i.paid_at <= AS_OF
            ]  # fmt: skip
            logins = {
                e.at.date() for e in await session.scalars(select(ProductEvent).where(ProductEvent.customer_id == mine))
                if e.name == "login" and month < e.at <= AS_OF
            }  # fmt: skip
            tickets = [
                t for t in await session.scalars(select(Ticket).where(Ticket.customer_id == mine))
                if t.status in ("open", "pending")
            ]  # fmt: skip
            assert customer.frequency == len(recent)
            assert customer.monetary == pytest.approx((sum(o.total_cents for o in recent) + sum(paid)) / 100)
            assert customer.engagement == pytest.approx(min(len(logins) / 30, 1))
            assert customer.open_tickets == len(tickets)
            if orders:
                last = max(o.placed_at for o in orders)
                assert customer.recency_days == pytest.approx((AS_OF - last).total_seconds() / 86_400, abs=1e-3)
    await database.close()


async def test_a_missing_database_is_named(tmp_path: object) -> None:
    with pytest.raises(DatabaseUnavailable):
        await SqlAudience(Database(f"sqlite+aiosqlite:///{tmp_path}/none.db")).shards(limit=5, size=5)
