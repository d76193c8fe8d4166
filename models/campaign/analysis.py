"""The one place where an experiment is judged: one conclusion per arm and metric, and it may be "no difference shown".

The sample ratio is checked first; a mismatch hides every effect. The primary metric is decided by simultaneous
comparison of all arms with the control, on differences averaged over segments. Secondary metrics share one false
discovery rate. A conclusion is drawn when the adjusted p-value is below alpha *and* the matching interval excludes
zero; the unadjusted tests and the relative lifts beside it describe, and never decide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from scipy import stats

from models.campaign.statistics import (
    SMALL_CELL,
    Comparison,
    Interval,
    Mean,
    Method,
    Omnibus,
    Proportion,
    RatioCheck,
    RatioState,
    WeightedDifference,
    benjamini_hochberg,
    compare_means,
    compare_proportions,
    dunnett,
    fieller_lift,
    holm,
    katz_lift,
    many_to_one_loadings,
    mean_interval,
    newcombe,
    omnibus,
    sample_ratio,
    smallest_expected,
    stratum_weighted,
    wilson,
)
from models.campaign.types import TREATMENTS, Arm, CellSummary


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
    """What one arm did by itself, with 95 % intervals (Wilson for rates, t for spend in money units)."""

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
    """One arm against the control on one metric.

    `difference` is averaged over segments, `interval` and `p` are corrected for all comparisons of the same family.
    `relative` describes the size as a share of the control, with its own interval where one exists.
    """

    arm: Arm
    metric: Metric
    primary: bool
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
    """The whole judgement. `arms` and `lifts` are empty unless the state is `measured`."""

    state: ExperimentState
    headline: str
    ratio: RatioCheck
    ratio_arms: tuple[Arm, ...]
    ratio_by_segment: Mapping[str, RatioCheck]
    left_out: tuple[str, ...]
    arms: tuple[ArmSummary, ...] = ()
    lifts: tuple[Lift, ...] = ()
    overall: Omnibus | None = None
    smallest_detectable: float | None = None


def analyse(
    cells: Sequence[CellSummary],
    expected: Mapping[Arm, float],
    *,
    alpha: float = 0.05,
    primary: Metric = Metric.VISIT,
) -> ExperimentResult:
    """Judge an experiment from its sufficient statistics; `expected` holds the planned size of every arm."""
    strata = {cell.stratum for cell in cells}
    compared = {s for s in strata if len({c.arm for c in cells if c.stratum == s and c.customers}) > 1}
    used = [cell for cell in cells if cell.stratum in compared]
    left_out = tuple(sorted(strata - compared))
    order = tuple(arm for arm in Arm if expected.get(arm))
    observed = {arm: sum(cell.customers for cell in used if cell.arm is arm) for arm in order}
    ratio = sample_ratio([observed[arm] for arm in order], [expected[arm] for arm in order])
    by_segment = {s: _segment_ratio([c for c in used if c.stratum == s], order) for s in sorted(compared)}
    known = {"ratio": ratio, "ratio_arms": order, "ratio_by_segment": by_segment, "left_out": left_out}

    treatments = [arm for arm in TREATMENTS if observed.get(arm)]
    if not treatments or not observed.get(Arm.CONTROL):
        headline = "There was nothing to compare: no segment had both an approved message and a control group."
        return ExperimentResult(state=ExperimentState.NO_EXPERIMENT, headline=headline, **known)  # type: ignore[arg-type]  # one dict, four types
    if ratio.state is RatioState.STOP:
        headline = "The groups do not have the sizes that were planned, so no effect is shown until that is explained."
        return ExperimentResult(state=ExperimentState.SAMPLE_RATIO_MISMATCH, headline=headline, **known)  # type: ignore[arg-type]  # one dict, four types

    arms = {arm: _arm(arm, used) for arm in (Arm.CONTROL, *treatments)}
    lifts = [*_primary(arms, treatments, used, primary, alpha), *_secondary(arms, treatments, used, primary, alpha)]
    return ExperimentResult(
        state=ExperimentState.MEASURED,
        headline=_headline([lift for lift in lifts if lift.primary]),
        arms=tuple(arms.values()),
        lifts=tuple(lifts),
        overall=omnibus([_proportion(arm, primary) for arm in arms.values()]),
        smallest_detectable=_smallest_detectable(arms, treatments, primary, alpha),
        **known,  # type: ignore[arg-type]  # one dict, four types
    )


def _segment_ratio(cells: Sequence[CellSummary], order: Sequence[Arm]) -> RatioCheck:
    sizes = [sum(cell.customers for cell in cells if cell.arm is arm) for arm in order]
    dealt = [size for size in sizes if size]
    return sample_ratio(dealt, [1.0] * len(dealt))


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


def _proportion(arm: ArmSummary, metric: Metric) -> Proportion:
    return arm.conversions if metric is Metric.CONVERSION else arm.visits


def _cell_value(cell: CellSummary, metric: Metric) -> Proportion | Mean:
    if metric is Metric.SPEND:
        return _mean(cell.customers, cell.spend_cents, cell.spend_cents_squared)
    return Proportion(cell.visits if metric is Metric.VISIT else cell.conversions, cell.customers)


def _weighted(cells: Sequence[CellSummary], arm: Arm, metric: Metric) -> WeightedDifference | None:
    by_stratum: dict[str, dict[Arm, CellSummary]] = {}
    for cell in cells:
        if cell.customers:
            by_stratum.setdefault(cell.stratum, {})[cell.arm] = cell
    pairs = {
        stratum: (_cell_value(arms[Arm.CONTROL], metric), _cell_value(arms[arm], metric))
        for stratum, arms in by_stratum.items()
        if Arm.CONTROL in arms and arm in arms
    }
    return stratum_weighted(pairs, {s: sum(c.customers for c in arms.values()) for s, arms in by_stratum.items()})


def _primary(
    arms: Mapping[Arm, ArmSummary],
    treatments: Sequence[Arm],
    cells: Sequence[CellSummary],
    metric: Metric,
    alpha: float,
) -> list[Lift]:
    control = _proportion(arms[Arm.CONTROL], metric)
    against = {arm: _proportion(arms[arm], metric) for arm in treatments}
    weighted = {arm: _weighted(cells, arm, metric) for arm in treatments}
    usable = all(difference is not None and difference.se > 0 for difference in weighted.values())
    if usable and min(smallest_expected(control, arm) for arm in against.values()) >= SMALL_CELL:
        z = [w.difference / w.se for w in weighted.values() if w]
        family = dunnett(z, many_to_one_loadings([a.n for a in against.values()], control.n), alpha=alpha)
        return [
            _lift(arms, arm, metric, (w.difference, w.se * family.critical), p, Method.DUNNETT, alpha, 1 - alpha)
            for (arm, w), p in zip(weighted.items(), family.p, strict=True)
            if w
        ]
    # Too few events for a normal approximation: exact tests, Holm over the arms, intervals at the Bonferroni level.
    confidence = 1 - alpha / len(treatments)
    exact = [compare_proportions(control, arm, confidence=confidence) for arm in against.values()]
    method = Method.NO_EVENTS if all(c.method is Method.NO_EVENTS for c in exact) else Method.HOLM_EXACT
    return [
        _lift(arms, arm, metric, newcombe(control, against[arm], confidence=confidence), p, method, alpha, confidence)
        for arm, p in zip(treatments, holm([c.p for c in exact]), strict=True)
    ]


def _secondary(
    arms: Mapping[Arm, ArmSummary],
    treatments: Sequence[Arm],
    cells: Sequence[CellSummary],
    primary: Metric,
    alpha: float,
) -> list[Lift]:
    pairs = [(metric, arm) for metric in Metric if metric is not primary for arm in treatments]
    tests = [_secondary_test(arms, arm, cells, metric) for metric, arm in pairs]
    adjusted = benjamini_hochberg([p for _, p, _ in tests])
    # Intervals at 1 - R alpha / m exclude zero for exactly the R discoveries (Benjamini and Yekutieli, JASA 100, 2005).
    discoveries = sum(p < alpha for p in adjusted)
    confidence = 1 - max(discoveries, 1) * alpha / max(len(pairs), 1)
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    lifts = []
    for (metric, arm), (weighted, _, method), p in zip(pairs, tests, adjusted, strict=True):
        if weighted is not None:
            spread: Interval | tuple[float, float] = (weighted.difference, z * weighted.se)
        elif metric is Metric.SPEND:
            spread = Interval(math.nan, math.nan)
        else:
            control = _proportion(arms[Arm.CONTROL], metric)
            spread = newcombe(control, _proportion(arms[arm], metric), confidence=confidence)
        lifts.append(_lift(arms, arm, metric, spread, p, method, alpha, confidence, primary=False))
    return lifts


def _secondary_test(
    arms: Mapping[Arm, ArmSummary], arm: Arm, cells: Sequence[CellSummary], metric: Metric
) -> tuple[WeightedDifference | None, float, Method]:
    """The estimate when a normal approximation holds, the unadjusted p, and how it came about."""
    weighted = _weighted(cells, arm, metric)
    counted = Metric.CONVERSION if metric is Metric.SPEND else metric
    control, treatment = _proportion(arms[Arm.CONTROL], counted), _proportion(arms[arm], counted)
    if weighted and weighted.se > 0 and smallest_expected(control, treatment) >= SMALL_CELL:
        p = 2 * float(stats.norm.sf(abs(weighted.difference) / weighted.se))
        return weighted, p, Method.STRATIFIED_Z
    if metric is Metric.SPEND:  # a handful of buyers says nothing about a mean
        return None, 1.0, Method.NOT_ESTIMABLE
    exact = compare_proportions(control, treatment)
    return None, exact.p, exact.method


def _lift(
    arms: Mapping[Arm, ArmSummary],
    arm: Arm,
    metric: Metric,
    spread: Interval | tuple[float, float],
    p: float,
    method: Method,
    alpha: float,
    confidence: float,
    *,
    primary: bool = True,
) -> Lift:
    control, treatment = arms[Arm.CONTROL], arms[arm]
    relative: Interval | None
    if metric is Metric.SPEND:
        control_value, arm_value = control.spend.mean, treatment.spend.mean
        unadjusted = compare_means(control.spend, treatment.spend)
        relative = fieller_lift(control.spend, treatment.spend, confidence=confidence)
    else:
        a, b = _proportion(control, metric), _proportion(treatment, metric)
        control_value, arm_value, unadjusted = a.rate, b.rate, compare_proportions(a, b)
        relative = katz_lift(a, b, confidence=confidence)
    if isinstance(spread, Interval):
        difference, interval = arm_value - control_value, spread
    else:
        difference, half = spread
        interval = Interval(difference - half, difference + half)
    conclusion = _conclude(difference, interval, p, method, alpha)
    return Lift(
        arm=arm,
        metric=metric,
        primary=primary,
        control_value=control_value,
        arm_value=arm_value,
        difference=difference,
        interval=interval,
        confidence=confidence,
        p=p,
        method=method,
        conclusion=conclusion,
        sentence=_sentence(arm, metric, difference, interval, p, conclusion, confidence),
        relative=arm_value / control_value - 1 if control_value else None,
        relative_interval=relative,
        unadjusted=unadjusted,
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


def _smallest_detectable(
    arms: Mapping[Arm, ArmSummary], treatments: Sequence[Arm], metric: Metric, alpha: float, power: float = 0.8
) -> float | None:
    """The difference these sizes would show with 80 % power, Bonferroni over the arms; `None` without events."""
    control = _proportion(arms[Arm.CONTROL], metric)
    smallest = min(arms[arm].customers for arm in treatments)
    spread = control.rate * (1 - control.rate) * (1 / control.n + 1 / smallest)
    quantiles = stats.norm.ppf(1 - alpha / (2 * len(treatments))) + stats.norm.ppf(power)
    return float(quantiles) * math.sqrt(spread) if spread else None
