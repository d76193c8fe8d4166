"""Learns the churn model, and measures it on later months of customers it never saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from models.errors import Conflict
from models.insights.churn import ChurnModel
from models.insights.evaluation import DRAWS, Bin, Estimate, log_loss, log_loss_difference, measure, reliability
from models.insights.features import CHURN_FEATURES, Floats
from models.insights.history import Bools, Snapshots
from models.insights.logistic import fit, logit, sigmoid
from models.insights.types import HORIZON_DAYS

FOLDS = 5
#: Inverse strengths of the penalty, the strongest first.
STRENGTHS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 1.0)
#: The latest quarter of the cut-offs is for the test.
TEST_PART = 0.25
MIN_CUTOFFS, MIN_LEAVERS, MIN_TEST_LEAVERS = 8, 50, 20
_LAST_LOGIN = CHURN_FEATURES.index("days_since_login")

Learner = Callable[[], Pipeline]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChurnReport:
    """Everything a card says about a churn model; the test's rows are of customers and months not learnt from.

    `against` holds the log loss of the model minus that of each baseline, `boosting_minus_model` the other way round.
    """

    cutoffs: tuple[str, ...]
    train: tuple[int, int, int]
    test: tuple[int, int, int]
    train_cutoffs: tuple[str, str]
    test_cutoffs: tuple[str, str]
    strength: float
    calibration: tuple[float, float]
    metrics: Mapping[str, Estimate]
    bins: tuple[Bin, ...]
    against: Mapping[str, Estimate]
    boosting_minus_model: Estimate
    baseline_losses: Mapping[str, float]
    coefficients: Mapping[str, float]
    draws: int

    @property
    def beats_baselines(self) -> bool:
        """Whether the model's log loss is shown to be below that of every baseline."""
        return all(difference.interval.high < 0 for difference in self.against.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fitted:
    """A learner and the straight line that calibrates its log-odds."""

    pipeline: Pipeline
    slope: float
    offset: float

    def probabilities(self, features: Floats) -> Floats:
        return sigmoid(self.slope * logit(self.pipeline.predict_proba(features)[:, 1]) + self.offset)


def train_churn(snapshots: Snapshots, *, seed: int = 0, draws: int = DRAWS) -> tuple[ChurnModel, ChurnReport]:
    """The model learnt from everything, and the report on one learnt in the same way without the test's part.

    Raises `Conflict` naming what the history lacks.
    """
    train, test = split(snapshots)
    strength = choose_strength(train)
    ours = calibrated(train, logistic(strength))
    probability = ours.probabilities(test.features)
    baselines = {
        "base rate": np.full(len(test.churned), train.churned.mean()),
        "days since last login": _last_login_rule(train).probabilities(test.features),
    }
    boosting = calibrated(train, boosted(seed))

    def difference(left: Floats, right: Floats) -> Estimate:
        return log_loss_difference(test.churned, left, right, test.customers, draws=draws)

    final = calibrated(snapshots, logistic(strength))
    model = as_model(final.pipeline, final.slope, final.offset)
    y, ones = test.churned.astype(np.float64), np.ones(len(test.churned))
    return model, ChurnReport(
        cutoffs=tuple(instant.date().isoformat() for instant in snapshots.instants),
        train=_counts(train),
        test=_counts(test),
        train_cutoffs=_span(train),
        test_cutoffs=_span(test),
        strength=strength,
        calibration=(final.slope, final.offset),
        metrics=measure(test.churned, probability, test.customers, draws=draws),
        bins=reliability(test.churned, probability, test.customers),
        against={name: difference(probability, other) for name, other in baselines.items()},
        boosting_minus_model=difference(boosting.probabilities(test.features), probability),
        baseline_losses={name: log_loss(y, other, ones) for name, other in baselines.items()},
        coefficients=dict(zip(CHURN_FEATURES, (model.weights * snapshots.features.std(axis=0)).tolist(), strict=True)),
        draws=draws,
    )


def split(snapshots: Snapshots) -> tuple[Snapshots, Snapshots]:
    """Training and test part: no customer in both, and every training outcome known before the test's first cut-off.

    Raises `Conflict`.
    """
    number = len(snapshots.instants)
    first_test = number - max(1, round(number * TEST_PART))
    missing = [] if number >= MIN_CUTOFFS else [f"{MIN_CUTOFFS} monthly cut-offs (found {number})"]
    train = test = snapshots
    if number:
        embargo = snapshots.instants[first_test] - timedelta(days=HORIZON_DAYS)
        early = np.array([instant <= embargo for instant in snapshots.instants])
        train = snapshots.where(~snapshots.held_out & early[snapshots.cutoffs])
        test = snapshots.where(snapshots.held_out & (snapshots.cutoffs >= first_test))
        for part, name, least in ((train, "training", MIN_LEAVERS), (test, "test", MIN_TEST_LEAVERS)):
            if part.leavers < least:
                missing.append(f"{least} customers who left in the {name} part (found {part.leavers})")
            if part.churned.all():
                missing.append(f"customers who stayed in the {name} part")
    if missing:
        raise Conflict(f"too little history to learn from; it lacks {'; '.join(missing)}")
    return train, test


def choose_strength(train: Snapshots) -> float:
    """The strongest penalty whose log loss is within one standard error of the best.

    The standard error is that of the difference to the best over the folds: folds differ in how many leave, and that
    must not count as uncertainty about the penalty.
    """
    losses = np.array([_fold_losses(train, logistic(strength)) for strength in STRENGTHS])
    worse = losses - losses[losses.mean(axis=1).argmin()]
    error = worse.std(axis=1, ddof=1) / np.sqrt(FOLDS)
    return STRENGTHS[int(np.flatnonzero(worse.mean(axis=1) <= error + 1e-12)[0])]


def logistic(strength: float) -> Learner:
    return lambda: make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000, tol=1e-8))


def boosted(seed: int) -> Learner:
    """What the card compares with: trees, which see any bend and interaction."""
    return lambda: make_pipeline(
        HistGradientBoostingClassifier(
            learning_rate=0.05,
            max_iter=120,
            max_leaf_nodes=8,
            min_samples_leaf=100,
            l2_regularization=1.0,
            early_stopping=False,
            random_state=seed,
        )
    )


def calibrated(rows: Snapshots, learner: Learner) -> _Fitted:
    """Learn from all rows, and calibrate on the log-odds that each customer got from models that never saw them.

    A straight line (Platt), not isotonic regression: that wants a thousand events or more, and makes ties.
    """
    logits = np.empty(len(rows.churned))
    for inside, outside in _folds(rows):
        logits[outside] = logit(_fit(learner, rows.where(inside)).predict_proba(rows.features[outside])[:, 1])
    x = np.column_stack([np.ones(len(logits)), logits])
    offset, slope = fit(x, rows.churned.astype(np.float64), penalty=np.full(2, 1e-9))
    return _Fitted(pipeline=_fit(learner, rows), slope=float(slope), offset=float(offset))


def as_model(pipeline: Pipeline, slope: float = 1.0, offset: float = 0.0) -> ChurnModel:
    """The same probabilities without scikit-learn: scaling and calibration go into the weights."""
    scaler, regression = pipeline[0], pipeline[-1]
    weights = slope * regression.coef_[0] / scaler.scale_
    return ChurnModel(
        horizon_days=HORIZON_DAYS,
        weights=np.asarray(weights, dtype=np.float64),
        means=np.asarray(scaler.mean_, dtype=np.float64),
        intercept=float(slope * regression.intercept_[0] + offset - weights @ scaler.mean_),
    )


def _last_login_rule(train: Snapshots) -> _Fitted:
    def only_last_login() -> Pipeline:
        keep = np.zeros((len(CHURN_FEATURES), 1))
        keep[_LAST_LOGIN] = 1.0
        return make_pipeline(_Columns(keep), LogisticRegression(C=1e6, max_iter=1000))

    return _Fitted(pipeline=_fit(only_last_login, train), slope=1.0, offset=0.0)


class _Columns:
    """Passes on a linear choice of the columns."""

    def __init__(self, keep: Floats) -> None:
        self._keep = keep

    def fit(self, x: Floats, y: Bools | None = None) -> _Columns:
        return self

    def transform(self, x: Floats) -> Floats:
        return np.asarray(x @ self._keep)


def _fit(learner: Learner, rows: Snapshots) -> Pipeline:
    # One thread: the order of sums, and with it the model, must not depend on the machine.
    with threadpool_limits(limits=1):
        return learner().fit(rows.features, rows.churned)


def _folds(rows: Snapshots) -> list[tuple[Bools, Bools]]:
    found = []
    for _, outside in GroupKFold(n_splits=FOLDS).split(rows.features, groups=rows.customers):
        mask = np.zeros(len(rows.churned), dtype=np.bool_)
        mask[outside] = True
        found.append((~mask, mask))
    return found


def _fold_losses(rows: Snapshots, learner: Learner) -> list[float]:
    losses = []
    for inside, outside in _folds(rows):
        p = _fit(learner, rows.where(inside)).predict_proba(rows.features[outside])[:, 1]
        losses.append(log_loss(rows.churned[outside].astype(np.float64), p, np.ones(int(outside.sum()))))
    return losses


def _counts(rows: Snapshots) -> tuple[int, int, int]:
    """Rows, customers, and customers who left."""
    return len(rows.churned), len(np.unique(rows.customers)), rows.leavers


def _span(rows: Snapshots) -> tuple[str, str]:
    used = np.unique(rows.cutoffs)
    return rows.instants[used[0]].date().isoformat(), rows.instants[used[-1]].date().isoformat()
