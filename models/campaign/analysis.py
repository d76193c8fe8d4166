"""The one place where an experiment is judged: one conclusion per arm and metric, and it may be "no difference shown".

The sample ratio is checked first, over all and by segment; a mismatch hides every effect. An arm is compared with the
control of the segments where that arm ran, never with that of others, and the differences are averaged over those
segments. The primary metric is decided by simultaneous comparison of all arms. Secondary metrics share one false
discovery rate. A conclusion is drawn when the adjusted p-value is below alpha *and* the matching interval excludes
zero; the unadjusted tests and the relative lifts beside it describe, and never decide.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from scipy import stats

from models.campaign.stratified import (
    Means,
    Rates,
    WeightedDifference,
    exact_p,
    smallest_expected,
    stratified_omnibus,
    stratum_weighted,
    weighted_newcombe,
)
from models.campaign.types import TREATMENTS, Arm, CellSummary
from models.statistics import (
    SMALL_CELL,
    Comparison,
    Interval,
    Mean,
    Method,
    Omnibus,
    Proportion,
    RatioCheck,
    RatioState,
    benjamini_hochberg,
    compare_means,
    compare_proportions,
    dunnett,
    holm,
    many_to_one_loadings,
    mean_interval,
    sample_ratio,
    sample_ratios,
    wilson,
)


class Metric(StrEnum):
    VISIT = "visit"
    CONVERSION = "conversion"
    SPEND = "spend"


class Conclusion(StrEnum):
    HIGHER = "higher"
    LOWER = "lower"
    NO_DIFFERENCE_SHOWN = "no difference shown"
    NOT_MEASURED = "not measured"


class ExperimentState(StrEnum):
    MEASURED = "measured"
    #: The arms do not have their planned sizes: no effect is shown until that is explained.
    SAMPLE_RATIO_MISMATCH = "sample ratio mismatch"
    NO_EXPERIMENT = "no experiment"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSummary:
    """What one arm did by itself where it ran, with 95 % intervals (Wilson for rates, t for spend in money units).

    Arms that ran in different segments differ in their customers, so these numbers are not to be compared.
    """

    arm: Arm
    customers: int
    visits: Proportion
    visit_interval: Interval
    conversions: Proportion
    conversion_interval: Interval
    spend: Mean
    spend_interval: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Lift:
    """One arm against the control on one metric, in the `segments` where that arm ran.

    Both values are averaged over those segments with the same weights, and `difference` is theirs; `interval` and `p`
    are corrected for all comparisons of the same family. `unadjusted` is the same test without that correction.
    `relative` describes the size as a share of the control, with its own interval where one exists.
    """

    arm: Arm
    metric: Metric
    primary: bool
    segments: tuple[str, ...]
    control_value: float
    arm_value: float
    difference: float
    interval: Interval
    confidence: float
    p: float
    method: Method
    conclusion: Conclusion
    sentence: str
    relative: float | None
    relative_interval: Interval | None
    unadjusted: Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentResult:
    """The whole judgement. `arms` and `lifts` are empty unless the state is `measured`.

    The checks in `ratio_by_segment` are over the arms in `segment_arms`, with p adjusted over segments.
    """

    state: ExperimentState
    headline: str
    ratio: RatioCheck
    ratio_arms: tuple[Arm, ...]
    ratio_by_segment: Mapping[str, RatioCheck]
    segment_arms: Mapping[str, tuple[Arm, ...]]
    left_out: tuple[str, ...]
    arms: tuple[ArmSummary, ...] = ()
    lifts: tuple[Lift, ...] = ()
    overall: Omnibus | None = None
    smallest_detectable: float | None = None


def analyse(
    cells: Sequence[CellSummary],
    expected: Mapping[Arm, float],
    *,
    planned: Mapping[str, Sequence[Arm]] | None = None,
    alpha: float = 0.05,
    primary: Metric = Metric.VISIT,
) -> ExperimentResult:
    """Judge an experiment from its sufficient statistics; `expected` holds the planned size of every arm.

    `planned` names the arms dealt in each stratum, equally often; without it the arms that were seen are taken for it.
    """
    dealt = {s: _ordered(planned[s]) for s in planned} if planned is not None else _seen(cells)
    segment_arms = {stratum: arms for stratum, arms in sorted(dealt.items()) if len(arms) > 1}
    used = [cell for cell in cells if cell.stratum in segment_arms]
    left_out = tuple(sorted({*dealt, *(cell.stratum for cell in cells)} - set(segment_arms)))
    order = tuple(arm for arm in Arm if expected.get(arm))
    ratio = sample_ratio([_size(used, arm) for arm in order], [expected[arm] for arm in order])
    by_segment = sample_ratios({s: _segment_ratio(used, s, arms) for s, arms in segment_arms.items()})
    known = {
        "ratio": ratio,
        "ratio_arms": order,
        "ratio_by_segment": by_segment,
        "segment_arms": segment_arms,
        "left_out": left_out,
    }

    if RatioState.STOP in (ratio.state, *(check.state for check in by_segment.values())):
        headline = "The groups do not have the sizes that were planned, so no effect is shown until that is explained."
        return ExperimentResult(state=ExperimentState.SAMPLE_RATIO_MISMATCH, headline=headline, **known)  # type: ignore[arg-type]  # one dict, many types
    contrasts = [contrast for arm in TREATMENTS if (contrast := _contrast(used, arm, primary))]
    if not contrasts:
        headline = "There was nothing to compare: no segment had both an approved message and a control group."
        return ExperimentResult(state=ExperimentState.NO_EXPERIMENT, headline=headline, **known)  # type: ignore[arg-type]  # one dict, many types

    lifts = [*_primary(contrasts, alpha), *_secondary(used, [c.arm for c in contrasts], primary, alpha)]
    return ExperimentResult(
        state=ExperimentState.MEASURED,
        headline=_headline([lift for lift in lifts if lift.primary]),
        arms=tuple(_arm(arm, used) for arm in (Arm.CONTROL, *(c.arm for c in contrasts))),
        lifts=tuple(lifts),
        overall=stratified_omnibus([[_rate(c, primary) for c in _of(used, s) if c.customers] for s in segment_arms]),
        smallest_detectable=_smallest_detectable(contrasts, alpha),
        **known,  # type: ignore[arg-type]  # one dict, many types
    )


def _ordered(arms: Iterable[Arm]) -> tuple[Arm, ...]:
    return tuple(sorted(set(arms), key=list(Arm).index))


def _seen(cells: Sequence[CellSummary]) -> dict[str, tuple[Arm, ...]]:
    strata = sorted({cell.stratum for cell in cells})
    return {stratum: _ordered(cell.arm for cell in _of(cells, stratum) if cell.customers) for stratum in strata}


def _of(cells: Sequence[CellSummary], stratum: str) -> list[CellSummary]:
    return [cell for cell in cells if cell.stratum == stratum]


def _size(cells: Sequence[CellSummary], arm: Arm) -> int:
    return sum(cell.customers for cell in cells if cell.arm is arm)


def _segment_ratio(cells: Sequence[CellSummary], stratum: str, arms: Sequence[Arm]) -> RatioCheck:
    mine = _of(cells, stratum)
    return sample_ratio([_size(mine, arm) for arm in arms], [1.0] * len(arms))


def _arm(arm: Arm, cells: Sequence[CellSummary]) -> ArmSummary:
    mine = [cell for cell in cells if cell.arm is arm]
    n = sum(cell.customers for cell in mine)
    visits = Proportion(sum(cell.visits for cell in mine), n)
    conversions = Proportion(sum(cell.conversions for cell in mine), n)
    spend = _mean(n, sum(cell.spend_cents for cell in mine), sum(cell.spend_cents_squared for cell in mine))
    return ArmSummary(
        arm=arm,
        customers=n,
        visits=visits,
        visit_interval=wilson(visits),
        conversions=conversions,
        conversion_interval=wilson(conversions),
        spend=spend,
        spend_interval=mean_interval(spend),
    )


def _mean(n: int, cents: int, cents_squared: int) -> Mean:
    return Mean.from_sums(n, cents / 100, cents_squared / 10_000)


def _spend(cell: CellSummary) -> Mean:
    return _mean(cell.customers, cell.spend_cents, cell.spend_cents_squared)


def _rate(cell: CellSummary, metric: Metric) -> Proportion:
    return Proportion(cell.visits if metric is Metric.VISIT else cell.conversions, cell.customers)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contrast:
    """One arm and the control in the segments where both have customers; `rates` are of buyers where spend is meant."""

    arm: Arm
    metric: Metric
    rates: Rates
    means: Means
    weighted: WeightedDifference

    @property
    def sizes(self) -> tuple[int, int]:
        """Customers of control and arm."""
        return sum(a.n for a, _ in self.rates.values()), sum(b.n for _, b in self.rates.values())

    @property
    def normal(self) -> bool:
        """Whether there are events enough for a normal approximation."""
        return self.weighted.se > 0 and smallest_expected(self.rates) >= SMALL_CELL

    def test(self) -> tuple[float, Method]:
        """The two-sided p of this comparison by itself, and how it came about."""
        if self.normal:
            return 2 * float(stats.norm.sf(abs(self.weighted.difference) / self.weighted.se)), Method.STRATIFIED_Z
        if self.metric is Metric.SPEND:  # a handful of buyers says nothing about a mean
            return 1.0, Method.NOT_ESTIMABLE
        p = exact_p(self.rates)
        return (1.0, Method.NO_EVENTS) if p is None else (p, Method.STRATIFIED_EXACT)

    def interval(self, confidence: float) -> Interval:
        """The interval that goes with `test`."""
        if self.normal:
            return self.weighted.normal_interval(float(stats.norm.ppf(0.5 + confidence / 2)))
        if self.metric is Metric.SPEND:
            return Interval(math.nan, math.nan)
        return weighted_newcombe(self.rates, self.weighted.weights, confidence=confidence)

    def unadjusted(self) -> Comparison:
        """This comparison as if it were the only one; in a single segment by the plain two-sample methods."""
        if len(self.rates) == 1:
            (rates,), means = self.rates.values(), list(self.means.values())
            return compare_means(*means[0]) if self.metric is Metric.SPEND else compare_proportions(*rates)
        p, method = self.test()
        return Comparison(self.weighted.difference, self.interval(0.95), p, method)


def _contrast(cells: Sequence[CellSummary], arm: Arm, metric: Metric) -> _Contrast | None:
    """`None` when no segment has two customers in each of the two groups."""
    by_stratum: dict[str, dict[Arm, CellSummary]] = {}
    for cell in cells:
        if cell.customers > 1:
            by_stratum.setdefault(cell.stratum, {})[cell.arm] = cell
    pairs = {s: (has[Arm.CONTROL], has[arm]) for s, has in by_stratum.items() if Arm.CONTROL in has and arm in has}
    rates = {s: (_rate(control, metric), _rate(mine, metric)) for s, (control, mine) in pairs.items()}
    means = {s: (_spend(control), _spend(mine)) for s, (control, mine) in pairs.items()}
    sizes = {s: sum(cell.customers for cell in _of(cells, s)) for s in pairs}
    weighted = stratum_weighted(means if metric is Metric.SPEND else rates, sizes)
    return _Contrast(arm=arm, metric=metric, rates=rates, means=means, weighted=weighted) if weighted else None


def _primary(contrasts: Sequence[_Contrast], alpha: float) -> list[Lift]:
    if all(contrast.normal for contrast in contrasts):
        z = [contrast.weighted.difference / contrast.weighted.se for contrast in contrasts]
        family = dunnett(z, _loadings(contrasts), alpha=alpha)
        return [
            _lift(each, each.weighted.normal_interval(family.critical), p, Method.DUNNETT, alpha, 1 - alpha)
            for each, p in zip(contrasts, family.p, strict=True)
        ]
    # Too few events for a normal approximation: exact tests, Holm over the arms, intervals at the Bonferroni level.
    confidence = 1 - alpha / len(contrasts)
    exact = [exact_p(contrast.rates) for contrast in contrasts]
    adjusted = holm([1.0 if p is None else p for p in exact])
    return [
        _lift(
            each,
            weighted_newcombe(each.rates, each.weighted.weights, confidence=confidence),
            p,
            Method.NO_EVENTS if own is None else Method.HOLM_EXACT,
            alpha,
            confidence,
        )
        for each, own, p in zip(contrasts, exact, adjusted, strict=True)
    ]


def _loadings(contrasts: Sequence[_Contrast]) -> tuple[float, ...]:
    """Arms of the same segments share one control. Otherwise what they share has no such form, and 0 is on the safe
    side: by Sidak's inequality (JASA 62, 1967) no correlation makes a large maximum more likely than independence.
    """
    if len({frozenset(contrast.rates) for contrast in contrasts}) > 1:
        return (0.0,) * len(contrasts)
    return many_to_one_loadings([contrast.sizes[1] for contrast in contrasts], contrasts[0].sizes[0])


def _secondary(cells: Sequence[CellSummary], arms: Sequence[Arm], primary: Metric, alpha: float) -> list[Lift]:
    others = (metric for metric in Metric if metric is not primary)
    contrasts = [contrast for metric in others for arm in arms if (contrast := _contrast(cells, arm, metric))]
    tests = [contrast.test() for contrast in contrasts]
    adjusted = benjamini_hochberg([p for p, _ in tests])
    # Intervals at 1 - R alpha / m exclude zero for exactly the R discoveries (Benjamini and Yekutieli, JASA 100, 2005).
    discoveries = sum(p < alpha for p in adjusted)
    confidence = 1 - max(discoveries, 1) * alpha / max(len(contrasts), 1)
    return [
        _lift(each, each.interval(confidence), p, method, alpha, confidence, primary=False)
        for each, (_, method), p in zip(contrasts, tests, adjusted, strict=True)
    ]


def _lift(
    contrast: _Contrast,
    interval: Interval,
    p: float,
    method: Method,
    alpha: float,
    confidence: float,
    *,
    primary: bool = True,
) -> Lift:
    arm, metric, found = contrast.arm, contrast.metric, contrast.weighted
    conclusion = _conclude(found.difference, interval, p, method, alpha)
    relative = found.mean_lift if metric is Metric.SPEND else found.rate_lift
    return Lift(
        arm=arm,
        metric=metric,
        primary=primary,
        segments=tuple(sorted(found.weights)),
        control_value=found.control,
        arm_value=found.treatment,
        difference=found.difference,
        interval=interval,
        confidence=confidence,
        p=p,
        method=method,
        conclusion=conclusion,
        sentence=_sentence(arm, metric, found.difference, interval, p, conclusion, confidence),
        relative=found.treatment / found.control - 1 if found.control else None,
        relative_interval=relative(confidence=confidence),
        unadjusted=contrast.unadjusted(),
    )


def _conclude(difference: float, interval: Interval, p: float, method: Method, alpha: float) -> Conclusion:
    if method in (Method.NO_EVENTS, Method.NOT_ESTIMABLE):
        return Conclusion.NOT_MEASURED
    if p < alpha and 0.0 not in interval:
        return Conclusion.HIGHER if difference > 0 else Conclusion.LOWER
    return Conclusion.NO_DIFFERENCE_SHOWN


_WORDS = {Metric.VISIT: "visits", Metric.CONVERSION: "conversions", Metric.SPEND: "spend per customer"}


def _sentence(
    arm: Arm,
    metric: Metric,
    difference: float,
    interval: Interval,
    p: float,
    conclusion: Conclusion,
    confidence: float,
) -> str:
    what = _WORDS[metric]
    if conclusion is Conclusion.NOT_MEASURED:
        return f"{arm.value.capitalize()}: too few events to say anything about {what}."
    scale, unit = (1.0, "money units") if metric is Metric.SPEND else (100.0, "points")
    bounds = f"{100 * confidence:.3g} % interval {scale * interval.low:+.2f} to {scale * interval.high:+.2f} {unit}"
    if conclusion is Conclusion.NO_DIFFERENCE_SHOWN:
        return f"{arm.value.capitalize()}: no difference in {what} shown ({bounds}, adjusted p {p:.3g})."
    verb = "rose" if conclusion is Conclusion.HIGHER else "fell"
    return (
        f"{arm.value.capitalize()}: {what} {verb} by {scale * abs(difference):.2f} {unit} "
        f"({bounds}, adjusted p {p:.3g})."
    )


def _headline(lifts: Sequence[Lift]) -> str:
    better = [lift for lift in lifts if lift.conclusion is Conclusion.HIGHER]
    worse = [lift for lift in lifts if lift.conclusion is Conclusion.LOWER]
    what = _WORDS[lifts[0].metric]
    if not better and not worse:
        return f"No difference in {what} was shown between any message and the control group."
    parts = []
    if better:
        parts.append(f"More {what} than in the control group with: {_listed(better)}.")
    if worse:
        parts.append(f"Fewer {what} than in the control group with: {_listed(worse)}.")
    if len(better) + len(worse) < len(lifts):
        parts.append("For the other messages no difference was shown.")
    return " ".join(parts)


def _listed(lifts: Sequence[Lift]) -> str:
    ranked = sorted(lifts, key=lambda lift: -abs(lift.difference))
    return ", ".join(f"{lift.arm.value} ({100 * lift.difference:+.1f} points)" for lift in ranked)


def _smallest_detectable(contrasts: Sequence[_Contrast], alpha: float, power: float = 0.8) -> float | None:
    """The difference every arm's sizes would show with 80 % power, Bonferroni over the arms; `None` without events."""
    widest = 0.0
    for contrast in contrasts:
        spread = sum(
            contrast.weighted.weights[s] ** 2 * control.rate * (1 - control.rate) * (1 / control.n + 1 / arm.n)
            for s, (control, arm) in contrast.rates.items()
        )
        widest = max(widest, spread)
    quantiles = stats.norm.ppf(1 - alpha / (2 * len(contrasts))) + stats.norm.ppf(power)
    return float(quantiles) * math.sqrt(widest) if widest else None
