"""Acme Corp, the customer of the documents: `customer_123` reads as documented on the day it is made."""

from __future__ import annotations

from datetime import datetime, time, timedelta

from demo.names import FEATURES
from demo.rows import Rows, order_id, row
from providers.tables import (
    Account,
    Contact,
    Conversation,
    Customer,
    Deal,
    Invoice,
    Order,
    OrderItem,
    ProductEvent,
    Subscription,
    Ticket,
)

#: The number of Acme among the demo customers.
ACME = 123
_ID = f"customer_{ACME}"
_PEOPLE = (("Jordan Blake", "owner"), ("Robin Vale", "manager"), ("Sam Okoro", "assistant"))
_LOGINS = 45
_RATINGS = (5, 4, 5, 4, 5, 4, 5, 4, 5, 4, 5, 4)
_TOPICS = ("billing", "seats", "exports", "billing", "seats", "billing")


def acme_rows(*, now: datetime) -> Rows:
    """Every row of Acme; days are counted between dates, so that they read the same at any hour of the day."""
    rows = Rows()
    midnight = datetime.combine(now.date(), time(), tzinfo=now.tzinfo)
    since = midnight - timedelta(days=152)
    _profile(rows, since=since, now=now)
    _billing(rows, since=since, midnight=midnight)
    _usage(rows, midnight=midnight)
    _orders(rows, midnight=midnight)
    _support(rows, midnight=midnight)
    return rows


def _profile(rows: Rows, *, since: datetime, now: datetime) -> None:
    row(
        rows,
        Account,
        account_id=f"acc_{ACME}",
        company_name="Acme Corp",
        industry="Technology",
        country="US",
        domain="acme.example.com",
        employees=34,
        created_at=since,
    )
    row(
        rows,
        Customer,
        customer_id=_ID,
        account_id=f"acc_{ACME}",
        lifecycle="growing",
        health_score=85,
        churn_risk=0.15,
        customer_since=since,
        marketing_consent=True,
        updated_at=now,
    )
    for position, (name, role) in enumerate(_PEOPLE, 1):
        row(
            rows,
            Contact,
            contact_id=f"con_{ACME}_{position}",
            customer_id=_ID,
            name=name,
            email=f"{name.lower().replace(' ', '.')}@example.com",
            role=role,
            is_primary=position == 1,
            created_at=since,
        )


def _billing(rows: Rows, *, since: datetime, midnight: datetime) -> None:
    row(
        rows,
        Subscription,
        subscription_id=f"sub_{ACME}",
        customer_id=_ID,
        plan="premium",
        status="active",
        billing_cycle="monthly",
        seats_used=8,
        seats_total=10,
        mrr_cents=250_00,
        currency="USD",
        started_at=since,
        renewal_at=midnight + timedelta(days=29, seconds=-1),
        trial_ends_at=None,
        canceled_at=None,
    )
    for back in range(5):
        issued_at = midnight - timedelta(days=2 + 30 * back)
        row(
            rows,
            Invoice,
            invoice_id=f"inv_{ACME}_{back + 1}",
            customer_id=_ID,
            subscription_id=f"sub_{ACME}",
            status="paid",
            amount_cents=250_00,
            currency="USD",
            issued_at=issued_at,
            due_at=issued_at + timedelta(days=14),
            paid_at=issued_at + timedelta(days=1),
        )
    row(
        rows,
        Deal,
        deal_id=f"del_{ACME}",
        customer_id=_ID,
        name="Enterprise plan",
        stage="proposal",
        amount_cents=4_680_00,
        currency="USD",
        probability=0.5,
        opened_at=midnight - timedelta(days=12),
        expected_close_at=midnight + timedelta(days=30),
        closed_at=None,
    )


def _usage(rows: Rows, *, midnight: datetime) -> None:
    last = midnight - timedelta(days=1) + timedelta(hours=14, minutes=32)
    for position in range(_LOGINS):
        at = last - timedelta(days=position * 28 // _LOGINS, minutes=7 * (position % 5))
        row(
            rows,
            ProductEvent,
            customer_id=_ID,
            contact_id=f"con_{ACME}_{position % len(_PEOPLE) + 1}",
            name="login",
            feature=None,
            quantity=1,
            at=at,
        )
    for rank, feature in enumerate(FEATURES[:6]):
        row(
            rows,
            ProductEvent,
            customer_id=_ID,
            contact_id=f"con_{ACME}_1",
            name="feature_used",
            feature=feature,
            quantity=60 - 10 * rank,
            at=last - timedelta(days=rank, minutes=-10),
        )


def _orders(rows: Rows, *, midnight: datetime) -> None:
    wares = (
        ("MED-301", "Nitrile gloves, box of 100", 4, 1250),
        ("MED-302", "Disinfectant wipes", 6, 690),
    )
    for position, (status, days_ago, tracking) in enumerate(
        (("shipped", 2, "1Z999AA10123784"), ("delivered", 20, "1Z999AA10124785"), ("delivered", 75, "1Z999AA10125786"))
    ):
        placed_at = midnight - timedelta(days=days_ago) + timedelta(hours=9, minutes=15)
        row(
            rows,
            Order,
            order_id=order_id(ACME, position),
            customer_id=_ID,
            status=status,
            total_cents=sum(amount * cents for _, _, amount, cents in wares),
            currency="USD",
            patient_name=None,
            carrier="UPS",
            tracking_number=tracking,
            placed_at=placed_at,
            shipped_at=placed_at + timedelta(hours=8),
            delivered_at=placed_at + timedelta(days=3) if status == "delivered" else None,
        )
        for line, (sku, name, amount, cents) in enumerate(wares, 1):
            row(
                rows,
                OrderItem,
                order_id=order_id(ACME, position),
                line=line,
                sku=sku,
                name=name,
                quantity=amount,
                unit_price_cents=cents,
            )


def _support(rows: Rows, *, midnight: datetime) -> None:
    for position, csat in enumerate(_RATINGS):
        started_at = midnight - timedelta(days=5 + 11 * position) + timedelta(hours=10)
        row(
            rows,
            Conversation,
            conversation_id=f"cnv_{ACME}_{position + 1}",
            customer_id=_ID,
            agent_id=f"agt_{position % 4 + 1}",
            channel="chat",
            topic=_TOPICS[position % len(_TOPICS)],
            resolved=True,
            csat=csat,
            started_at=started_at,
            ended_at=started_at + timedelta(minutes=12),
        )
    row(
        rows,
        Ticket,
        ticket_id=f"tck_{ACME}_1",
        customer_id=_ID,
        subject="Export of last quarter stops half-way",
        body="The CSV export of the last quarter ends after about 2,000 lines.",
        channel="chat",
        priority="normal",
        reason="exports",
        status="open",
        assignee_id="agt_1",
        opened_at=midnight - timedelta(days=1) + timedelta(hours=15),
        closed_at=None,
    )
