"""The churn model finds what is there, admits what is not, and is measured on what it has not seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.errors import Conflict
from models.insights import churn_training
from models.insights.churn_training import as_model, choose_strength, logistic, split, train_churn
from models.insights.evaluation import (
    average_precision,
    brier,
    calibration_intercept,
    calibration_slope,
    estimate,
    log_loss,
    reliability,
    resamples,
    roc_auc,
)
from models.insights.features import CHURN_FEATURES, churn_matrix
from models.insights.types import Facts
from tests.unit.insights.histories import churn_model, snapshots, truth


@pytest.fixture(autouse=True, scope="module")
def _few_strengths() -> object:
    patch = pytest.MonkeyPatch()
    patch.setattr(churn_training, "STRENGTHS", (0.01, 1.0))
    yield
    patch.undo()


def test_the_probabilities_are_the_true_ones() -> None:
    model, report = train_churn(snapshots(), draws=50)
    fresh = snapshots(customers=300, seed=9).features
    assert float(np.abs(model.probabilities(fresh) - truth(fresh)).mean()) < 0.02
    assert 1 in report.metrics["calibration slope"].interval
    assert 0 in report.metrics["calibration intercept"].interval
    assert report.beats_baselines
    assert report.metrics["ROC AUC"].interval.low > 0.7


def test_training_twice_gives_the_same_model_and_figures() -> None:
    few = snapshots(customers=500)
    (first, report), (second, again) = train_churn(few, draws=20), train_churn(few, draws=20)
    assert first.weights.tolist() == second.weights.tolist()
    assert first.intercept == second.intercept
    assert report == again


def test_without_anything_to_find_no_baseline_is_beaten() -> None:
    _, report = train_churn(snapshots(signal=False), draws=50)
    assert not report.beats_baselines


@pytest.mark.parametrize(
    ("history", "lacks"),
    [
        (snapshots(customers=20), "customers who left in the training part"),
        (snapshots(cutoffs=5), "8 monthly cut-offs (found 5)"),
    ],
)
def test_too_little_history_is_refused_and_what_is_missing_is_named(history: object, lacks: str) -> None:
    with pytest.raises(Conflict) as refused:
        train_churn(history)  # type: ignore[arg-type]
    assert lacks in str(refused.value)


def test_history_in_which_everybody_left_is_refused() -> None:
    history = snapshots()
    with pytest.raises(Conflict, match="customers who stayed"):
        train_churn(replace(history, churned=np.ones_like(history.churned)))


def test_the_test_part_is_later_and_of_other_customers() -> None:
    history = snapshots()
    train, test = split(history)
    assert not set(train.customers) & set(test.customers)
    last_outcome = history.instants[int(train.cutoffs.max())] + (history.instants[3] - history.instants[0])
    assert last_outcome <= history.instants[int(test.cutoffs.min())]


def test_inference_equals_scikit_learn() -> None:
    history = snapshots(customers=300)
    pipeline = logistic(0.1)().fit(history.features, history.churned)
    ours = as_model(pipeline).probabilities(history.features)
    np.testing.assert_allclose(ours, pipeline.predict_proba(history.features)[:, 1], rtol=0, atol=1e-12)


def test_a_strong_penalty_is_kept_where_a_weak_one_is_no_better() -> None:
    assert choose_strength(snapshots(customers=300, signal=False)) == 0.01


def test_drivers_are_what_raises_the_risk_the_strongest_first() -> None:
    idle = Facts(tenure_days=400, logins_30d=0, tickets_90d=3, overdue=True)
    weights = np.zeros(len(CHURN_FEATURES))
    for name, weight in (("payment_overdue", 0.5), ("tickets_90d", 1.0), ("tenure", -1.0)):
        weights[CHURN_FEATURES.index(name)] = weight
    ((probability, drivers),) = churn_model(weights).predict([idle])
    assert drivers == ("tickets_90d", "payment_overdue")
    assert probability == pytest.approx(float(churn_model(weights).probabilities(churn_matrix([idle]))[0]))


def test_metrics_agree_with_scikit_learn_and_count_weights_as_copies() -> None:
    from sklearn import metrics

    rng = np.random.default_rng(3)
    p = rng.random(400).round(2)
    y = (rng.random(400) < p).astype(float)
    w = rng.integers(0, 4, 400).astype(float)
    assert roc_auc(y, p, w) == pytest.approx(metrics.roc_auc_score(y, p, sample_weight=w))
    assert average_precision(y, p, w) == pytest.approx(metrics.average_precision_score(y, p, sample_weight=w))
    assert brier(y, p, w) == pytest.approx(metrics.brier_score_loss(y, p, sample_weight=w))
    kept = np.clip(p, 1e-12, 1 - 1e-12)
    assert log_loss(y, p, w) == pytest.approx(metrics.log_loss(y, kept, sample_weight=w))


def test_calibration_is_seen_where_it_is_off() -> None:
    rng = np.random.default_rng(4)
    logits = rng.normal(size=40_000)
    y = (rng.random(40_000) < 1 / (1 + np.exp(-logits))).astype(float)
    ones = np.ones(len(y))
    too_extreme, too_low = 1 / (1 + np.exp(-2 * logits)), 1 / (1 + np.exp(1 - logits))
    assert calibration_slope(y, too_extreme, ones) == pytest.approx(0.5, abs=0.03)
    assert calibration_intercept(y, too_low, ones) == pytest.approx(1.0, abs=0.05)


def test_rows_of_one_customer_widen_the_interval() -> None:
    rng = np.random.default_rng(5)
    values = np.repeat(rng.normal(size=100), 9)

    def mean(weights: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
        return float(np.average(values, weights=weights))

    whole = estimate(mean, np.repeat(np.arange(100), 9), draws=300).interval
    alone = estimate(mean, np.arange(900), draws=300).interval
    assert whole.high - whole.low > 2 * (alone.high - alone.low)
    first = next(resamples(np.repeat(np.arange(100), 9), 1, 0))
    assert all(len(set(first[start : start + 9])) == 1 for start in range(0, 900, 9))


def test_bins_hold_every_row_once_and_their_intervals_count_customers() -> None:
    rng = np.random.default_rng(6)
    p = rng.random(1000)
    bins = reliability(rng.random(1000) < p, p, np.arange(1000) // 4)
    assert sum(one.rows for one in bins) == 1000
    assert all(one.customers <= one.rows for one in bins)
    assert [one.predicted for one in bins] == sorted(one.predicted for one in bins)
    assert all(one.interval.high - one.interval.low > 0 for one in bins)
