"""What a demo customer is like: hidden traits, drawn once, that everything the customer does follows from."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from demo import names

#: Customers settle in before any of them leaves.
SETTLING_DAYS = 60
#: Of those who want to leave within a year, the share that does.
_LEAVING_SHARE = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Nature:
    """Hidden traits of one customer.

    `churn` is the recorded risk; who stays beyond the first 60 days leaves at a constant rate of `0.3 * churn` a year.
    `pressure` is the log-odds behind it before payments, `left_days_ago` is `None` for who is still here.
    """

    fit: float
    engagement: float
    trouble: float
    tenure_days: int
    seats_total: int
    seats_used: int
    plan: str
    seat_cents: int
    trialing: bool
    overdue: bool
    pressure: float
    churn: float
    left_days_ago: float | None

    @property
    def left(self) -> bool:
        return self.left_days_ago is not None

    @property
    def late_share(self) -> float:
        """The share of bills that this customer pays late."""
        return sigmoid(self.pressure - 1.2)


def draw_nature(rng: random.Random) -> Nature:
    fit = rng.gauss(0, 1)
    engagement = 0.6 * fit + 0.8 * rng.gauss(0, 1)
    trouble = rng.gauss(0, 1)
    plan, seat_cents, (fewest, most) = rng.choices(names.PLANS, weights=(55, 35, 10))[0]
    seats_total = rng.randint(fewest, most)
    share_used = min(1.0, max(0.1, sigmoid(0.8 + 0.7 * engagement) + rng.gauss(0, 0.08)))
    tenure_days = 2 + int(rng.expovariate(1 / 420)) % 2500
    trialing = tenure_days <= 14
    pressure = -1.7 - 0.9 * engagement - 0.5 * fit + 0.6 * trouble
    overdue = not trialing and rng.random() < sigmoid(pressure - 1.2)
    churn = sigmoid(pressure + (1.0 if overdue else 0.0) + rng.gauss(0, 0.2))
    left_days_ago = None
    if not trialing and tenure_days > SETTLING_DAYS:
        leaves_after = SETTLING_DAYS - math.log1p(-rng.random()) * 365 / (_LEAVING_SHARE * churn)
        left_days_ago = tenure_days - leaves_after if leaves_after < tenure_days else None
    return Nature(
        fit=fit,
        engagement=engagement,
        trouble=trouble,
        tenure_days=tenure_days,
        seats_total=seats_total,
        seats_used=max(1, round(seats_total * share_used)),
        plan=plan,
        seat_cents=seat_cents,
        trialing=trialing,
        overdue=overdue,
        pressure=pressure,
        churn=churn,
        left_days_ago=left_days_ago,
    )


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def poisson(rng: random.Random, mean: float) -> int:
    """A Poisson draw by Knuth's product of uniforms; means here stay below a few hundred."""
    limit, product, count = math.exp(-min(mean, 300.0)), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count
