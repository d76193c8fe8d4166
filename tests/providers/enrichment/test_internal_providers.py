"""The internal providers tell the truth about a customer, on both databases."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from models.enrichment.types import (
    AccountHealth,
    CustomerIntelligence,
    EngagementMetrics,
    Section,
    SubscriptionDetails,
    SupportHistory,
)
from models.errors import DeadlineExceeded, ProviderUnavailable, UnknownCustomer
from models.resilience.deadline import Deadline
from providers.base import ProviderResources
from providers.database import Database
from providers.registry import BUILT_IN, build_providers
from providers.tables import (
    Account,
    Contact,
    Conversation,
    Customer,
    Invoice,
    ProductEvent,
    Subscription,
    Table,
    Ticket,
)
from tests.fakes.enrichment import NOW

CUSTOMER = "customer_9"


def days(count: float) -> timedelta:
    return timedelta(days=count)


async def add(database: Database, *rows: Table) -> None:
    async with database.transaction() as session:
        for row in rows:  # in the order given, which is the order in which they refer to each other
            session.add(row)
            await session.flush()


async def add_customer(database: Database, *, health_score: int = 70, churn_risk: float = 0.2) -> None:
    await add(
        database,
        Account(
            account_id="acc_9",
            company_name="Müller & Söhne",
            industry="Dentistry",
            country="DE",
            domain="mueller.example.com",
            employees=9,
            created_at=NOW - days(400),
        ),
        Customer(
            customer_id=CUSTOMER,
            account_id="acc_9",
            lifecycle="new",
            health_score=health_score,
            churn_risk=churn_risk,
            customer_since=NOW - days(400),
            marketing_consent=False,
            updated_at=NOW,
        ),
    )


def subscription(number: int = 1, *, started: timedelta, **fields: Any) -> Subscription:
    values: dict[str, Any] = {
        "plan": "basic",
        "status": "active",
        "billing_cycle": "monthly",
        "seats_used": 2,
        "seats_total": 4,
        "mrr_cents": 4800,
        "currency": "EUR",
        "renewal_at": None,
        "trial_ends_at": None,
        "canceled_at": None,
    }
    return Subscription(
        subscription_id=f"sub_{number}", customer_id=CUSTOMER, started_at=NOW - started, **values | fields
    )


def invoice(*, status: str, due: datetime) -> Invoice:
    return Invoice(
        invoice_id=f"inv_{status}_{due:%m%d}",
        customer_id=CUSTOMER,
        subscription_id="sub_1",
        status=status,
        amount_cents=4800,
        currency="EUR",
        issued_at=due - days(14),
        due_at=due,
        paid_at=None,
    )


def used(
    name: str, *, ago: timedelta, feature: str | None = None, quantity: int = 1, by: str = "con_1"
) -> ProductEvent:
    return ProductEvent(
        customer_id=CUSTOMER, contact_id=by, name=name, feature=feature, quantity=quantity, at=NOW - ago
    )


def conversation(number: int, *, topic: str, csat: int | None) -> Conversation:
    return Conversation(
        conversation_id=f"cnv_{number}",
        customer_id=CUSTOMER,
        agent_id=None,
        channel="chat",
        topic=topic,
        resolved=True,
        csat=csat,
        started_at=NOW - days(number),
        ended_at=None,
    )


def ticket(number: int, status: str) -> Ticket:
    return Ticket(
        ticket_id=f"tck_{number}",
        customer_id=CUSTOMER,
        subject="",
        body="",
        channel="chat",
        priority="normal",
        reason="other",
        status=status,
        assignee_id=None,
        opened_at=NOW - days(1),
        closed_at=None,
    )


async def fetch(database: Database, name: str, customer_id: str = CUSTOMER) -> Section | None:
    [provider] = build_providers(ProviderResources(database=database, now=lambda: NOW), [name])
    return await provider.fetch(customer_id, deadline=Deadline.after(20))


async def test_a_customer_without_anything_else_has_a_profile_and_zeros(database: Database) -> None:
    await add_customer(database)
    profile = await fetch(database, "customer_intelligence")
    assert isinstance(profile, CustomerIntelligence)
    assert (profile.company_name, profile.plan, profile.mrr) == ("Müller & Söhne", "none", 0.0)
    assert profile.customer_since == NOW - days(400)
    assert await fetch(database, "subscription_details") is None
    support = await fetch(database, "support_history")
    assert support == SupportHistory(
        total_conversations=0, avg_csat=None, open_tickets=0, last_conversation_at=None, common_topics=()
    )
    usage = await fetch(database, "engagement_metrics")
    assert usage == EngagementMetrics(
        last_login_at=None,
        login_count_30d=0,
        most_used_features=(),
        feature_adoption_score=0.0,
        active_users_30d=0,
    )
    assert await fetch(database, "account_health") == AccountHealth(red_flags=(), yellow_flags=(), green_flags=())


async def test_nobody_else_is_a_customer(database: Database) -> None:
    await add_customer(database)
    for name in ("customer_intelligence", "account_health"):
        with pytest.raises(UnknownCustomer):
            await fetch(database, name, "customer_10")
    assert await fetch(database, "subscription_details", "customer_10") is None


async def test_the_newest_subscription_and_the_primary_contact_count(database: Database) -> None:
    await add_customer(database)
    await add(
        database,
        subscription(1, started=days(300), plan="basic", status="canceled"),
        subscription(2, started=days(10), plan="premium", mrr_cents=25_050, renewal_at=NOW + days(20)),
        *(
            Contact(
                contact_id=f"con_{name}",
                customer_id=CUSTOMER,
                name=name,
                email=f"{name}@example.com",
                role="owner",
                is_primary=name == "Ada",
                created_at=NOW,
            )
            for name in ("Bob", "Ada", "Cem")
        ),
    )
    profile = await fetch(database, "customer_intelligence")
    assert isinstance(profile, CustomerIntelligence)
    assert (profile.plan, profile.mrr, profile.currency) == ("premium", 250.5, "EUR")
    assert (profile.contact_name, profile.contact_email) == ("Ada", "Ada@example.com")
    plan = await fetch(database, "subscription_details")
    assert isinstance(plan, SubscriptionDetails)
    assert plan.renewal_at == NOW + days(20)
    assert not plan.payment_overdue


@pytest.mark.parametrize("status", ["canceled", "trialing"])
async def test_who_does_not_pay_brings_no_revenue(database: Database, status: str) -> None:
    await add_customer(database)
    await add(database, subscription(started=days(9), status=status))
    profile = await fetch(database, "customer_intelligence")
    assert isinstance(profile, CustomerIntelligence)
    assert profile.mrr == 0.0


@pytest.mark.parametrize(
    ("invoice_status", "due_in", "subscription_status", "overdue"),
    [
        ("open", days(-1), "active", True),
        ("open", days(1), "active", False),
        ("paid", days(-1), "active", False),
        ("void", days(-1), "past_due", True),
    ],
)
async def test_overdue_is_an_open_invoice_past_its_date(
    database: Database, invoice_status: str, due_in: timedelta, subscription_status: str, overdue: bool
) -> None:
    await add_customer(database)
    await add(
        database,
        subscription(started=days(90), status=subscription_status),
        invoice(status=invoice_status, due=NOW + due_in),
        used("login", ago=days(1)),
    )
    plan = await fetch(database, "subscription_details")
    assert isinstance(plan, SubscriptionDetails)
    assert plan.payment_overdue is overdue
    health = await fetch(database, "account_health")
    assert isinstance(health, AccountHealth)
    assert health.red_flags == (("Payment overdue",) if overdue else ())


async def test_only_the_last_thirty_days_of_use_count(database: Database) -> None:
    await add_customer(database)
    await add(
        database,
        used("login", ago=days(40), quantity=9, by="con_old"),
        used("login", ago=days(29), quantity=3),
        used("login", ago=days(2), by="con_2"),
        used("login", ago=-days(1), quantity=100),
        used("feature_used", ago=days(3), feature="Tasks", quantity=5),
        used("feature_used", ago=days(3), feature="Reports", quantity=2),
        used("feature_used", ago=days(9), feature="Reports", quantity=2),
        used("feature_used", ago=days(1), feature="Calendar", quantity=1),
        used("feature_used", ago=days(1), feature="Messages", quantity=1, by="con_3"),
        used("feature_used", ago=days(50), feature="Projects", quantity=99),
    )
    usage = await fetch(database, "engagement_metrics")
    assert usage == EngagementMetrics(
        last_login_at=NOW - days(2),
        login_count_30d=4,
        most_used_features=("Tasks", "Reports", "Calendar"),
        feature_adoption_score=0.5,
        active_users_30d=3,
    )


async def test_unrated_conversations_do_not_count_in_the_average(database: Database) -> None:
    await add_customer(database)
    await add(
        database,
        conversation(1, topic="billing", csat=None),
        conversation(2, topic="seats", csat=4),
        conversation(3, topic="seats", csat=3),
        conversation(4, topic="exports", csat=3),
        conversation(5, topic="api", csat=None),
        *(ticket(n, status) for n, status in enumerate(("open", "pending", "solved", "closed"))),
    )
    support = await fetch(database, "support_history")
    assert support == SupportHistory(
        total_conversations=5,
        avg_csat=3.33,
        open_tickets=2,
        last_conversation_at=NOW - days(1),
        common_topics=("seats", "api", "billing"),
    )


async def test_health_flags_follow_from_data(database: Database) -> None:
    await add_customer(database, health_score=30, churn_risk=0.45)
    await add(
        database,
        subscription(started=days(90), renewal_at=NOW + days(12), seats_used=4),
        *(conversation(n, topic="billing", csat=2) for n in range(1, 4)),
        *(ticket(n, "open") for n in range(3)),
        used("login", ago=days(20)),
    )
    assert await fetch(database, "account_health") == AccountHealth(
        red_flags=("Critical health score",),
        yellow_flags=(
            "Rising churn risk",
            "Renewal within 30 days at risk",
            "No login in the last 14 days",
            "Several open tickets",
            "Low CSAT scores",
        ),
        green_flags=("Seats almost used up - offer more",),
    )


async def test_a_database_without_tables_is_an_unavailable_source(empty_url: str) -> None:
    database = Database(empty_url, busy_timeout_s=2.0)
    for name in BUILT_IN:
        with pytest.raises(ProviderUnavailable):
            await fetch(database, name)
    await database.close()


async def test_a_removed_database_is_an_unavailable_source(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/gone.db")
    with pytest.raises(ProviderUnavailable):
        await fetch(database, "account_health")
    await database.close()


async def test_a_spent_deadline_is_said_as_such(database: Database) -> None:
    [provider] = build_providers(ProviderResources(database=database), ["account_health"])
    with pytest.raises(DeadlineExceeded):
        await provider.fetch(CUSTOMER, deadline=Deadline.after(0))
    await add_customer(database)  # the connection it gave up is not left broken
    assert await fetch(database, "account_health")


async def test_no_provider_scans_a_table(database: Database) -> None:
    if database.dialect != "sqlite":
        pytest.skip("PostgreSQL scans small tables on purpose; SQLite's plan tells whether an index fits")
    await add_customer(database)
    ran: list[tuple[str, Any]] = []
    engine = database._engine.sync_engine

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            ran.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    for name in BUILT_IN:
        before = len(ran)
        await fetch(database, name)
        assert len(ran) - before <= 2, f"{name} makes too many round trips"
    event.remove(engine, "before_cursor_execute", note)
    async with database.session() as session:
        connection = await session.connection()
        for statement, parameters in ran:
            plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            steps = [str(step) for *_, step in plan]
            assert not [step for step in steps if step.startswith("SCAN") and "CONSTANT" not in step], (
                statement,
                steps,
            )
