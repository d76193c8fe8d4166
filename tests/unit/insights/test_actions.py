"""An action is recommended to those it is shown to help, and to nobody else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.insights.action_training import fit_actions, train_actions
from models.insights.next_best_action import RULES, Gain, choose
from models.insights.types import Facts
from tests.unit.insights.histories import action_model, busy, outreach


def test_what_helps_some_is_recommended_to_those() -> None:
    model, report = train_actions(outreach())
    assert model is not None
    rare, often = (choose(gains) for gains in model.gains([busy(1), busy(40)]))
    assert rare is not None
    assert (rare.action, often) == ("training_session", None)
    true_gain = 1 / (1 + np.exp(-0.3)) - 1 / (1 + np.exp(1.2))
    assert rare.low < true_gain < rare.high
    assert report.over_never is not None
    assert report.over_never.interval.low > 0
    assert report.arms["upgrade_offer"].recommended < report.arms["training_session"].recommended / 20


def test_the_value_of_the_policy_is_about_the_true_one() -> None:
    _, report = train_actions(outreach(pieces=12_000))
    base, helped = 1 / (1 + np.exp(1.2)), 1 / (1 + np.exp(-0.3))
    assert report.policy is not None
    assert report.never is not None
    assert (base + helped) / 2 in report.policy.interval
    assert base in report.never.interval


def test_actions_that_do_nothing_are_recommended_to_nobody() -> None:
    model, report = train_actions(outreach(effect=0.0))
    assert model is None
    assert report.refused == "no gain over doing nothing is shown"


def test_without_doing_nothing_by_lot_there_is_nothing_to_compare_with() -> None:
    history = outreach()
    by_person = np.where(history.actions == "none", np.nan, history.propensity)
    model, report = train_actions(replace(history, propensity=by_person))
    assert model is None
    assert "doing nothing (found 0 with 0)" in report.refused


def test_no_outreach_at_all_is_no_error() -> None:
    nothing = outreach().where(np.zeros(6000, dtype=np.bool_))
    model, report = train_actions(nothing)
    assert (model, report.by_lot) == (None, 0)
    assert report.refused


def test_what_people_chose_is_not_learnt_from() -> None:
    """People trained only whom they knew to be happy: a false effect that must not show."""
    history = outreach(effect=0.0)
    happy = outreach(pieces=2000, seed=3)
    biased = np.char.equal(happy.actions, "training_session")
    mixed = replace(
        history,
        facts=history.facts + happy.facts,
        actions=np.concatenate([history.actions, happy.actions]),
        responded=np.concatenate([history.responded, biased]),
        propensity=np.concatenate([history.propensity, np.full(2000, np.nan)]),
        customers=np.concatenate([history.customers, 10_000 + happy.customers]),
    )
    model, report = train_actions(mixed)
    assert model is None
    assert (report.by_lot, report.by_person) == (6000, 2000)


def test_repeated_customers_are_not_taken_for_new_ones() -> None:
    history = outreach(pieces=1500)
    copied = replace(
        history,
        facts=history.facts * 4,
        actions=np.tile(history.actions, 4),
        responded=np.tile(history.responded, 4),
        propensity=np.tile(history.propensity, 4),
        customers=np.tile(history.customers, 4),
    )
    actions = ("training_session", "upgrade_offer")
    once, fourfold = fit_actions(history, actions, 10.0), fit_actions(copied, actions, 10.0)
    narrow = [model.gains([busy(1)])[0][0] for model in (once, fourfold)]
    assert (narrow[1].high - narrow[1].low) > 0.8 * (narrow[0].high - narrow[0].low)


@pytest.mark.parametrize(
    ("facts", "never"),
    [
        (busy(40, overdue=True), {"upgrade_offer", "referral_ask", "win_back"}),
        (busy(40), {"billing_help", "win_back"}),
        (busy(0, canceled=True), set(RULES) - {"win_back"}),
        (Facts(tenure_days=5), set(RULES)),
        (Facts(tenure_days=400, trialing=True), set(RULES)),
        (Facts(tenure_days=400, low_ratings_180d=1), {"referral_ask", "billing_help", "win_back"}),
    ],
)
def test_rules_say_whom_nothing_of_the_kind_is_offered(facts: Facts, never: set[str]) -> None:
    assert {action for action, rule in RULES.items() if not rule.eligible(facts)} == never


def test_gains_are_offered_to_the_eligible_only_and_the_highest_comes_first() -> None:
    overdue, fine = action_model().gains([busy(1, overdue=True), busy(1)])
    assert {gain.action for gain in overdue} == {"training_session"}
    assert [gain.expected for gain in fine] == sorted((gain.expected for gain in fine), reverse=True)


def test_a_gain_whose_interval_holds_zero_is_not_chosen() -> None:
    doubtful = Gain(action="renewal_call", expected=0.3, low=-0.01, high=0.6)
    sure = Gain(action="training_session", expected=0.1, low=0.02, high=0.18)
    assert choose([doubtful, sure]) is sure
    assert choose([doubtful]) is None


def test_the_interval_is_that_of_the_coefficients() -> None:
    """The standard error by the delta method equals the spread over draws of the coefficients, for small errors."""
    model = action_model()
    tight = replace(model, covariance=model.covariance * 1e-4)
    rng = np.random.default_rng(8)
    drawn = rng.multivariate_normal(tight.coefficients, tight.covariance, size=2000)
    facts = busy(1)
    spread = np.std(
        [
            next(
                g.expected for g in replace(tight, coefficients=one).gains([facts])[0] if g.action == "training_session"
            )
            for one in drawn
        ]
    )
    told = next(gain for gain in tight.gains([facts])[0] if gain.action == "training_session")
    assert (told.high - told.low) / 2 / tight.z == pytest.approx(float(spread), rel=0.1)
