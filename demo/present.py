"""What else is there to see of a demo customer today: deals of the past, security events, and people at work.

It has random numbers of its own, so that the rest of a customer does not depend on it.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from demo import names
from demo.nature import Nature, sigmoid
from demo.rows import Rows, row
from providers.tables import Conversation, Deal, DealStage, EventName, ProductEvent, SecurityEvent

_DEALS = ("More seats", "Annual billing", "Enterprise plan", "Inventory add-on")
#: One customer in so many talks to an agent at this moment, up to a number that the agents can bear.
_TALKING, _LAST_TALKING = 160, 1600


def add_present(rows: Rows, number: int, nature: Nature, *, seed: int, agents: int, now: datetime) -> None:
    """Add to the present of `customer_<number>`."""
    rng = random.Random(f"medley/{seed}/{number}/present")
    _closed_deals(rows, number, nature, rng, now)
    _security(rows, number, nature, rng, now)
    if not nature.left:
        _people_at_work(rows, number, nature, rng, now)
    if number % _TALKING == 7 and number <= _LAST_TALKING:
        row(
            rows,
            Conversation,
            conversation_id=f"cnv_{number}_now",
            customer_id=f"customer_{number}",
            agent_id=f"agt_{rng.randint(1, agents)}",
            channel=rng.choice(names.CHANNELS),
            topic=rng.choice(names.TOPICS)[0],
            resolved=False,
            csat=None,
            started_at=now - timedelta(minutes=rng.randint(1, 20)),
            ended_at=None,
        )


def _closed_deals(rows: Rows, number: int, nature: Nature, rng: random.Random, now: datetime) -> None:
    """The sale that began it all, unless it is still a trial, and later offers, taken or not."""
    if nature.trialing:
        return
    for position in range(1 + (rng.random() < 0.4)):
        age_days = nature.tenure_days if position == 0 else rng.uniform(0.1, 0.9) * nature.tenure_days
        closed_at = now - timedelta(days=age_days)
        won = position == 0 or rng.random() < sigmoid(nature.fit)
        row(
            rows,
            Deal,
            deal_id=f"del_{number}_past_{position + 1}",
            customer_id=f"customer_{number}",
            name="New customer" if position == 0 else rng.choice(_DEALS),
            stage=(DealStage.WON if won else DealStage.LOST).value,
            amount_cents=nature.seat_cents * nature.seats_total * 12,
            currency="USD",
            probability=1.0 if won else 0.0,
            opened_at=closed_at - timedelta(days=rng.randint(3, 60)),
            expected_close_at=closed_at,
            closed_at=closed_at,
        )


def _security(rows: Rows, number: int, nature: Nature, rng: random.Random, now: datetime) -> None:
    """Most customers see something harmless within three months; larger ones more of it."""
    for position in range(rng.choice((0, 1, 1, 2)) + (nature.seats_total > 15)):
        kind, severity, detail = rng.choices(names.SECURITY_EVENTS, weights=(6, 3, 2, 2, 1))[0]
        at = now - timedelta(minutes=rng.randint(30, min(85, nature.tenure_days) * 1440))
        row(
            rows,
            SecurityEvent,
            event_id=f"sec_{number}_{position + 1}",
            customer_id=f"customer_{number}",
            kind=kind,
            severity=severity,
            detail=detail,
            at=at,
            resolved_at=at + timedelta(minutes=rng.randint(2, 29)) if rng.random() < 0.85 else None,
        )


def _people_at_work(rows: Rows, number: int, nature: Nature, rng: random.Random, now: datetime) -> None:
    """Who uses the product much is likely to use it right now."""
    if rng.random() > 0.5 * sigmoid(nature.engagement):
        return
    for _ in range(rng.randint(1, 3)):
        contact = rng.randint(1, min(nature.seats_used, 4))
        row(
            rows,
            ProductEvent,
            customer_id=f"customer_{number}",
            contact_id=f"con_{number}_{contact}",
            name=EventName.LOGIN.value,
            feature=None,
            quantity=1,
            at=now - timedelta(seconds=rng.randint(20, 50 * 60)),
        )
