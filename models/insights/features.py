"""From facts to numbers: the only definition, used in training and in every prediction.

Only facts whose past the tables remember take part. Health score, recorded churn risk, lifecycle, plan, seats, revenue
and renewal date are overwritten when they change, so their value on a past day is not known, and today's value would
tell the model what happened afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.insights.types import LOGIN_WINDOW_DAYS, Facts

Floats = NDArray[np.float64]

CHURN_FEATURES = (
    "days_since_login",
    "logins_30d",
    "usage_change",
    "tickets_90d",
    "conversations_90d",
    "low_ratings_180d",
    "payment_overdue",
    "late_payments_180d",
    "tenure",
)
ACTION_FEATURES = ("logins_30d", "usage_change", "tickets_90d", "payment_overdue", "tenure", "canceled")


def churn_matrix(facts: Sequence[Facts]) -> Floats:
    """One row per customer, columns as `CHURN_FEATURES`."""
    return _matrix(facts, CHURN_FEATURES)


def action_matrix(facts: Sequence[Facts]) -> Floats:
    """One row per customer, columns as `ACTION_FEATURES`."""
    return _matrix(facts, ACTION_FEATURES)


def _matrix(facts: Sequence[Facts], names: tuple[str, ...]) -> Floats:
    rows = [[numbers[name] for name in names] for numbers in map(_numbers, facts)]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(names))


def _numbers(facts: Facts) -> dict[str, float]:
    idle = LOGIN_WINDOW_DAYS if facts.idle_days is None else min(facts.idle_days, LOGIN_WINDOW_DAYS)
    return {
        "days_since_login": math.log1p(idle),
        "logins_30d": math.log1p(facts.logins_30d),
        "usage_change": _usage_change(facts),
        "tickets_90d": math.log1p(facts.tickets_90d),
        "conversations_90d": math.log1p(facts.conversations_90d),
        "low_ratings_180d": math.log1p(facts.low_ratings_180d),
        "payment_overdue": float(facts.overdue),
        "late_payments_180d": math.log1p(facts.late_payments_180d),
        "tenure": math.log1p(facts.tenure_days or 0),
        "canceled": float(facts.canceled),
    }


def _usage_change(facts: Facts) -> float:
    """Log ratio of the last 30 days' logins to the usual 30 days of the 60 before; 0 where these are hardly known."""
    exposure = min(60, (facts.tenure_days or 0) - 30)
    if exposure < 7:
        return 0.0
    return math.log1p(facts.logins_30d) - math.log1p(facts.logins_prior_60d * 30 / exposure)
