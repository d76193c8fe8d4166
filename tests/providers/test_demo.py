"""The demo company arrives in both databases, once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from demo.acme import acme_rows
from demo.seed import plant, refresh_acme
from models.errors import ConfigurationError
from providers.database import Database
from providers.systems.orders import SqlOrderSystem
from providers.tables import Customer, Order, ProductEvent, Subscription

NOW = datetime(2026, 3, 14, 16, 45, tzinfo=UTC)


async def customers_in(database: Database) -> int:
    async with database.session() as session:
        return await session.scalar(select(func.count()).select_from(Customer)) or 0


async def test_seeding_again_adds_nothing_and_more_customers_are_added(database: Database) -> None:
    said: list[str] = []
    assert await plant(database, customers=300, seed=7, now=NOW, progress=said.append) == 300
    assert await plant(database, customers=300, seed=7, now=NOW) == 0
    assert said
    assert said[-1] == "demo customers 300 of 300"
    assert await plant(database, customers=320, seed=7, now=NOW + timedelta(days=3)) == 20
    assert await customers_in(database) == 320
    async with database.session() as session:
        assert await session.scalar(select(func.max(Order.placed_at))) <= NOW  # type: ignore[operator]


async def test_two_processes_seeding_at_once_make_one_company(database: Database, database_url: str) -> None:
    other = Database(database_url, busy_timeout_s=10)
    added = await asyncio.gather(
        plant(database, customers=300, seed=7, now=NOW), plant(other, customers=300, seed=7, now=NOW)
    )
    await other.close()
    assert sum(added) == 300
    assert await customers_in(database) == 300


async def test_another_seed_is_refused(database: Database) -> None:
    await plant(database, customers=5, seed=7, now=NOW)
    with pytest.raises(ConfigurationError):
        await plant(database, customers=5, seed=8, now=NOW)
    assert await customers_in(database) == 5


async def test_the_documented_customer_owns_its_orders_and_nobody_elses(database: Database) -> None:
    await plant(database, customers=130, seed=7, now=NOW)
    orders = SqlOrderSystem(database)
    shipped = await orders.find("ORD-10123", customer_id="customer_123")
    delivered = await orders.find("ORD-10124", customer_id="customer_123")
    assert shipped is not None
    assert (shipped.status, bool(shipped.tracking_number)) == ("shipped", True)
    assert shipped.total == pytest.approx(91.40)
    assert shipped.items == ("4 x Nitrile gloves, box of 100", "6 x Disinfectant wipes")
    assert delivered is not None
    assert delivered.status == "delivered"
    assert await orders.find("ORD-10124", customer_id="customer_124") is None
    assert await orders.find("ORD-10123", customer_id="customer_122") is None
    recent = await orders.recent("customer_123", limit=2)
    assert [order.order_id for order in recent] == ["ORD-10123", "ORD-10124"]
    assert await orders.recent("nobody") == []


async def test_acme_is_as_documented_on_any_later_day(database: Database) -> None:
    """The rest of the company ages; Acme's renewal stays 28 days away and its data is not doubled."""
    await plant(database, customers=124, seed=7, now=NOW)
    later = NOW + timedelta(days=3)
    await refresh_acme(database, now=later)
    await refresh_acme(database, now=later)
    async with database.session() as session:
        renewal = await session.scalar(
            select(Subscription.renewal_at).where(Subscription.customer_id == "customer_123")
        )
        logins = await session.scalar(
            select(func.count()).select_from(ProductEvent).where(ProductEvent.customer_id == "customer_123")
        )
    assert renewal is not None
    assert (renewal - later).days == 28
    assert logins == len(acme_rows(now=NOW)[ProductEvent])
