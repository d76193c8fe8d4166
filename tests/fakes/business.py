"""Rows of the company's business for tests that put them into a real database, told relative to `NOW`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from providers.database import Database
from providers.table_types import Table
from providers.tables import (
    Account,
    Agent,
    Contact,
    Conversation,
    Customer,
    Deal,
    Incident,
    Invoice,
    ProductEvent,
    SecurityEvent,
    Subscription,
    Ticket,
)
from tests.fakes.enrichment import NOW

CUSTOMER = "customer_9"


def days(count: float) -> timedelta:
    return timedelta(days=count)


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


async def add(database: Database, *rows: Table) -> None:
    async with database.transaction() as session:
        for row in rows:  # in the order given, which is the order in which they refer to each other
            session.add(row)
            await session.flush()


async def add_customer(
    database: Database, customer_id: str = CUSTOMER, *, health_score: int = 70, churn_risk: float = 0.2
) -> None:
    await add(
        database,
        Account(
            account_id=f"acc_{customer_id}",
            company_name="Müller & Söhne",
            industry="Dentistry",
            country="DE",
            domain="mueller.example.com",
            employees=9,
            created_at=NOW - days(400),
        ),
        Customer(
            customer_id=customer_id,
            account_id=f"acc_{customer_id}",
            lifecycle="new",
            health_score=health_score,
            churn_risk=churn_risk,
            customer_since=NOW - days(400),
            marketing_consent=False,
            updated_at=NOW,
        ),
    )


def contact(name: str, *, of: str = CUSTOMER, primary: bool = False) -> Contact:
    return Contact(
        contact_id=f"con_{of}_{name}",
        customer_id=of,
        name=name,
        email=f"{name}@example.com",
        role="owner",
        is_primary=primary,
        created_at=NOW,
    )


def subscription(number: int = 1, *, started: timedelta, of: str = CUSTOMER, **fields: Any) -> Subscription:
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
    key = f"sub_{number}" if of == CUSTOMER else f"sub_{of}_{number}"
    return Subscription(subscription_id=key, customer_id=of, started_at=NOW - started, **values | fields)


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
    name: str,
    *,
    ago: timedelta,
    feature: str | None = None,
    quantity: int = 1,
    by: str = "con_1",
    of: str = CUSTOMER,
) -> ProductEvent:
    return ProductEvent(customer_id=of, contact_id=by, name=name, feature=feature, quantity=quantity, at=NOW - ago)


def conversation(
    number: int,
    *,
    topic: str = "billing",
    csat: int | None = None,
    ago: timedelta | None = None,
    lasted: timedelta | None = None,
    agent: str | None = None,
    resolved: bool = True,
    of: str | None = CUSTOMER,
) -> Conversation:
    started_at = NOW - (days(number) if ago is None else ago)
    return Conversation(
        conversation_id=f"cnv_{of}_{number}",
        customer_id=of,
        agent_id=agent,
        channel="chat",
        topic=topic,
        resolved=resolved,
        csat=csat,
        started_at=started_at,
        ended_at=None if lasted is None else started_at + lasted,
    )


def ticket(number: int, status: str, *, of: str = CUSTOMER) -> Ticket:
    return Ticket(
        ticket_id=f"tck_{of}_{number}",
        customer_id=of,
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


def deal(number: int, stage: str, *, of: str = CUSTOMER, **fields: Any) -> Deal:
    values: dict[str, Any] = {
        "name": "More seats",
        "amount_cents": 1000_00,
        "currency": "EUR",
        "probability": 0.5,
        "opened_at": NOW - days(10),
        "expected_close_at": None,
        "closed_at": None,
    }
    return Deal(deal_id=f"del_{of}_{number}", customer_id=of, stage=stage, **values | fields)


def security_event(
    number: int,
    *,
    ago: timedelta,
    severity: str = "low",
    resolved_after: timedelta | None = None,
    of: str = CUSTOMER,
) -> SecurityEvent:
    at = NOW - ago
    return SecurityEvent(
        event_id=f"sec_{of}_{number}",
        customer_id=of,
        kind=f"kind_{number}",
        severity=severity,
        detail=f"detail {number}",
        at=at,
        resolved_at=None if resolved_after is None else at + resolved_after,
    )


def incident(number: int, severity: str, *, ago: timedelta, lasted: timedelta | None = None) -> Incident:
    started_at = NOW - ago
    return Incident(
        incident_id=f"inc_{number}",
        component="calendar",
        title=f"incident {number}",
        severity=severity,
        status="monitoring" if lasted is None else "resolved",
        started_at=started_at,
        resolved_at=None if lasted is None else started_at + lasted,
    )


def agent(number: int, status: str) -> Agent:
    return Agent(
        agent_id=f"agt_{number}",
        name="Kim Ray",
        email=f"kim.{number}@medley.example.com",
        team="support",
        status=status,
        skills=[],
        hired_at=NOW - days(100),
    )
