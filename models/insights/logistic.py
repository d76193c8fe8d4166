"""Logistic regression by Newton's method with a penalty of its own for each coefficient."""

from __future__ import annotations

import numpy as np

from models.insights.features import Floats

_STEPS = 50
_TOLERANCE = 1e-9


def sigmoid(logits: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))


def logit(probability: Floats) -> Floats:
    kept = np.clip(probability, 1e-12, 1 - 1e-12)
    return np.asarray(np.log(kept) - np.log1p(-kept))


def fit(x: Floats, y: Floats, *, penalty: Floats, weights: Floats | None = None) -> Floats:
    """The coefficients that minimise weighted log loss + penalty/2 x coefficient squared; `x` holds its own intercept.

    Steps that would raise the loss are halved, so a separable sample with some penalty ends at a finite place.
    """
    w = np.ones(len(y)) if weights is None else weights
    beta = np.zeros(x.shape[1])
    loss = _loss(x, y, w, penalty, beta)
    for _ in range(_STEPS):
        p = sigmoid(x @ beta)
        gradient = x.T @ (w * (p - y)) + penalty * beta
        step = np.linalg.lstsq(hessian(x, p, penalty=penalty, weights=w), gradient, rcond=None)[0]
        size = 1.0
        while size > 1e-6 and (moved := _loss(x, y, w, penalty, beta - size * step)) > loss:
            size /= 2
        if size <= 1e-6:
            break
        beta, gained, loss = beta - size * step, loss - moved, moved
        if gained < _TOLERANCE * max(1.0, abs(loss)):
            break
    return np.asarray(beta)


def hessian(x: Floats, p: Floats, *, penalty: Floats, weights: Floats) -> Floats:
    """Second derivatives of the loss that `fit` minimises."""
    return np.asarray((x * (weights * p * (1 - p))[:, None]).T @ x + np.diag(penalty))


def _loss(x: Floats, y: Floats, w: Floats, penalty: Floats, beta: Floats) -> float:
    z = x @ beta
    return float((w * (np.logaddexp(0.0, z) - y * z)).sum() + 0.5 * (penalty * beta * beta).sum())
