"""Fills a migrated database with the demo company, resuming where an earlier run stopped."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from demo.acme import ACME, acme_rows
from demo.generator import GENERATOR_VERSION, company_rows, gathered_rows
from demo.rows import Rows
from models.errors import ConfigurationError
from providers.database import Database, Progress
from providers.record_tables import DemoSeed
from providers.tables import Customer, ProductEvent

#: Customers per transaction: bounds both memory and the time other writers wait.
_BATCH = 250


def seed(url: str, *, customers: int = 2000, seed: int = 7, now: datetime, progress: Progress | None = None) -> int:
    """Make `customer_1` to `customer_<customers>` and return how many are new; 0 when all are there.

    Instants are told relative to `now` of the first run, those of the documents' Acme Corp relative to this run's. More
    customers than last time are added to the same data.
    Raises `ConfigurationError` when the database holds other customers or another seed's, `DatabaseUnavailable`.
    """

    async def run() -> int:
        database = Database(url, busy_timeout_s=30.0)
        try:
            added = await plant(database, customers=customers, seed=seed, now=now, progress=progress)
            await refresh_acme(database, now=now)
            return added
        finally:
            await database.close()

    return asyncio.run(run())


async def plant(
    database: Database, *, customers: int, seed: int, now: datetime, progress: Progress | None = None
) -> int:
    """`seed` on an open database, inside a running event loop."""
    added = 0
    done, anchor = await _resume(database, seed=seed, now=now)
    while done < customers:
        last = min(done + _BATCH, customers)
        rows = gathered_rows(done + 1, last, seed=seed, now=anchor)
        if await _commit(database, rows, seed=seed, expected=done, done=last):
            added += last - done
            done = last
        else:  # another process is seeding too: go on from where it is
            done, anchor = await _resume(database, seed=seed, now=now)
        if progress is not None:
            progress(f"demo customers {done:,} of {customers:,}")
    return added


async def refresh_acme(database: Database, *, now: datetime) -> None:
    """Tell Acme's data relative to `now`, so that the documented context is shown on any day; nothing else changes."""
    async with database.transaction() as session:
        if await session.get(Customer, f"customer_{ACME}") is None:
            return
        for table, values in acme_rows(now=now).items():
            if table is ProductEvent:  # these have no key of their own
                await session.execute(delete(ProductEvent).where(ProductEvent.customer_id == f"customer_{ACME}"))
                await session.execute(insert(ProductEvent), values)
            else:
                await session.execute(update(table), values)


async def _resume(database: Database, *, seed: int, now: datetime) -> tuple[int, datetime]:
    """How many customers are there, and the `now` of the first run; starts the demo data when there is none."""
    state = await _state(database)
    if state is None:
        with contextlib.suppress(IntegrityError):  # another process began at the same moment
            async with database.transaction() as session:
                if await session.scalar(select(Customer.customer_id).limit(1)) is not None:
                    raise ConfigurationError("the database holds other customers; demo data wants its own database")
                await session.execute(
                    insert(DemoSeed).values(
                        seed=seed, generator_version=GENERATOR_VERSION, customers_done=0, anchored_at=now
                    )
                )
                await _insert(session, company_rows(seed=seed, now=now))
        state = await _state(database)
    if state is None or (state.seed, state.generator_version) != (seed, GENERATOR_VERSION):
        raise ConfigurationError("the database holds demo data of another seed or version; remove it to make new data")
    return state.customers_done, state.anchored_at


async def _state(database: Database) -> DemoSeed | None:
    async with database.session() as session:
        return (await session.scalars(select(DemoSeed).limit(1))).one_or_none()


async def _commit(database: Database, rows: Rows, *, seed: int, expected: int, done: int) -> bool:
    """Write the batch and how far we are in one transaction; false when another process got there first."""
    advance = (
        update(DemoSeed)
        .where(DemoSeed.seed == seed, DemoSeed.customers_done == expected)
        .values(customers_done=done)
        .returning(DemoSeed.customers_done)
    )
    async with database.transaction() as session:
        if await session.scalar(advance) is None:
            return False
        await _insert(session, rows)
    return True


async def _insert(session: AsyncSession, rows: Rows) -> None:
    connection = await session.connection()
    for table, values in rows.items():
        await connection.execute(insert(table), values)
