"""Churn probability by a calibrated logistic regression, in plain numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.errors import ConfigurationError
from models.insights.features import CHURN_FEATURES, Floats, churn_matrix
from models.insights.types import Facts

#: A feature is told as a driver from this many log-odds above the average customer.
_TOLD_FROM = 0.1
_DRIVERS = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChurnModel:
    """Calibrated log-odds = `intercept` + features x `weights`; `means` are those of the training customers."""

    horizon_days: int
    weights: Floats
    means: Floats
    intercept: float

    def __post_init__(self) -> None:
        shape = (len(CHURN_FEATURES),)
        if self.weights.shape != shape or self.means.shape != shape or self.horizon_days < 1:
            raise ConfigurationError("churn model: its numbers do not fit the features")
        if not np.isfinite([*self.weights, *self.means, self.intercept]).all():
            raise ConfigurationError("churn model: not all numbers are finite")

    def probabilities(self, features: Floats) -> Floats:
        """The probability of leaving within the horizon, one per row."""
        logits = features @ self.weights + self.intercept
        return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))

    def predict(self, facts: Sequence[Facts]) -> list[tuple[float, tuple[str, ...]]]:
        """Probability and drivers of each customer: the features that raise it most, the strongest first."""
        features = churn_matrix(facts)
        raised = (features - self.means) * self.weights
        drivers = (
            tuple(CHURN_FEATURES[i] for i in np.argsort(-row, kind="stable")[:_DRIVERS] if row[i] >= _TOLD_FROM)
            for row in raised
        )
        return list(zip(self.probabilities(features).tolist(), drivers, strict=True))
