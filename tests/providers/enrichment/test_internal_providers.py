"""The internal providers tell the truth about a customer, on both databases."""

from __future__ import annotations

from datetime import timedelta, timezone
from pathlib import Path

import pytest

from models.enrichment.types import (
    AccountHealth,
    CustomerIntelligence,
    EngagementMetrics,
    FeatureUsage,
    SalesPipeline,
    Section,
    SecurityContext,
    SubscriptionDetails,
    SupportHistory,
)
from models.errors import DeadlineExceeded, ProviderUnavailable, UnknownCustomer
from models.resilience.deadline import Deadline
from providers.base import ProviderResources
from providers.database import Database
from providers.registry import BUILT_IN, build_providers
from tests.fakes.business import (
    CUSTOMER,
    add,
    add_customer,
    contact,
    conversation,
    days,
    deal,
    invoice,
    security_event,
    subscription,
    ticket,
    used,
)
from tests.fakes.enrichment import NOW

INTERNAL = tuple(name for name, target in BUILT_IN.items() if target.startswith("providers.internal."))


async def fetch(database: Database, name: str, customer_id: str = CUSTOMER) -> Section | None:
    [provider] = build_providers(ProviderResources(database=database, now=lambda: NOW), [name])
    return await provider.fetch(customer_id, deadline=Deadline.after(20), known={})


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
        *(contact(name, primary=name == "Ada") for name in ("Bob", "Ada", "Cem")),
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


async def test_the_pipeline_counts_open_deals_and_remembers_the_others(database: Database) -> None:
    await add_customer(database)
    assert await fetch(database, "sales_pipeline") is None
    await add(
        database,
        deal(1, "negotiation", amount_cents=1000_50, probability=0.7, expected_close_at=NOW - days(1)),
        deal(2, "qualified", amount_cents=200_00, probability=0.2, expected_close_at=NOW),
        deal(3, "proposal", amount_cents=999_00, currency="USD", expected_close_at=NOW + days(3)),
        deal(4, "won", amount_cents=500_00, closed_at=NOW - days(2)),
        deal(5, "lost", expected_close_at=NOW + days(1), closed_at=NOW),
        deal(6, "hesitation", amount_cents=1, probability=0.0),
        deal(7, "negotiation", opened_at=NOW + days(1)),
    )
    assert await fetch(database, "sales_pipeline") == SalesPipeline(
        open_deals=4,
        open_amount=1200.51,
        weighted_amount=740.35,
        currency="EUR",
        furthest_stage="negotiation",
        next_close_at=NOW,
        won_deals=1,
        lost_deals=1,
    )


async def test_who_only_lost_deals_has_a_pipeline_of_zeros(database: Database) -> None:
    await add_customer(database)
    await add(database, deal(1, "lost", currency="CHF"))
    assert await fetch(database, "sales_pipeline") == SalesPipeline(
        open_deals=0,
        open_amount=0.0,
        weighted_amount=0.0,
        currency="CHF",
        furthest_stage=None,
        next_close_at=None,
        won_deals=0,
        lost_deals=1,
    )


async def test_features_are_taken_up_and_given_up(database: Database) -> None:
    await add_customer(database)
    offered = ("Projects", "Tasks", "Reports", "Calendar", "Invoicing", "Messages", "Inventory", "Reminders")
    empty = FeatureUsage(
        uses_30d=0, uses_previous_30d=0, change=None, used=(), adopted=(), dropped=(), never_used=offered
    )
    assert await fetch(database, "feature_usage") == empty
    instant = timedelta(microseconds=1)
    await add(
        database,
        used("feature_used", ago=days(30), feature="Tasks", quantity=2),
        used("feature_used", ago=days(30) + instant, feature="Tasks", quantity=4),
        used("feature_used", ago=days(60), feature="Reports", quantity=4),
        used("feature_used", ago=days(60) + instant, feature="Calendar", quantity=9),
        used("feature_used", ago=days(0), feature="Exports", quantity=7, by="con_2"),
        used("feature_used", ago=-instant, feature="Messages"),
        used("login", ago=days(1)),
    )
    assert await fetch(database, "feature_usage") == FeatureUsage(
        uses_30d=9,
        uses_previous_30d=8,
        change=0.12,
        used=("Exports", "Tasks"),
        adopted=("Exports",),
        dropped=("Reports",),
        never_used=("Projects", "Invoicing", "Messages", "Inventory", "Reminders"),
    )


async def test_security_is_what_is_open_and_what_came_last(database: Database) -> None:
    await add_customer(database)
    quiet = SecurityContext(
        open_events=0,
        events_90d=0,
        highest_open_severity=None,
        last_event_at=None,
        last_event_kind=None,
        last_event_detail="",
    )
    assert await fetch(database, "security_context") == quiet
    await add(
        database,
        security_event(1, ago=days(91), severity="critical"),
        security_event(2, ago=days(90), severity="low"),
        security_event(3, ago=days(20), severity="high", resolved_after=days(20)),
        security_event(4, ago=days(9), severity="medium", resolved_after=days(10)),
        security_event(5, ago=days(2), severity="critical", resolved_after=days(1)),
        security_event(6, ago=-days(1), severity="critical"),
    )
    assert await fetch(database, "security_context") == SecurityContext(
        open_events=2,
        events_90d=4,
        highest_open_severity="medium",
        last_event_at=NOW - days(2),
        last_event_kind="kind_5",
        last_event_detail="detail 5",
    )


async def test_the_answer_does_not_depend_on_the_time_zone_of_the_clock(database: Database) -> None:
    await add_customer(database)
    await add(
        database,
        subscription(started=days(90)),
        invoice(status="open", due=NOW - timedelta(seconds=1)),
        used("login", ago=days(30)),
        used("login", ago=-timedelta(seconds=1)),
        used("feature_used", ago=days(30), feature="Tasks"),
        security_event(1, ago=days(90)),
        deal(1, "proposal", expected_close_at=NOW),
    )
    tokyo = NOW.astimezone(timezone(timedelta(hours=9)))
    resources = [ProviderResources(database=database, now=lambda now=now: now) for now in (NOW, tokyo)]  # type: ignore[misc]  # a default argument binds each
    for name in INTERNAL:
        here, there = [
            await build_providers(one, [name])[0].fetch(CUSTOMER, deadline=Deadline.after(20), known={})
            for one in resources
        ]
        assert here == there
    usage = await fetch(database, "engagement_metrics")
    assert isinstance(usage, EngagementMetrics)
    assert (usage.login_count_30d, usage.last_login_at) == (1, NOW - days(30))


async def test_a_database_without_tables_is_an_unavailable_source(empty_url: str) -> None:
    database = Database(empty_url, busy_timeout_s=2.0)
    for name in INTERNAL:
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
        await provider.fetch(CUSTOMER, deadline=Deadline.after(0), known={})
    await add_customer(database)  # the connection it gave up is not left broken
    assert await fetch(database, "account_health")
