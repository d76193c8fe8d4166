"""How good probabilities are, with intervals that know that rows of one customer belong together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from models.insights.features import Floats
from models.insights.history import Bools, Ints
from models.insights.logistic import fit, logit
from models.statistics import Interval, Proportion, wilson

#: (outcomes, probabilities, weights) -> a number.
Metric = Callable[[Floats, Floats, Floats], float]
DRAWS = 1000
BINS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    interval: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Rows of similar probability: what was said and what happened.

    The interval takes all rows of a customer for one observation (Wilson on distinct customers), so it is rather too
    wide than too narrow.
    """

    rows: int
    customers: int
    events: int
    predicted: float
    observed: float
    interval: Interval


def log_loss(y: Floats, p: Floats, w: Floats) -> float:
    kept = np.clip(p, 1e-12, 1 - 1e-12)
    return float(-np.average(y * np.log(kept) + (1 - y) * np.log1p(-kept), weights=w))


def brier(y: Floats, p: Floats, w: Floats) -> float:
    return float(np.average((y - p) ** 2, weights=w))


def roc_auc(y: Floats, p: Floats, w: Floats) -> float:
    """Probability that a row with the event scores above one without; a tie counts half."""
    _, place = np.unique(p, return_inverse=True)
    events = np.bincount(place, weights=w * y)
    others = np.bincount(place, weights=w * (1 - y))
    below = np.cumsum(others) - others
    return float((events * (below + 0.5 * others)).sum() / (events.sum() * others.sum()))


def average_precision(y: Floats, p: Floats, w: Floats) -> float:
    """Precision at each score averaged by the events found there; rows of equal score are found together."""
    _, place = np.unique(-p, return_inverse=True)
    events = np.bincount(place, weights=w * y)
    found = np.cumsum(events)
    seen = np.maximum(np.cumsum(np.bincount(place, weights=w)), 1e-12)
    return float((events * found / seen).sum() / found[-1])


def calibration_slope(y: Floats, p: Floats, w: Floats) -> float:
    """Slope of the outcome on the predicted log-odds: 1 is right, below 1 the predictions are too extreme."""
    x = np.column_stack([np.ones(len(p)), logit(p)])
    return float(fit(x, y, penalty=np.full(2, 1e-9), weights=w)[1])


def calibration_intercept(y: Floats, p: Floats, w: Floats) -> float:
    """How far, in log-odds, outcomes lie above the predictions as a whole (slope held at 1); 0 is right."""
    offset, shift = logit(p), 0.0
    for _ in range(20):
        now = 0.5 * (1 + np.tanh(0.5 * (offset + shift)))
        step = float((w * (y - now)).sum() / (w * now * (1 - now)).sum())
        shift += step
        if abs(step) < 1e-10:
            break
    return shift


METRICS: Mapping[str, Metric] = {
    "ROC AUC": roc_auc,
    "average precision": average_precision,
    "Brier score": brier,
    "log loss": log_loss,
    "calibration slope": calibration_slope,
    "calibration intercept": calibration_intercept,
}


def resamples(customers: Ints, draws: int, seed: int) -> Iterator[Floats]:
    """Row weights of bootstrap samples that draw whole customers."""
    names, place = np.unique(customers, return_inverse=True)
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        drawn = rng.integers(0, len(names), len(names))
        yield np.bincount(drawn, minlength=len(names))[place].astype(np.float64)


def estimate(metric: Callable[[Floats], float], customers: Ints, *, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """A function of row weights at weight 1, with the percentile interval of its bootstrap over customers."""
    found = [metric(weights) for weights in resamples(customers, draws, seed)]
    low, high = np.quantile(found, [0.025, 0.975])
    return Estimate(value=metric(np.ones(len(customers))), interval=Interval(float(low), float(high)))


def measure(churned: Bools, probability: Floats, customers: Ints, *, draws: int = DRAWS) -> dict[str, Estimate]:
    """Every metric by name."""
    y = churned.astype(np.float64)
    return {
        name: estimate(lambda w, metric=metric: metric(y, probability, w), customers, draws=draws)  # type: ignore[misc]
        for name, metric in METRICS.items()
    }


def log_loss_difference(
    churned: Bools, ours: Floats, theirs: Floats, customers: Ints, *, draws: int = DRAWS
) -> Estimate:
    """Log loss of ours minus theirs on the same rows; below 0, ours is better."""
    y = churned.astype(np.float64)
    kept = np.clip(np.stack([ours, theirs]), 1e-12, 1 - 1e-12)
    losses = -(y * np.log(kept) + (1 - y) * np.log1p(-kept))
    each = losses[0] - losses[1]
    return estimate(lambda w: float(np.average(each, weights=w)), customers, draws=draws)


def reliability(churned: Bools, probability: Floats, customers: Ints) -> tuple[Bin, ...]:
    """Ten bins of equal size, the lowest probabilities first."""
    bins = []
    for rows in np.array_split(np.argsort(probability, kind="stable"), BINS):
        distinct = len(np.unique(customers[rows]))
        observed = float(churned[rows].mean())
        bins.append(
            Bin(
                rows=len(rows),
                customers=distinct,
                events=int(churned[rows].sum()),
                predicted=float(probability[rows].mean()),
                observed=observed,
                interval=wilson(Proportion(round(observed * distinct), distinct)),
            )
        )
    return tuple(bins)
