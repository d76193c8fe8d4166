"""Facts become numbers that stay finite and mean what they say."""

from __future__ import annotations

import numpy as np
import pytest

from models.insights.features import ACTION_FEATURES, CHURN_FEATURES, action_matrix, churn_matrix
from models.insights.types import Facts


def value(facts: Facts, name: str) -> float:
    return float(churn_matrix([facts])[0, CHURN_FEATURES.index(name)])


@pytest.mark.parametrize("facts", [Facts(), Facts(tenure_days=0), Facts(tenure_days=10**5, logins_30d=10**9)])
def test_every_number_is_finite(facts: Facts) -> None:
    assert np.isfinite(churn_matrix([facts])).all()
    assert np.isfinite(action_matrix([facts])).all()


def test_no_customers_make_an_empty_matrix_of_the_right_width() -> None:
    assert churn_matrix([]).shape == (0, len(CHURN_FEATURES))
    assert action_matrix([]).shape == (0, len(ACTION_FEATURES))


def test_usage_compares_equal_spans() -> None:
    assert value(Facts(tenure_days=400, logins_30d=10, logins_prior_60d=20), "usage_change") == pytest.approx(0)
    assert value(Facts(tenure_days=400, logins_30d=2, logins_prior_60d=20), "usage_change") < -1
    assert value(Facts(tenure_days=400, logins_30d=30, logins_prior_60d=20), "usage_change") > 1


def test_who_was_not_here_before_has_not_changed_their_use() -> None:
    assert value(Facts(tenure_days=30, logins_30d=10), "usage_change") == 0
    half = Facts(tenure_days=60, logins_30d=10, logins_prior_60d=10)
    assert value(half, "usage_change") == pytest.approx(0)


def test_no_login_is_as_long_ago_as_the_window() -> None:
    assert value(Facts(), "days_since_login") == value(Facts(idle_days=90), "days_since_login")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (Facts(), False),
        (Facts(tenure_days=29), False),
        (Facts(tenure_days=30), True),
        (Facts(tenure_days=30, canceled=True), False),
        (Facts(tenure_days=30, trialing=True), False),
    ],
)
def test_only_paying_customers_of_a_month_can_churn(facts: Facts, expected: bool) -> None:
    assert facts.at_risk is expected
