"""Class scores to probabilities: softmax with one temperature, fitted by maximum likelihood.

Guo et al., "On Calibration of Modern Neural Networks" (2017), section 4.2, for the method and the expected
calibration error.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Temperatures tried for cosine scores, from very sharp to nearly flat.
_GRID = np.geomspace(0.005, 1.0, 200)


def probabilities(scores: Floats, temperature: float) -> Floats:
    """Softmax over the last axis of scores / temperature; rows sum to 1."""
    shifted = scores / temperature
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True), dtype=np.float64)


def fit_temperature(scores: Floats, labels: NDArray[np.intp]) -> float:
    """The temperature under which `labels` are most likely, every class weighing the same whatever its size.

    `scores` has shape (samples, classes), `labels` (samples,). Deterministic.
    """
    rows = np.arange(len(labels))
    weights = (1.0 / np.bincount(labels, minlength=scores.shape[1]).clip(min=1))[labels]
    losses = [
        float(-(weights * np.log(probabilities(scores, float(t))[rows, labels].clip(min=1e-12))).sum()) for t in _GRID
    ]
    return float(_GRID[int(np.argmin(losses))])


def expected_calibration_error(confidences: Floats, correct: NDArray[np.bool_], *, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over equally wide bins, weighted by their size; 0 is perfect."""
    edges = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    index = np.digitize(confidences, edges)
    total = 0.0
    for b in range(bins):
        chosen = index == b
        if chosen.any():
            total += chosen.mean() * abs(float(confidences[chosen].mean()) - float(correct[chosen].mean()))
    return float(total)
