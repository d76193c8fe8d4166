"""What the models learn from: customers at past instants with what came after, and outreach with what it brought."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from models.insights.features import Floats
from models.insights.types import Facts

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshots:
    """N times a customer at a cut-off: the features known then, and whether the customer had left at the horizon's end.

    `cutoffs` counts into `instants`, which rise; `customers` are numbers that name a customer; `held_out` marks the
    customers who are kept for the test.
    """

    features: Floats
    churned: Bools
    customers: Ints
    cutoffs: Ints
    held_out: Bools
    instants: tuple[datetime, ...]

    def where(self, rows: Bools) -> Snapshots:
        return Snapshots(
            features=self.features[rows],
            churned=self.churned[rows],
            customers=self.customers[rows],
            cutoffs=self.cutoffs[rows],
            held_out=self.held_out[rows],
            instants=self.instants,
        )

    @property
    def leavers(self) -> int:
        """How many customers left, each counted once."""
        return len(np.unique(self.customers[self.churned]))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OutreachHistory:
    """N pieces of outreach with a known outcome; `facts` are those of the day before.

    `propensity` is the probability with which a lot chose the action, NaN where a person chose.
    """

    facts: tuple[Facts, ...]
    actions: NDArray[np.str_]
    responded: Bools
    propensity: Floats
    customers: Ints

    @property
    def by_lot(self) -> Bools:
        return np.isfinite(self.propensity)

    def where(self, rows: Bools) -> OutreachHistory:
        return OutreachHistory(
            facts=tuple(facts for facts, kept in zip(self.facts, rows, strict=True) if kept),
            actions=self.actions[rows],
            responded=self.responded[rows],
            propensity=self.propensity[rows],
            customers=self.customers[rows],
        )
