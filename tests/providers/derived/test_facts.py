"""What is read as of a past instant was known then, and nothing that happened afterwards shows in it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from demo.seed import plant
from models.insights.types import Facts
from providers.database import Database
from providers.derived.facts import read_facts
from providers.insights_training import cutoffs, read_outreach, read_snapshots
from providers.tables import (
    Conversation,
    Customer,
    Invoice,
    Outreach,
    ProductEvent,
    Subscription,
    Ticket,
)

NOW = datetime(2026, 3, 14, tzinfo=UTC)
PAST = NOW - timedelta(days=200)
CUSTOMERS = 60
IDS = [f"customer_{number}" for number in range(1, CUSTOMERS + 1)]


@pytest.fixture
async def planted(database: Database) -> Database:
    await plant(database, customers=CUSTOMERS, seed=7, now=NOW)
    return database


def facts_at(instant: datetime) -> Callable[[Connection], dict[str, Facts]]:
    return lambda connection: dict(read_facts(connection, IDS, instant))


async def rewrite_the_future(session: AsyncSession) -> None:
    """Everything that can happen after `PAST`, and every column that keeps only today's value."""
    later = PAST + timedelta(seconds=1)
    await session.execute(delete(ProductEvent).where(ProductEvent.at > PAST))
    await session.execute(delete(Conversation).where(Conversation.started_at > PAST))
    await session.execute(delete(Ticket).where(Ticket.opened_at > PAST))
    await session.execute(delete(Outreach).where(Outreach.at > PAST))
    await session.execute(delete(Invoice).where(Invoice.issued_at > PAST))
    gone = (Subscription.canceled_at.is_(None)) | (Subscription.canceled_at > PAST)
    await session.execute(update(Subscription).where(gone).values(canceled_at=later))
    await session.execute(
        update(Subscription).values(
            status="canceled", plan="other", seats_used=0, seats_total=1, mrr_cents=0, renewal_at=None
        )
    )
    open_then = (Invoice.paid_at.is_(None)) | (Invoice.paid_at > PAST)
    await session.execute(update(Invoice).where(open_then).values(paid_at=later, status="paid", amount_cents=0))
    await session.execute(update(Ticket).values(status="closed", closed_at=later, priority="high"))
    await session.execute(update(Conversation).values(resolved=False))
    await session.execute(update(Customer).values(health_score=0, churn_risk=1.0, lifecycle="churned"))
    for number, customer_id in enumerate(IDS):
        await session.execute(
            insert(Ticket).values(
                ticket_id=f"later_{number}",
                customer_id=customer_id,
                subject="s",
                body="b",
                channel="mail",
                priority="high",
                reason="r",
                status="open",
                opened_at=later,
            )
        )
        await session.execute(
            insert(ProductEvent).values(customer_id=customer_id, contact_id="c", name="login", quantity=99, at=later)
        )


async def test_changing_everything_afterwards_changes_no_fact(planted: Database) -> None:
    before = await planted.read(facts_at(PAST))
    async with planted.transaction() as session:
        await rewrite_the_future(session)
    assert await planted.read(facts_at(PAST)) == before
    assert sum(facts.at_risk for facts in before.values()) > CUSTOMERS / 4
    assert sum(facts.logins_30d for facts in before.values()) > 0
    assert sum(facts.tickets_90d for facts in before.values()) > 0
    changed = await planted.read(facts_at(NOW))
    assert all(facts.canceled for facts in changed.values() if facts.tenure_days is not None)


async def test_facts_are_counted_as_told(database: Database) -> None:
    await plant(database, customers=1, seed=7, now=NOW)
    tables = (ProductEvent, Conversation, Ticket, Outreach, Invoice, Subscription)

    def days(count: float) -> datetime:
        return NOW - timedelta(days=count)

    async with database.transaction() as session:
        for table in tables:
            await session.execute(delete(table))
        old = {"plan": "basic", "status": "canceled", "billing_cycle": "monthly", "seats_used": 1, "seats_total": 2}
        old |= {"customer_id": "customer_1", "mrr_cents": 1, "currency": "USD"}
        for name, started, canceled in (("a", 300.0, 150.0), ("b", 100.5, None)):
            canceled_at = None if canceled is None else days(canceled)
            await session.execute(
                insert(Subscription).values(
                    **old, subscription_id=name, started_at=days(started), canceled_at=canceled_at
                )
            )
        for at, quantity in ((5.5, 2), (29, 3), (31, 4), (89, 5), (91, 100)):
            await session.execute(
                insert(ProductEvent).values(
                    customer_id="customer_1", contact_id="c", name="login", quantity=quantity, at=days(at)
                )
            )
        for name, status, issued, due, paid in (
            ("late", "paid", 60, 46, 40),
            ("open", "open", 20, 6, None),
            ("void", "void", 20, 6, None),
            ("punctual", "paid", 90, 76, 80),
            ("not due", "open", 1, -13, None),
            ("long ago", "paid", 300, 286, 200),
        ):
            await session.execute(
                insert(Invoice).values(
                    invoice_id=name,
                    customer_id="customer_1",
                    subscription_id="b",
                    status=status,
                    amount_cents=1,
                    currency="USD",
                    issued_at=days(issued),
                    due_at=days(due),
                    paid_at=None if paid is None else days(paid),
                )
            )
        for name, ended, csat in (("x", 10.0, 2), ("y", 120.0, 3), ("z", 10.0, 5), ("running", None, 1)):
            await session.execute(
                insert(Conversation).values(
                    conversation_id=name,
                    customer_id="customer_1",
                    channel="chat",
                    topic="t",
                    resolved=True,
                    csat=csat,
                    started_at=days(130),
                    ended_at=None if ended is None else days(ended),
                )
            )
    found = await database.read(lambda connection: read_facts(connection, ["customer_1", "nobody"], NOW))
    assert found == {
        "customer_1": Facts(
            tenure_days=100,
            idle_days=5,
            logins_30d=5,
            logins_prior_60d=9,
            conversations_90d=2,
            low_ratings_180d=2,
            overdue=True,
            late_payments_180d=2,
        )
    }
    between = await database.read(lambda connection: read_facts(connection, ["customer_1"], days(120)))
    assert between["customer_1"].canceled
    assert not between["customer_1"].at_risk


async def test_snapshots_say_who_left_within_the_horizon_and_take_no_unfinished_one(planted: Database) -> None:
    snapshots = await planted.read(lambda connection: read_snapshots(connection, NOW))
    assert max(snapshots.instants) <= NOW - timedelta(days=90)
    async with planted.session() as session:
        ended = {row.customer_id: row for row in await session.scalars(select(Subscription))}
    names = sorted(IDS)
    for customer, cutoff, churned in zip(snapshots.customers, snapshots.cutoffs, snapshots.churned, strict=True):
        at, left = snapshots.instants[cutoff], ended[names[customer]].canceled_at
        assert churned == (left is not None and at < left <= at + timedelta(days=90))
    of_customer = {customer: set[bool]() for customer in snapshots.customers.tolist()}
    for customer, held_out in zip(snapshots.customers.tolist(), snapshots.held_out.tolist(), strict=True):
        of_customer[customer].add(held_out)
    assert all(len(sides) == 1 for sides in of_customer.values())


async def test_who_cancels_and_comes_back_within_the_horizon_has_not_left(planted: Database) -> None:
    before = await planted.read(lambda connection: read_snapshots(connection, NOW))
    latest = before.cutoffs == before.cutoffs.max()
    stayed = sorted(IDS)[int(before.customers[latest & ~before.churned][0])]
    cut = before.instants[-1]
    async with planted.transaction() as session:
        plan = (await session.scalars(select(Subscription).where(Subscription.customer_id == stayed))).one()
        values = {column.name: getattr(plan, column.name) for column in Subscription.__table__.columns}
        await session.execute(
            update(Subscription).where(Subscription.customer_id == stayed).values(canceled_at=cut + timedelta(days=5))
        )
        values |= {"subscription_id": "again", "started_at": cut + timedelta(days=9), "canceled_at": None}
        await session.execute(insert(Subscription).values(**values))
    after = await planted.read(lambda connection: read_snapshots(connection, NOW))
    assert after.churned.tolist() == before.churned.tolist()


async def test_outreach_is_read_with_what_was_known_the_day_before(planted: Database) -> None:
    history = await planted.read(lambda connection: read_outreach(connection, NOW))
    async with planted.session() as session:
        known = [row for row in await session.scalars(select(Outreach)) if row.responded is not None]
    assert len(history.facts) == len(known)
    assert history.by_lot.sum() == sum(row.propensity is not None for row in known)
    assert 0 < history.by_lot.mean() < 1
    gone = [
        facts.canceled for facts, action in zip(history.facts, history.actions, strict=True) if action == "win_back"
    ]
    assert all(gone)


def test_cut_offs_leave_room_for_looking_back_and_ahead() -> None:
    found = cutoffs(NOW - timedelta(days=400), NOW + timedelta(hours=7))
    assert found[-1] == NOW - timedelta(days=90)
    assert found[0] >= NOW - timedelta(days=220)
    assert {late - early for early, late in pairwise(found)} == {timedelta(days=30)}
    assert cutoffs(NOW - timedelta(days=100), NOW) == ()
    assert len(cutoffs(NOW - timedelta(days=9000), NOW)) == 24
