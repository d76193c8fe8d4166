"""What a demo customer did before the last weeks: two years of use, support, bills and outreach.

It has random numbers of its own, so that the present of a customer does not depend on how the past is told. Use falls
and trouble rises before a customer leaves, but not always, and others have quiet weeks too: the past announces who
leaves without giving it away. A row of past logins stands for some days: its instant is that of the last, its quantity
their count.
"""

from __future__ import annotations

import math
import random
from datetime import datetime, timedelta

from demo import names
from demo.nature import Nature, poisson, sigmoid
from demo.rows import Rows, row
from providers.tables import (
    Conversation,
    EventName,
    Invoice,
    InvoiceStatus,
    Outreach,
    ProductEvent,
    Subscription,
    Ticket,
    TicketStatus,
)

HISTORY_DAYS = 730
#: A row of past use stands for this long; four of them make the month by which training steps back.
_BLOCK_DAYS = 7.5
#: The present is told event by event; before it begins the past.
_PRESENT_DAYS = 30
_SUPPORT_TOLD_DAYS = 365
#: How long before leaving it shows.
_FAREWELL_DAYS = 70
#: Outreach whose fruit nobody can know yet.
_UNDECIDED_DAYS = 30
_ACTIONS = ("none", "training_session", "renewal_call", "upgrade_offer", "billing_help", "referral_ask")
_ACTIONS_AFTER_LEAVING = ("none", "win_back")


def add_history(rows: Rows, number: int, nature: Nature, *, seed: int, agents: int, now: datetime) -> None:
    """Add the past of `customer_<number>` to its present."""
    if nature.trialing:
        return
    past = _Past(number, nature, random.Random(f"medley/{seed}/{number}/history"), now)
    past.use(rows)
    past.earlier_features(rows)
    past.support(rows, agents)
    past.bills(rows)
    past.outreach(rows)


class _Past:
    """Draws the past of one customer; ages are days before `now`."""

    def __init__(self, number: int, nature: Nature, rng: random.Random, now: datetime) -> None:
        self._number = number
        self._customer_id = f"customer_{number}"
        self._nature = nature
        self._rng = rng
        self._now = now
        self._since = min(HISTORY_DAYS, nature.tenure_days)
        self._until = nature.left_days_ago or 0.0
        self._farewell = rng.random() < 0.7
        self._quiet = [
            (start, start + rng.uniform(21, 56), rng.uniform(0.2, 0.7))
            for start in (rng.uniform(0, HISTORY_DAYS) for _ in range(poisson(rng, HISTORY_DAYS / 700)))
        ]

    def use(self, rows: Rows) -> None:
        contacts = min(self._nature.seats_used, 4)
        daily = math.exp(2.5 + 0.75 * self._nature.engagement) / 30
        first = self._until if self._nature.left else float(_PRESENT_DAYS)
        block = math.floor(first / _BLOCK_DAYS) * _BLOCK_DAYS
        while block < self._since:
            start, end = max(block, first), min(block + _BLOCK_DAYS, float(self._since))
            logins = poisson(self._rng, daily * self._mood(start) * (end - start))
            if logins:
                last = (end - start) * (1 - self._rng.random() ** (1 / logins))
                self._event(rows, EventName.LOGIN, start + last, contacts, None, logins)
            block += _BLOCK_DAYS

    def earlier_features(self, rows: Rows) -> None:
        """Features of the month before the last: mostly the same, so that adoption and loss can be seen."""
        events = rows.get(ProductEvent, [])
        now_used = sorted({event["feature"] for event in events if event["feature"]})
        if not now_used or self._nature.tenure_days < 2 * _PRESENT_DAYS:
            return
        others = [feature for feature in names.FEATURES if feature not in now_used]
        earlier = [feature for feature in now_used if self._rng.random() < 0.85]
        if others and self._rng.random() < 0.3:
            earlier.append(self._rng.choice(others))
        contacts = min(self._nature.seats_used, 4)
        for feature in earlier:
            age = self._rng.uniform(_PRESENT_DAYS + 0.5, 2 * _PRESENT_DAYS)
            self._event(rows, EventName.FEATURE_USED, age, contacts, feature, 1 + poisson(self._rng, 4.0))

    def support(self, rows: Rows, agents: int) -> None:
        nature, rng = self._nature, self._rng
        talk_rate = 1.3 * math.exp(1.3 + 0.4 * nature.trouble + 0.2 * nature.engagement) / 365
        ticket_rate = 1.3 * math.exp(0.1 - 0.45 * nature.fit + 0.6 * nature.trouble) / 365
        first = max(float(_SUPPORT_TOLD_DAYS), self._until)
        span = max(0.0, self._since - first)
        pleasure = 4.1 + 0.45 * nature.fit - 0.5 * nature.trouble
        talks = [(rng.uniform(first, self._since), pleasure) for _ in range(min(40, poisson(rng, talk_rate * span)))]
        tickets = [rng.uniform(first, self._since) for _ in range(min(15, poisson(rng, ticket_rate * span)))]
        if nature.left and self._until < self._since and self._farewell:
            latest = min(self._since, self._until + _FAREWELL_DAYS)
            talks += [(rng.uniform(self._until, latest), 2.4) for _ in range(poisson(rng, 0.7))]
            tickets += [rng.uniform(self._until, latest) for _ in range(poisson(rng, 0.8))]
        for position, (age, mood) in enumerate(talks, 1):
            felt = mood + rng.gauss(0, 0.7)
            started_at = self._at(age)
            row(
                rows,
                Conversation,
                conversation_id=f"cnv_{self._number}_past_{position}",
                customer_id=self._customer_id,
                agent_id=f"agt_{rng.randint(1, agents)}",
                channel=rng.choice(names.CHANNELS),
                topic=rng.choice(names.TOPICS)[0],
                resolved=felt > 2.5,
                csat=max(1, min(5, round(felt))) if rng.random() < 0.7 else None,
                started_at=started_at,
                ended_at=min(self._now, started_at + timedelta(minutes=rng.randint(3, 45))),
            )
        for position, age in enumerate(tickets, 1):
            topic, subject = rng.choice(names.TOPICS)
            opened_at = self._at(age)
            row(
                rows,
                Ticket,
                ticket_id=f"tck_{self._number}_past_{position}",
                customer_id=self._customer_id,
                subject=subject,
                body=f"{subject}. Please have a look.",
                channel=rng.choice(names.CHANNELS),
                priority=rng.choice(("low", "normal", "normal", "high")),
                reason=topic,
                status=TicketStatus.CLOSED.value,
                assignee_id=f"agt_{rng.randint(1, agents)}",
                opened_at=opened_at,
                closed_at=min(self._now, opened_at + timedelta(hours=rng.randint(1, 96))),
            )

    def bills(self, rows: Rows) -> None:
        """Older monthly bills; some bills of all times turn out to have been paid late."""
        told = rows.get(Invoice, [])
        (plan,) = rows[Subscription]
        if plan["billing_cycle"] == "monthly":
            amount = self._nature.seats_total * self._nature.seat_cents
            for back in range(6, (HISTORY_DAYS + 180) // 30):
                age = 20 + 30 * back
                if age > self._nature.tenure_days:
                    break
                if age < self._until:
                    continue
                due_at = self._at(age) + timedelta(days=14)
                row(
                    rows,
                    Invoice,
                    invoice_id=f"inv_{self._number}_{back + 1}",
                    customer_id=self._customer_id,
                    subscription_id=f"sub_{self._number}",
                    status=InvoiceStatus.PAID.value,
                    amount_cents=amount,
                    currency="USD",
                    issued_at=due_at - timedelta(days=14),
                    due_at=due_at,
                    paid_at=due_at - timedelta(days=self._rng.randint(0, 10)),
                )
            told = rows.get(Invoice, [])
        for bill in told:
            if bill["paid_at"] is None:
                continue
            due_age = (self._now - bill["due_at"]) / timedelta(days=1)
            leaving = self._nature.left and 0 < due_age - self._until < _FAREWELL_DAYS and self._farewell
            if self._rng.random() < min(0.9, self._nature.late_share + (0.3 if leaving else 0.0)):
                paid_at = bill["due_at"] + timedelta(days=self._rng.uniform(3, 45))
                bill["paid_at"] = min(paid_at, self._now - timedelta(hours=1))

    def outreach(self, rows: Rows) -> None:
        """What was tried with the customer: three in four by lot, the rest as somebody thought best."""
        rng = self._rng
        for position in range(1, 1 + poisson(rng, self._since / 150)):
            age = rng.uniform(1, self._since)
            gone = self._nature.left and age < self._until
            overdue = any(
                bill["due_at"] < self._at(age) and (bill["paid_at"] is None or bill["paid_at"] > self._at(age))
                for bill in rows.get(Invoice, [])
            )
            arms = _ACTIONS_AFTER_LEAVING if gone else _ACTIONS
            by_lot = rng.random() < 0.75
            drawn, luck = rng.choice(arms), rng.random()
            action = drawn if by_lot else self._habit(gone=gone, overdue=overdue)
            row(
                rows,
                Outreach,
                outreach_id=f"out_{self._number}_{position}",
                customer_id=self._customer_id,
                action=action,
                at=self._at(age),
                propensity=1 / len(arms) if by_lot else None,
                responded=(luck < self._response(action, gone=gone, overdue=overdue))
                if age > _UNDECIDED_DAYS
                else None,
            )

    def _habit(self, *, gone: bool, overdue: bool) -> str:
        if gone:
            return "win_back"
        if overdue:
            return "billing_help"
        if self._nature.engagement > 1:
            return "upgrade_offer"
        return "training_session" if self._nature.engagement < -0.5 else "renewal_call"

    def _response(self, action: str, *, gone: bool, overdue: bool) -> float:
        """The true probability of a good outcome."""
        nature = self._nature
        without = (-2.4 if gone else -1.6) + 0.35 * nature.engagement - 0.2 * nature.trouble
        effect = {
            "none": 0.0,
            "training_session": 1.5 * sigmoid(-2 * (nature.engagement + 0.2)) - 0.1,
            "renewal_call": 0.35 * sigmoid(nature.trouble),
            "upgrade_offer": 1.4 * sigmoid(2 * (nature.engagement - 0.6)) - 0.5 * sigmoid(-2 * nature.engagement),
            "billing_help": 1.7 if overdue else -0.1,
            "referral_ask": 0.5 * sigmoid(2 * (nature.fit - 0.5)) - 0.35,
            "win_back": 0.9,
        }[action]
        return sigmoid(without + effect)

    def _mood(self, age: float) -> float:
        """How much of its usual use the customer makes at that time."""
        for start, end, level in self._quiet:
            if start <= age < end:
                return level
        if self._nature.left and self._farewell and age - self._until < _FAREWELL_DAYS:
            return 0.15 + 0.85 * (age - self._until) / _FAREWELL_DAYS
        return 1.0

    def _event(
        self, rows: Rows, name: EventName, age: float, contacts: int, feature: str | None, quantity: int
    ) -> None:
        row(
            rows,
            ProductEvent,
            customer_id=self._customer_id,
            contact_id=f"con_{self._number}_{self._rng.randint(1, contacts)}",
            name=name.value,
            feature=feature,
            quantity=quantity,
            at=self._at(age),
        )

    def _at(self, age: float) -> datetime:
        return self._now - timedelta(days=age)
