"""Chance without a dice: the same salt and unit always draw the same number, on every replica and in every run."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping


def uniform(*parts: str) -> float:
    """A number in [0, 1) that depends on the parts alone: the first 15 hex digits of their SHA-256."""
    return int(hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:15], 16) / 16**15


def rendezvous(unit: str, weights: Mapping[str, float], *, salt: str) -> str:
    """The arm that the unit draws, each as often as its share of the positive `weights`.

    Adding an arm, or raising its weight, only moves units into that arm; all others stay where they are.
    Weighted rendezvous hashing: an exponential waiting time per arm, the shortest wins.
    """
    # 1 - u is as uniform as u, and never 0.
    return min(weights, key=lambda arm: -math.log1p(-uniform(salt, arm, unit)) / weights[arm])
