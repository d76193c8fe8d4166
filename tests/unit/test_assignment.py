"""Deterministic draws: balance, independence, and who moves when weights change."""

from __future__ import annotations

import pytest
from scipy import stats

from models.assignment import rendezvous, uniform

CUSTOMERS = [f"customer_{number}" for number in range(20_000)]


def test_draws_are_uniform_and_repeatable() -> None:
    draws = [uniform("salt", customer) for customer in CUSTOMERS]
    assert draws == [uniform("salt", customer) for customer in CUSTOMERS]
    assert stats.kstest(draws, "uniform").pvalue > 0.001


def test_parts_cannot_run_into_each_other() -> None:
    assert uniform("ab", "c") != uniform("a", "bc")


@pytest.mark.parametrize("weights", [{"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 2.0, "c": 5.0}])
def test_arms_have_the_shares_of_their_weights(weights: dict[str, float]) -> None:
    drawn = [rendezvous(customer, weights, salt="x") for customer in CUSTOMERS]
    expected = [len(CUSTOMERS) * weight / sum(weights.values()) for weight in weights.values()]
    assert stats.chisquare([drawn.count(arm) for arm in weights], expected).pvalue > 0.001


@pytest.mark.parametrize("after", [{"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 1.0, "b": 3.0}])
def test_a_new_or_heavier_arm_only_gains(after: dict[str, float]) -> None:
    before = {"a": 1.0, "b": 1.0}
    grown = {arm for arm in after if after[arm] > before.get(arm, 0.0)}
    moves = [
        (old, new)
        for customer in CUSTOMERS
        if (old := rendezvous(customer, before, salt="x")) != (new := rendezvous(customer, after, salt="x"))
    ]
    assert moves
    assert {new for _, new in moves} <= grown


def test_salts_draw_independently() -> None:
    weights = {"a": 1.0, "b": 1.0}
    table = [[0, 0], [0, 0]]
    for customer in CUSTOMERS:
        first, second = (rendezvous(customer, weights, salt=salt) == "a" for salt in ("one", "two"))
        table[first][second] += 1
    assert stats.chi2_contingency(table, correction=False).pvalue > 0.001
