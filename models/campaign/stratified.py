"""One arm against the control inside strata, so that the base rate of a stratum never looks like an effect.

Every function takes (control, treatment) by stratum and expects strata that dealt both; a customer of another stratum
has no part in the comparison. With one stratum each result is that of the plain two-sample method.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from models.statistics import (
    Interval,
    Mean,
    Omnibus,
    Proportion,
    fieller_interval,
    log_ratio_interval,
    omnibus,
    wilson,
)

Rates = Mapping[str, tuple[Proportion, Proportion]]
Means = Mapping[str, tuple[Mean, Mean]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedDifference:
    """Both arms averaged over the same strata with the same `weights`, which sum to 1, and the variances of the two."""

    control: float
    treatment: float
    control_variance: float
    treatment_variance: float
    weights: Mapping[str, float]

    @property
    def difference(self) -> float:
        return self.treatment - self.control

    @property
    def se(self) -> float:
        return math.sqrt(self.control_variance + self.treatment_variance)

    def normal_interval(self, critical: float) -> Interval:
        """The difference, give or take `critical` standard errors."""
        return Interval(self.difference - critical * self.se, self.difference + critical * self.se)

    def rate_lift(self, *, confidence: float) -> Interval | None:
        """Katz's interval of the relative lift of weighted rates; `None` when an arm has no event."""
        if not self.control or not self.treatment:
            return None
        return log_ratio_interval(
            self.control, self.treatment, self.control_variance, self.treatment_variance, confidence=confidence
        )

    def mean_lift(self, *, confidence: float) -> Interval | None:
        """Fieller's interval of the relative lift of weighted means; `None` when it is unbounded."""
        return fieller_interval(
            self.control, self.treatment, self.control_variance, self.treatment_variance, confidence=confidence
        )


def stratum_weighted(cells: Rates | Means, customers: Mapping[str, int]) -> WeightedDifference | None:
    """Post-stratified difference: sum of w_s (treatment - control) with w_s the stratum's share of `customers`.

    The weights are taken over the strata in `cells`. A stratum with a single unit in an arm gives no variance and is
    left out. `None` when nothing remains. Imbens and Rubin, Causal Inference (2015), chapter 9.
    """
    usable = {s: pair for s, pair in cells.items() if min(pair[0].n, pair[1].n) > 1}
    total = sum(customers[s] for s in usable)
    if not total:
        return None
    weights = {s: customers[s] / total for s in usable}
    arms = [[(weights[s], pair[side]) for s, pair in usable.items()] for side in (0, 1)]
    (control, v0), (treatment, v1) = (
        (sum(w * _centre(arm) for w, arm in side), sum(w * w * arm.variance / arm.n for w, arm in side))
        for side in arms
    )
    return WeightedDifference(
        control=control, treatment=treatment, control_variance=v0, treatment_variance=v1, weights=weights
    )


def _centre(arm: Proportion | Mean) -> float:
    return arm.rate if isinstance(arm, Proportion) else arm.mean


def weighted_newcombe(cells: Rates, weights: Mapping[str, float], *, confidence: float = 0.95) -> Interval:
    """Newcombe's interval of a weighted difference: Wilson's limits of every rate, their distances added in squares.

    Zou, Huang and Zhang, Computational Statistics and Data Analysis 53 (2009).
    """
    difference = down = up = 0.0
    for stratum, weight in weights.items():
        control, treatment = cells[stratum]
        low, high = wilson(control, confidence=confidence), wilson(treatment, confidence=confidence)
        difference += weight * (treatment.rate - control.rate)
        down += weight**2 * ((treatment.rate - high.low) ** 2 + (low.high - control.rate) ** 2)
        up += weight**2 * ((high.high - treatment.rate) ** 2 + (control.rate - low.low) ** 2)
    return Interval(difference - math.sqrt(down), difference + math.sqrt(up))


def exact_p(cells: Rates) -> float | None:
    """Two-sided exact conditional Mantel-Haenszel p: the treated events given the margins of every stratum.

    Each stratum's count is hypergeometric under no effect, so the distribution of their sum is a convolution; with one
    stratum this is Fisher's exact test. `None` when no stratum has both outcomes. Agresti, Categorical Data Analysis,
    section 7.3.5.
    """
    chance, observed, informative = np.ones(1), 0, False
    for control, treatment in cells.values():
        events, n = control.successes + treatment.successes, control.n + treatment.n
        if events in (0, n):
            continue
        informative = True
        lowest, highest = max(0, events - control.n), min(events, treatment.n)
        own = stats.hypergeom.pmf(np.arange(lowest, highest + 1), n, events, treatment.n)
        chance = np.convolve(chance, own)
        observed += treatment.successes - lowest
    if not informative:
        return None
    return min(1.0, float(chance[chance <= chance[observed] * (1 + 1e-7)].sum()))


def smallest_expected(cells: Rates) -> float:
    """The smallest of the four expected counts under no effect, each summed over strata (Mantel and Fleiss, 1980)."""
    counts = np.zeros(4)
    for control, treatment in cells.values():
        share = (control.successes + treatment.successes) / (control.n + treatment.n)
        counts += [control.n * share, control.n * (1 - share), treatment.n * share, treatment.n * (1 - share)]
    return float(counts.min())


def stratified_omnibus(strata: Sequence[Sequence[Proportion]]) -> Omnibus:
    """Chi-square that the arms of every stratum share that stratum's rate: statistics and degrees of freedom add up."""
    found = [each for each in (omnibus(arms) for arms in strata if len(arms) > 1) if each.statistic]
    df = sum(each.df for each in found)
    statistic = sum(each.statistic for each in found)
    return Omnibus(statistic, df, float(stats.chi2.sf(statistic, df)) if df else 1.0)
