"""Made-up histories whose truth is known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from models.insights.action_training import fit_actions
from models.insights.churn import ChurnModel
from models.insights.features import CHURN_FEATURES, Floats
from models.insights.history import OutreachHistory, Snapshots
from models.insights.logistic import sigmoid
from models.insights.next_best_action import ActionModel
from models.insights.types import Facts

FIRST = datetime(2025, 1, 1, tzinfo=UTC)
TRUE_WEIGHTS = np.array([0.0, -0.9, 0.0, 0.6, 0.0, 0.0, 0.8, 0.0, 0.0])
TRUE_INTERCEPT = -2.2


def truth(features: Floats) -> Floats:
    return sigmoid(features @ TRUE_WEIGHTS + TRUE_INTERCEPT)


def snapshots(*, customers: int = 1200, cutoffs: int = 12, seed: int = 1, signal: bool = True) -> Snapshots:
    """Standard-normal features of every customer at every cut-off; outcomes by `truth`, or at one rate for all."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(customers * cutoffs, len(CHURN_FEATURES)))
    chance = truth(features) if signal else np.full(len(features), 0.12)
    numbers = np.repeat(np.arange(customers), cutoffs)
    return Snapshots(
        features=features,
        churned=rng.random(len(features)) < chance,
        customers=numbers,
        cutoffs=np.tile(np.arange(cutoffs), customers),
        held_out=numbers % 3 == 0,
        instants=tuple(FIRST + timedelta(days=30 * number) for number in range(cutoffs)),
    )


def busy(logins: int, *, overdue: bool = False, canceled: bool = False) -> Facts:
    return Facts(tenure_days=400, logins_30d=logins, logins_prior_60d=2 * logins, overdue=overdue, canceled=canceled)


def outreach(*, pieces: int = 6000, seed: int = 2, effect: float = 1.5) -> OutreachHistory:
    """A lot chooses among nothing, training and an upgrade; training raises the log-odds by `effect` for who logs in
    rarely and does nothing for the others, the upgrade does nothing for anybody."""
    rng = np.random.default_rng(seed)
    logins = np.where(rng.random(pieces) < 0.5, 1, 40)
    actions = rng.choice(["none", "training_session", "upgrade_offer"], size=pieces)
    logits = -1.2 + effect * ((actions == "training_session") & (logins == 1))
    return OutreachHistory(
        facts=tuple(busy(int(count)) for count in logins),
        actions=actions,
        responded=rng.random(pieces) < sigmoid(logits),
        propensity=np.full(pieces, 1 / 3),
        customers=np.arange(pieces) // 2,
    )


def churn_model(weights: Floats = TRUE_WEIGHTS, intercept: float = TRUE_INTERCEPT) -> ChurnModel:
    return ChurnModel(horizon_days=90, weights=weights, means=np.zeros(len(weights)), intercept=intercept)


def action_model() -> ActionModel:
    return fit_actions(outreach(pieces=2000), ("training_session", "upgrade_offer"), 10.0)
