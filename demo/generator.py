"""Invents Medley's customers: coherent, reproducible, one at a time.

Three hidden traits drive everything one customer does. `fit` is how well the product suits the business, `engagement`
(correlated with fit) how much it is used, `trouble` how much goes wrong. Logins, features, tickets, ratings, late
payments, churn risk and health all follow from them, so they correlate as they do in life. Customer n depends on the
seed and n only: the first thousand of a million customers are the thousand customers of a smaller run.
"""

from __future__ import annotations

import math
import random
from datetime import datetime, timedelta

from demo import names
from demo.acme import ACME, acme_rows
from demo.history import add_history
from demo.nature import Nature, draw_nature, poisson, sigmoid
from demo.present import add_present
from demo.rows import Rows, order_id, row
from providers.tables import (
    Account,
    Agent,
    Contact,
    Conversation,
    Customer,
    Deal,
    EventName,
    Incident,
    Invoice,
    InvoiceStatus,
    Order,
    OrderItem,
    OrderStatus,
    ProductEvent,
    SecurityEvent,
    Subscription,
    SubscriptionStatus,
    Ticket,
    TicketStatus,
)

#: Raise it when the same seed no longer makes the same customers.
GENERATOR_VERSION = 2
AGENTS = 16
_MAX_LOGINS = 150


def company_rows(*, seed: int, now: datetime) -> Rows:
    """Medley's own rows: its agents and the product's incidents."""
    rng = random.Random(f"medley/{seed}/company")
    rows = Rows()
    for number in range(1, AGENTS + 1):
        team, skills = names.TEAMS[number % len(names.TEAMS)]
        first, last = rng.choice(names.FIRST_NAMES), rng.choice(names.LAST_NAMES)
        row(
            rows,
            Agent,
            agent_id=f"agt_{number}",
            name=f"{first} {last}",
            email=f"{first}.{last}.{number}@medley.example.com".lower(),
            team=team,
            status=rng.choice(("online", "online", "busy", "offline")),
            skills=list(skills),
            hired_at=now - timedelta(days=rng.randint(60, 2000)),
        )
    for number, (component, title, severity) in enumerate(names.INCIDENTS, 1):
        started_at = now - timedelta(days=9 * (number - 1), hours=3)
        ongoing = number == 1
        row(
            rows,
            Incident,
            incident_id=f"inc_{number}",
            component=component,
            title=title,
            severity=severity,
            status="monitoring" if ongoing else "resolved",
            started_at=started_at,
            resolved_at=None if ongoing else started_at + timedelta(minutes=rng.randint(20, 400)),
        )
    return rows


def customer_rows(number: int, *, seed: int, now: datetime) -> Rows:
    """Every row of `customer_<number>`, in an order that foreign keys allow; instants lie around `now`."""
    if number == ACME:
        return acme_rows(now=now)
    rng = random.Random(f"medley/{seed}/{number}")
    nature = draw_nature(rng)
    rows = Rows()
    _profile(rows, number, nature, rng, now)
    _billing(rows, number, nature, rng, now)
    _usage(rows, number, nature, rng, now)
    _orders(rows, number, nature, rng, now)
    _support(rows, number, nature, rng, now)
    _pipeline(rows, number, nature, rng, now)
    add_history(rows, number, nature, seed=seed, agents=AGENTS, now=now)
    add_present(rows, number, nature, seed=seed, agents=AGENTS, now=now)
    return rows


def gathered_rows(first: int, last: int, *, seed: int, now: datetime) -> Rows:
    """Rows of customers `first` to `last` (both included), gathered by table."""
    gathered = Rows()
    for number in range(first, last + 1):
        for table, made in customer_rows(number, seed=seed, now=now).items():
            gathered.setdefault(table, []).extend(made)
    return gathered


def _profile(rows: Rows, number: int, nature: Nature, rng: random.Random, now: datetime) -> None:
    industry, kind = rng.choice(names.BUSINESSES)
    company = f"{rng.choice(names.PLACES)} {rng.choice(names.PLACES)} {kind}"
    since = now - timedelta(days=nature.tenure_days, minutes=rng.randint(0, 1400))
    row(
        rows,
        Account,
        account_id=f"acc_{number}",
        company_name=company,
        industry=industry,
        country=rng.choice(names.COUNTRIES),
        domain=f"{company.lower().replace(' ', '-')}-{number}.example.com",
        employees=nature.seats_total + rng.randint(0, 2 * nature.seats_total),
        created_at=since,
    )
    health = 100 * (0.55 * (1 - nature.churn) + 0.45 * sigmoid(0.4 + nature.engagement - 0.5 * nature.trouble))
    row(
        rows,
        Customer,
        customer_id=f"customer_{number}",
        account_id=f"acc_{number}",
        lifecycle=_lifecycle(nature),
        health_score=max(0, min(100, round(health + rng.gauss(0, 3)))),
        churn_risk=round(min(0.99, max(0.01, nature.churn)), 2),
        customer_since=since,
        marketing_consent=rng.random() < 0.8,
        updated_at=now - timedelta(hours=rng.randint(1, 24)),
    )
    for position in range(min(nature.seats_used, 4)):
        first, last = rng.choice(names.FIRST_NAMES), rng.choice(names.LAST_NAMES)
        row(
            rows,
            Contact,
            contact_id=f"con_{number}_{position + 1}",
            customer_id=f"customer_{number}",
            name=f"{first} {last}",
            email=f"{first}.{last}.{number}@example.com".lower(),
            role=("owner", "manager", "assistant", "assistant")[position],
            is_primary=position == 0,
            created_at=since + timedelta(days=position),
        )


def _lifecycle(nature: Nature) -> str:
    if nature.left:
        return "churned"
    if nature.trialing:
        return "trial"
    if nature.tenure_days < 60:
        return "onboarding"
    if nature.churn > 0.5:
        return "at_risk"
    return "growing" if nature.engagement > 1 else "active"


def _billing(rows: Rows, number: int, nature: Nature, rng: random.Random, now: datetime) -> None:
    annual = not nature.trialing and rng.random() < 0.35
    monthly_cents = nature.seats_total * nature.seat_cents
    started_at = now - timedelta(days=nature.tenure_days)
    ends_at = now + timedelta(days=14 - nature.tenure_days, hours=5)
    renewal_at = now + timedelta(days=rng.randint(1, 365 if annual else 30), hours=rng.randint(0, 12))
    status = SubscriptionStatus.PAST_DUE if nature.overdue else SubscriptionStatus.ACTIVE
    if nature.trialing:
        status = SubscriptionStatus.TRIALING
    if nature.left:
        status = SubscriptionStatus.CANCELED
    row(
        rows,
        Subscription,
        subscription_id=f"sub_{number}",
        customer_id=f"customer_{number}",
        plan=nature.plan,
        status=status.value,
        billing_cycle="annual" if annual else "monthly",
        seats_used=nature.seats_used,
        seats_total=nature.seats_total,
        mrr_cents=0 if nature.trialing or nature.left else monthly_cents,
        currency="USD",
        started_at=started_at,
        renewal_at=None if nature.trialing or nature.left else renewal_at,
        trial_ends_at=ends_at if nature.trialing else None,
        canceled_at=None if nature.left_days_ago is None else now - timedelta(days=nature.left_days_ago),
    )
    period = 365 if annual else 30
    for back in range(0 if nature.trialing else min(6, nature.tenure_days // period + 1)):
        age_days = min(nature.tenure_days, 20 + back * period)
        issued_at = now - timedelta(days=age_days)
        late = nature.overdue and back == 0
        due_at = issued_at + timedelta(days=14)
        paid_at = None if late or due_at > now else due_at - timedelta(days=rng.randint(0, 10))
        if age_days < (nature.left_days_ago or 0):
            continue  # nobody is billed after leaving
        row(
            rows,
            Invoice,
            invoice_id=f"inv_{number}_{back + 1}",
            customer_id=f"customer_{number}",
            subscription_id=f"sub_{number}",
            status=(InvoiceStatus.OPEN if late or due_at > now else InvoiceStatus.PAID).value,
            amount_cents=monthly_cents * (12 if annual else 1),
            currency="USD",
            issued_at=issued_at,
            due_at=due_at,
            paid_at=paid_at,
        )


def _usage(rows: Rows, number: int, nature: Nature, rng: random.Random, now: datetime) -> None:
    contacts = min(nature.seats_used, 4)

    def event(name: EventName, ago: timedelta, feature: str | None = None, quantity: int = 1) -> None:
        row(
            rows,
            ProductEvent,
            customer_id=f"customer_{number}",
            contact_id=f"con_{number}_{rng.randint(1, contacts)}",
            name=name.value,
            feature=feature,
            quantity=quantity,
            at=now - ago,
        )

    window = min(30, nature.tenure_days)
    logins = min(_MAX_LOGINS, poisson(rng, math.exp(2.5 + 0.75 * nature.engagement) * window / 30))
    if logins == 0 or nature.left_days_ago is not None:
        quiet_days = min(31, nature.tenure_days) if nature.left_days_ago is None else nature.left_days_ago
        event(EventName.LOGIN, timedelta(days=quiet_days, minutes=rng.randint(1, 600)))
        return
    for _ in range(logins):
        event(EventName.LOGIN, timedelta(minutes=rng.randint(20, window * 1440 - 60)))
    used = max(1, min(len(names.FEATURES), round(8 * sigmoid(0.9 * nature.engagement) + rng.gauss(0, 0.8))))
    for rank, feature in enumerate(rng.sample(names.FEATURES, used), 1):
        for _ in range(2):
            quantity = 1 + logins // (2 * rank)
            event(EventName.FEATURE_USED, timedelta(minutes=rng.randint(20, window * 1440 - 60)), feature, quantity)


def _orders(rows: Rows, number: int, nature: Nature, rng: random.Random, now: datetime) -> None:
    count = min(12, 1 + poisson(rng, math.exp(0.5 + 0.35 * nature.engagement + 0.01 * nature.seats_total)))
    newest_days = rng.expovariate(1 / (25 * math.exp(-0.6 * nature.engagement)))
    span = max(1.0, min(365.0, nature.tenure_days))
    for position in range(count):
        later = rng.random() * max(0.0, span - newest_days) if position else 0.0
        age_days = min(span, newest_days + later)
        placed_at = now - timedelta(days=age_days)
        status = _order_status(age_days, rng)
        sent = status in (OrderStatus.SHIPPED, OrderStatus.DELIVERED, OrderStatus.RETURNED)
        carrier, prefix = rng.choice(names.CARRIERS)
        patient = rng.random() < 0.6
        items = rng.sample(names.PRODUCTS, rng.randint(1, 4))
        quantities = [rng.randint(1, 2 if patient else 12) for _ in items]
        row(
            rows,
            Order,
            order_id=order_id(number, position),
            customer_id=f"customer_{number}",
            status=status.value,
            total_cents=sum(cents * amount for (_, _, cents), amount in zip(items, quantities, strict=True)),
            currency="USD",
            patient_name=f"{rng.choice(names.FIRST_NAMES)} {rng.choice(names.LAST_NAMES)}" if patient else None,
            carrier=carrier if sent else None,
            tracking_number=f"{prefix}{rng.randrange(10**12):012d}" if sent else None,
            placed_at=placed_at,
            shipped_at=placed_at + timedelta(days=1) if sent else None,
            delivered_at=placed_at + timedelta(days=4) if sent and status is not OrderStatus.SHIPPED else None,
        )
        for line, ((sku, name, cents), amount) in enumerate(zip(items, quantities, strict=True), 1):
            row(
                rows,
                OrderItem,
                order_id=order_id(number, position),
                line=line,
                sku=sku,
                name=name,
                quantity=amount,
                unit_price_cents=cents,
            )


def _order_status(age_days: float, rng: random.Random) -> OrderStatus:
    if rng.random() < 0.04:
        return OrderStatus.CANCELLED
    if age_days < 0.5:
        return OrderStatus.PLACED
    if age_days < 1.2:
        return OrderStatus.PACKED
    if age_days < 4.5:
        return OrderStatus.SHIPPED
    return OrderStatus.RETURNED if rng.random() < 0.05 else OrderStatus.DELIVERED


def _support(rows: Rows, number: int, nature: Nature, rng: random.Random, now: datetime) -> None:
    span = min(365, nature.tenure_days)
    talks = min(40, poisson(rng, math.exp(1.3 + 0.4 * nature.trouble + 0.2 * nature.engagement) * (0.3 + span / 365)))
    pleasure = 4.1 + 0.45 * nature.fit - 0.5 * nature.trouble
    favourites = rng.sample(names.TOPICS, 3)
    for position in range(talks):
        topic, _ = favourites[min(2, int(rng.expovariate(1)))]
        started_at = now - timedelta(minutes=rng.randint(60, span * 1440))
        mood = pleasure + rng.gauss(0, 0.7)
        row(
            rows,
            Conversation,
            conversation_id=f"cnv_{number}_{position + 1}",
            customer_id=f"customer_{number}",
            agent_id=f"agt_{rng.randint(1, AGENTS)}",
            channel=rng.choice(names.CHANNELS),
            topic=topic,
            resolved=mood > 2.5,
            csat=max(1, min(5, round(mood))) if rng.random() < 0.7 else None,
            started_at=started_at,
            ended_at=started_at + timedelta(minutes=rng.randint(3, 45)),
        )
    tickets = min(15, poisson(rng, math.exp(0.1 - 0.45 * nature.fit + 0.6 * nature.trouble) * (0.3 + span / 365)))
    for position in range(tickets):
        topic, subject = rng.choice(favourites)
        opened_at = now - timedelta(minutes=rng.randint(30, span * 1440))
        still_open = rng.random() < sigmoid(-1.6 + 0.7 * nature.trouble)
        row(
            rows,
            Ticket,
            ticket_id=f"tck_{number}_{position + 1}",
            customer_id=f"customer_{number}",
            subject=subject,
            body=f"{subject}. Please have a look.",
            channel=rng.choice(names.CHANNELS),
            priority=rng.choice(("low", "normal", "normal", "high")),
            reason=topic,
            status=(TicketStatus.OPEN if still_open else TicketStatus.CLOSED).value,
            assignee_id=f"agt_{rng.randint(1, AGENTS)}",
            opened_at=opened_at,
            closed_at=None if still_open else min(now, opened_at + timedelta(hours=rng.randint(1, 96))),
        )


def _pipeline(rows: Rows, number: int, nature: Nature, rng: random.Random, now: datetime) -> None:
    if rng.random() < sigmoid(-1.3 + 0.5 * nature.engagement):
        stage, probability = rng.choice((("qualified", 0.2), ("proposal", 0.5), ("negotiation", 0.7), ("won", 1.0)))
        opened_at = now - timedelta(days=rng.randint(1, max(1, min(120, nature.tenure_days))))
        row(
            rows,
            Deal,
            deal_id=f"del_{number}",
            customer_id=f"customer_{number}",
            name=rng.choice(("More seats", "Annual billing", "Enterprise plan", "Inventory add-on")),
            stage=stage,
            amount_cents=nature.seat_cents * rng.randint(2, 40) * 12,
            currency="USD",
            probability=probability,
            opened_at=opened_at,
            expected_close_at=now + timedelta(days=rng.randint(5, 90)),
            closed_at=now - timedelta(hours=rng.randint(1, 20)) if stage == "won" else None,
        )
    if rng.random() < 0.15:
        kind, severity, detail = rng.choice(names.SECURITY_EVENTS)
        at = now - timedelta(minutes=rng.randint(60, min(60, nature.tenure_days) * 1440))
        row(
            rows,
            SecurityEvent,
            event_id=f"sec_{number}",
            customer_id=f"customer_{number}",
            kind=kind,
            severity=severity,
            detail=detail,
            at=at,
            resolved_at=at + timedelta(minutes=50) if rng.random() < 0.8 else None,
        )
