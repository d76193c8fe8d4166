"""Tests, intervals and corrections, each from summary numbers to a typed result; no data, no state, no verdict.

Every interval is two-sided. `confidence` is the coverage of one interval; a caller that looks at several arms passes
the level that its correction demands. Verdicts are given elsewhere, by each kind of experiment in one place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from scipy import integrate, optimize, special, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

#: Below this expected count in any cell of a 2x2 table the normal approximation is not used.
SMALL_CELL = 5.0


@dataclass(frozen=True, slots=True)
class Interval:
    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Proportion:
    """`successes` of `n` units."""

    successes: int
    n: int

    def __post_init__(self) -> None:
        if not 0 <= self.successes <= self.n or self.n == 0:
            raise ValueError("a proportion needs 0 <= successes <= n and n > 0")

    @property
    def rate(self) -> float:
        return self.successes / self.n

    @property
    def variance(self) -> float:
        """Sample variance of the 0/1 outcomes; NaN for a single unit."""
        return self.rate * (1 - self.rate) * self.n / (self.n - 1) if self.n > 1 else math.nan


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean and sample standard deviation (n - 1) of `n` units."""

    mean: float
    sd: float
    n: int

    @classmethod
    def from_sums(cls, n: int, total: float, total_squares: float) -> Mean:
        mean = total / n
        variance = (total_squares - total * mean) / (n - 1) if n > 1 else math.nan
        return cls(mean, math.sqrt(max(variance, 0.0)) if n > 1 else math.nan, n)

    @classmethod
    def of_clusters(cls, sums: ClusterSums) -> Mean:
        """The mean of an observation when observations of one cluster resemble each other; `n` counts clusters.

        sd**2 / n is the delta-method variance of the ratio of sums, so every function on means holds its level as it
        would for `n` independent units. With one observation each this is the plain mean. Deng, Knoblich and Lu, KDD
        2018.
        """
        k, mean = sums.clusters, sums.total / sums.count
        residual = sums.total_squares - 2 * mean * sums.total_times_count + mean * mean * sums.count_squares
        sd = math.sqrt(max(residual, 0.0) / (k - 1)) * k / sums.count if k > 1 else math.nan
        return cls(mean, sd, k)

    @property
    def variance(self) -> float:
        return self.sd**2


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSums:
    """Sufficient statistics of clustered observations: each cluster has a total and a count of them, summed here.

    `total_times_count` sums their product over clusters, the squares each by itself.
    """

    clusters: int
    count: int
    total: float
    count_squares: float
    total_squares: float
    total_times_count: float


class Method(StrEnum):
    """How a p-value came about."""

    POOLED_Z = "pooled z"
    FISHER = "Fisher exact"
    NO_EVENTS = "no events"
    WELCH = "Welch t"
    ALWAYS_VALID = "always-valid sequence"
    DUNNETT = "Dunnett-type maximum z, stratum-weighted"
    STRATIFIED_Z = "stratum-weighted z"
    STRATIFIED_EXACT = "stratified exact"
    HOLM_EXACT = "Holm over stratified exact tests"
    NOT_ESTIMABLE = "not estimable"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Treatment minus control. `statistic` and `df` are NaN where the method has none."""

    difference: float
    interval: Interval
    p: float
    method: Method
    statistic: float = math.nan
    df: float = math.nan


def compare_proportions(control: Proportion, treatment: Proportion, *, confidence: float = 0.95) -> Comparison:
    """Pooled z test, Fisher's exact test when an expected cell is under 5, with Newcombe's interval in every case.

    z squared equals the uncorrected 2x2 chi-square. Newcombe, Statistics in Medicine 17 (1998), method 10. Without any
    event p is 1 and the method says so.
    """
    difference = treatment.rate - control.rate
    interval = newcombe(control, treatment, confidence=confidence)
    n, events = control.n + treatment.n, control.successes + treatment.successes
    if events in (0, n):
        return Comparison(difference, interval, 1.0, Method.NO_EVENTS)
    if _smallest_expected(control, treatment) < SMALL_CELL:
        table = [
            [treatment.successes, control.successes],
            [treatment.n - treatment.successes, control.n - control.successes],
        ]
        return Comparison(difference, interval, float(stats.fisher_exact(table).pvalue), Method.FISHER)
    pooled = events / n
    z = difference / math.sqrt(pooled * (1 - pooled) * (1 / treatment.n + 1 / control.n))
    return Comparison(difference, interval, 2 * float(stats.norm.sf(abs(z))), Method.POOLED_Z, z)


def _smallest_expected(control: Proportion, treatment: Proportion) -> float:
    """The smallest expected count of the 2x2 table under equal rates."""
    share = (control.successes + treatment.successes) / (control.n + treatment.n)
    return min(control.n, treatment.n) * min(share, 1 - share)


def wilson(arm: Proportion, *, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of one rate (JASA 22, 1927)."""
    low, high = proportion_confint(arm.successes, arm.n, alpha=1 - confidence, method="wilson")
    return Interval(float(low), float(high))


def mean_interval(arm: Mean, *, confidence: float = 0.95) -> Interval:
    """Student's t interval of one mean; NaN for a single unit."""
    half = float(stats.t.ppf(0.5 + confidence / 2, arm.n - 1)) * arm.sd / math.sqrt(arm.n) if arm.n > 1 else math.nan
    return Interval(arm.mean - half, arm.mean + half)


def newcombe(control: Proportion, treatment: Proportion, *, confidence: float = 0.95) -> Interval:
    """Newcombe's hybrid of two Wilson score intervals for treatment minus control."""
    low, high = confint_proportions_2indep(
        treatment.successes, treatment.n, control.successes, control.n, method="newcomb", alpha=1 - confidence
    )
    return Interval(float(low), float(high))


def compare_means(control: Mean, treatment: Mean, *, confidence: float = 0.95) -> Comparison:
    """Welch's t test with Satterthwaite's degrees of freedom (Welch, Biometrika 34, 1947)."""
    v1, v0 = treatment.variance / treatment.n, control.variance / control.n
    difference, variance = treatment.mean - control.mean, v1 + v0
    if not variance > 0:
        return Comparison(difference, Interval(math.nan, math.nan), 1.0, Method.NOT_ESTIMABLE)
    df = variance**2 / (v1**2 / (treatment.n - 1) + v0**2 / (control.n - 1))
    t, half = difference / math.sqrt(variance), float(stats.t.ppf(0.5 + confidence / 2, df)) * math.sqrt(variance)
    p = 2 * float(stats.t.sf(abs(t), df))
    return Comparison(difference, Interval(difference - half, difference + half), p, Method.WELCH, t, df)


def always_valid(
    control: Mean, treatment: Mean, *, planned: int, alpha: float = 0.05, confidence: float = 0.95
) -> Comparison:
    """Difference of means whose interval and p hold at every look at once, however often one looks.

    `planned` is the number of units, both groups together, at which `alpha` is to be tightest. The interval excludes 0
    exactly when p < 1 - `confidence`. Waudby-Smith et al., Annals of Statistics 52 (2024).
    """
    difference, n = treatment.mean - control.mean, treatment.n + control.n
    variance = treatment.variance / treatment.n + control.variance / control.n
    if not variance > 0:
        return Comparison(difference, Interval(math.nan, math.nan), 1.0, Method.NOT_ESTIMABLE)
    weight = n * (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / planned
    spread = 2 * (weight + 1) / weight * (math.log(weight + 1) / 2 - math.log(1 - confidence))
    half = math.sqrt(variance * spread)
    log_e = weight * difference**2 / (2 * variance * (weight + 1)) - math.log(weight + 1) / 2
    p = math.exp(-max(log_e, 0.0))
    return Comparison(difference, Interval(difference - half, difference + half), p, Method.ALWAYS_VALID)


def katz_lift(control: Proportion, treatment: Proportion, *, confidence: float = 0.95) -> Interval | None:
    """Interval of the relative lift (0.1 is +10 %) on the log-ratio scale; `None` when an arm has no event.

    Katz et al., Biometrics 34 (1978).
    """
    if not control.successes or not treatment.successes:
        return None
    v0, v1 = (arm.rate * (1 - arm.rate) / arm.n for arm in (control, treatment))
    return log_ratio_interval(control.rate, treatment.rate, v0, v1, confidence=confidence)


def log_ratio_interval(
    control: float, treatment: float, control_variance: float, treatment_variance: float, *, confidence: float = 0.95
) -> Interval:
    """Interval of treatment / control - 1 on the log scale for two positive estimates, by the delta method."""
    spread = math.sqrt(treatment_variance / treatment**2 + control_variance / control**2)
    ratio, half = treatment / control, float(stats.norm.ppf(0.5 + confidence / 2)) * spread
    return Interval(ratio * math.exp(-half) - 1, ratio * math.exp(half) - 1)


def fieller_lift(control: Mean, treatment: Mean, *, confidence: float = 0.95) -> Interval | None:
    """Interval of the relative lift of independent means; `None` when the control mean is not clearly off zero,
    because the set is then unbounded. Fieller, JRSS B 16 (1954).
    """
    v0, v1 = control.variance / control.n, treatment.variance / treatment.n
    return fieller_interval(control.mean, treatment.mean, v0, v1, confidence=confidence)


def fieller_interval(
    control: float, treatment: float, control_variance: float, treatment_variance: float, *, confidence: float = 0.95
) -> Interval | None:
    """Fieller's interval of treatment / control - 1 from two estimates and their own variances."""
    v0, v1 = control_variance, treatment_variance
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    if control == 0 or (g := z * z * v0 / control**2) >= 1:
        return None
    ratio = treatment / control
    half = z / abs(control) * math.sqrt(v1 + ratio**2 * v0 - g * v1)
    return Interval((ratio - half) / (1 - g) - 1, (ratio + half) / (1 - g) - 1)


@dataclass(frozen=True, slots=True)
class Omnibus:
    """Chi-square of all arms at once."""

    statistic: float
    df: int
    p: float


def omnibus(arms: Sequence[Proportion]) -> Omnibus:
    """Uncorrected chi-square that all arms share one rate, with k - 1 degrees of freedom; p is 1 without events."""
    table = np.array([[arm.successes, arm.n - arm.successes] for arm in arms])
    if (table.sum(axis=0) == 0).any():
        return Omnibus(0.0, len(arms) - 1, 1.0)
    statistic, p, df, _ = stats.chi2_contingency(table, correction=False)
    return Omnibus(float(statistic), int(df), float(p))


@dataclass(frozen=True, slots=True)
class ManyToOne:
    """Arms against one control: `critical` is the simultaneous two-sided bound of |z|, `p` adjusted, in given order."""

    critical: float
    p: tuple[float, ...]


def dunnett(statistics: Sequence[float], loadings: Sequence[float], *, alpha: float = 0.05) -> ManyToOne:
    """Single-step comparison with the maximum of correlated normal |z| (Dunnett, JASA 50, 1955; Hothorn et al., 2008).

    `loadings` are those of the z statistics on the shared control; see `many_to_one_loadings`. Corrected intervals are
    difference ± critical · SE, and p < alpha exactly when such an interval excludes 0.
    """
    critical = float(optimize.brentq(lambda c: _beyond(c, loadings) - alpha, 0.5, 8.0, xtol=1e-9))
    return ManyToOne(critical, tuple(_beyond(abs(z), loadings) for z in statistics))


def many_to_one_loadings(arms: Sequence[int], control: int) -> tuple[float, ...]:
    """sqrt(n_i / (n_i + n_0)): the product of two is the correlation of their z statistics, 0.5 for equal sizes."""
    return tuple(math.sqrt(n / (n + control)) for n in arms)


def _beyond(bound: float, loadings: Sequence[float]) -> float:
    """P(max |z_i| > bound): given the control's share x of the noise, the z_i are independent, so one integral does."""
    if len(loadings) == 1:
        return 2 * float(stats.norm.sf(bound))
    if bound > 6:  # beyond this the integral's own error exceeds what is left, and Bonferroni's bound is as good
        return min(1.0, 2 * len(loadings) * float(stats.norm.sf(bound)))
    own = [math.sqrt(1 - b * b) for b in loadings]

    def all_inside(x: float) -> float:
        density = math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        for b, s in zip(loadings, own, strict=True):
            density *= float(special.ndtr((bound - b * x) / s) - special.ndtr((-bound - b * x) / s))
        return density

    inside, _ = integrate.quad(all_inside, -9, 9, epsabs=1e-12, epsrel=1e-10, limit=200)
    return min(1.0, max(0.0, 1 - float(inside)))


def benjamini_hochberg(p: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p-values controlling the false discovery rate (Benjamini and Hochberg, JRSS B 57, 1995)."""
    return tuple(float(value) for value in multipletests(p, method="fdr_bh")[1]) if p else ()


def holm(p: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p-values controlling the chance of any false claim (Holm, Scandinavian J. of Statistics 6, 1979)."""
    return tuple(float(value) for value in multipletests(p, method="holm")[1]) if p else ()


class RatioState(StrEnum):
    """`stop` hides every effect; `skipped` means too few units to tell."""

    OK = "ok"
    WARN = "warn"
    STOP = "stop"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class RatioCheck:
    """Whether the arms have the sizes that the plan asked for."""

    state: RatioState
    statistic: float
    p: float
    observed: tuple[int, ...]
    expected: tuple[float, ...]


def sample_ratio(observed: Sequence[int], expected: Sequence[float]) -> RatioCheck:
    """Chi-square of arm sizes against `expected` (any scale): stop under p 0.001, warn under 0.01.

    Skipped with fewer than two arms or fewer than 8 expected units in an arm. Fabijan et al., KDD 2019.
    """
    total, shares = sum(observed), sum(expected)
    scaled = tuple(total * value / shares for value in expected) if shares else tuple(0.0 for _ in expected)
    if len(observed) < 2 or min(scaled, default=0.0) < 8:
        return RatioCheck(RatioState.SKIPPED, math.nan, math.nan, tuple(observed), scaled)
    statistic, p = stats.chisquare(observed, scaled)
    return RatioCheck(_ratio_state(p), float(statistic), float(p), tuple(observed), scaled)


def sample_ratios(checks: Mapping[str, RatioCheck]) -> dict[str, RatioCheck]:
    """Many checks of one experiment, judged together: p becomes the Benjamini-Hochberg adjusted one, the state follows.

    Skipped checks stay as they are and do not count.
    """
    told = [name for name, check in checks.items() if check.state is not RatioState.SKIPPED]
    adjusted = dict(zip(told, benjamini_hochberg([checks[name].p for name in told]), strict=True))
    return {
        name: replace(check, p=adjusted[name], state=_ratio_state(adjusted[name])) if name in adjusted else check
        for name, check in checks.items()
    }


def _ratio_state(p: float) -> RatioState:
    return RatioState.STOP if p < 0.001 else RatioState.WARN if p < 0.01 else RatioState.OK
