"""The one place where an experiment with context strategies is judged; it may say "not enough data".

The customer is the unit: strategies are dealt to customers, and conversations of one customer resemble each other, so
a measure's mean is taken over conversations and its error over customers. Such an experiment runs until somebody has
seen enough, and its report may be read every day: differences are judged by always-valid sequences, which keep their
promise however often one looks. The primary measure decides, at the Bonferroni level over the strategies; the others
share one false discovery rate. Before anything is shown the strategies must have the sizes that their weights ask
for, among those assigned and among those who had a conversation, and nobody may have moved between strategies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from models.enrichment.measures import Measure
from models.enrichment.strategies import Experiment
from models.statistics import (
    SMALL_CELL,
    ClusterSums,
    Comparison,
    Interval,
    Mean,
    Method,
    RatioCheck,
    RatioState,
    always_valid,
    benjamini_hochberg,
    compare_means,
    mean_interval,
    sample_ratio,
    sample_ratios,
)

#: Customers with a measure that each of two strategies needs before they are compared.
MIN_CUSTOMERS = 100


class Conclusion(StrEnum):
    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE_SHOWN = "no difference shown"
    NOT_ENOUGH_DATA = "not enough data"


class ReportState(StrEnum):
    MEASURED = "measured"
    #: The strategies do not have their planned sizes: no effect is shown until that is explained.
    SAMPLE_RATIO_MISMATCH = "sample ratio mismatch"
    #: Some customers' strategy is no longer the recorded one: weights, salt or strategies were changed under way.
    CHANGED_WHILE_RUNNING = "changed while running"
    NOBODY_ASSIGNED = "nobody assigned"


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyTally:
    """Sufficient statistics of one strategy: `customers` are those of the `assigned` who had a conversation since."""

    assigned: int
    customers: int
    conversations: int
    measures: Mapping[Measure, ClusterSums]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureSummary:
    """Mean over conversations with its 95 % interval over customers; NaN bounds for a single customer."""

    customers: int
    conversations: int
    mean: float
    interval: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategySummary:
    """What one strategy did by itself."""

    strategy: str
    control: bool
    assigned: int
    customers: int
    conversations: int
    measures: Mapping[Measure, MeasureSummary]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """One strategy against the control on one measure; interval and p are corrected and hold at every look.

    `unadjusted` is Welch's test over customers as if this were the only comparison and the only look: it describes,
    and never decides.
    """

    strategy: str
    measure: Measure
    primary: bool
    difference: float
    interval: Interval
    confidence: float
    p: float
    conclusion: Conclusion
    sentence: str
    unadjusted: Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyReport:
    """The whole judgement. `contrasts` and the measures of `strategies` are empty unless the state is `measured`.

    `winner` is named only when one single strategy is shown to be better on the primary measure, and worse on none.
    """

    experiment: str
    active: bool
    state: ReportState
    headline: str
    winner: str | None
    primary: Measure
    alpha: float
    decision_sample: int
    min_customers: int
    moved: int
    ratios: Mapping[str, RatioCheck]
    strategies: tuple[StrategySummary, ...]
    contrasts: tuple[Contrast, ...] = ()


def analyse(experiment: Experiment, tallies: Mapping[str, StrategyTally], *, moved: int = 0) -> StrategyReport:
    """Judge an experiment; `moved` counts customers whose recorded strategy is not the one they would get now."""
    nothing = StrategyTally(assigned=0, customers=0, conversations=0, measures={})
    dealt = {name: tallies.get(name, nothing) for name in experiment.weights}
    weights = list(experiment.weights.values())
    ratios = sample_ratios(
        {
            "assigned": sample_ratio([tally.assigned for tally in dealt.values()], weights),
            "with a conversation": sample_ratio([tally.customers for tally in dealt.values()], weights),
        }
    )
    state = _state(dealt, ratios, moved)
    measured = state is ReportState.MEASURED
    contrasts = _contrasts(experiment, dealt) if measured else []
    winner = _winner(contrasts)
    return StrategyReport(
        experiment=experiment.name,
        active=experiment.active,
        state=state,
        headline=_headline(experiment, contrasts, winner) if measured else _HEADLINES[state],
        winner=winner,
        primary=experiment.primary,
        alpha=experiment.alpha,
        decision_sample=experiment.decision_sample,
        min_customers=MIN_CUSTOMERS,
        moved=moved,
        ratios=ratios,
        strategies=tuple(
            _summary(name, tally, control=position == 0, measured=measured)
            for position, (name, tally) in enumerate(dealt.items())
        ),
        contrasts=tuple(contrasts),
    )


_HEADLINES: Mapping[ReportState, str] = {
    ReportState.SAMPLE_RATIO_MISMATCH: (
        "The strategies do not have the sizes that their weights ask for, so no effect is shown until that is "
        "explained."
    ),
    ReportState.CHANGED_WHILE_RUNNING: (
        "The experiment was changed while it ran, so some customers were read by two strategies and no effect is "
        "shown. Run it under a new name."
    ),
    ReportState.NOBODY_ASSIGNED: "No customer has been assigned a strategy yet.",
}


def _state(dealt: Mapping[str, StrategyTally], ratios: Mapping[str, RatioCheck], moved: int) -> ReportState:
    if moved:
        return ReportState.CHANGED_WHILE_RUNNING
    if not any(tally.assigned for tally in dealt.values()):
        return ReportState.NOBODY_ASSIGNED
    if any(check.state is RatioState.STOP for check in ratios.values()):
        return ReportState.SAMPLE_RATIO_MISMATCH
    return ReportState.MEASURED


def _summary(name: str, tally: StrategyTally, *, control: bool, measured: bool) -> StrategySummary:
    return StrategySummary(
        strategy=name,
        control=control,
        assigned=tally.assigned,
        customers=tally.customers,
        conversations=tally.conversations,
        measures={m: _measure(m, tally.measures[m]) for m in Measure if m in tally.measures} if measured else {},
    )


def _measure(measure: Measure, sums: ClusterSums) -> MeasureSummary:
    mean = Mean.of_clusters(sums)
    found, (low, high) = mean_interval(mean), measure.bounds
    return MeasureSummary(
        customers=sums.clusters,
        conversations=sums.count,
        mean=mean.mean,
        interval=Interval(max(low, found.low), min(high, found.high)) if sums.clusters > 1 else found,
    )


Key = tuple[str, Measure]
Pair = tuple[Mean, Mean]


def _contrasts(experiment: Experiment, dealt: Mapping[str, StrategyTally]) -> list[Contrast]:
    control, *others = dealt
    alpha = experiment.alpha
    keys: list[Key] = [(name, m) for m in Measure for name in others]
    pairs = {key: pair for key in keys if (pair := _pair(dealt[control], dealt[key[0]], key[1])) is not None}
    p = {key: _compare(experiment, key[0], pair, confidence=1 - alpha).p for key, pair in pairs.items()}

    secondary = [key for key in pairs if key[1] is not experiment.primary]
    adjusted = dict(zip(secondary, benjamini_hochberg([p[key] for key in secondary]), strict=True))
    # Intervals at 1 - R alpha / m exclude zero for exactly the R discoveries (Benjamini and Yekutieli, JASA 100, 2005).
    discoveries = sum(value < alpha for value in adjusted.values())
    confidence = dict.fromkeys(secondary, 1 - max(discoveries, 1) * alpha / max(len(secondary), 1))
    for key in pairs:
        if key[1] is experiment.primary:
            adjusted[key], confidence[key] = min(1.0, len(others) * p[key]), 1 - alpha / len(others)

    ranked = sorted(keys, key=lambda key: key[1] is not experiment.primary)
    return [
        _contrast(experiment, key, pairs[key], adjusted[key], confidence[key])
        if key in pairs
        else _too_little(experiment, key)
        for key in ranked
    ]


def _pair(control: StrategyTally, other: StrategyTally, measure: Measure) -> Pair | None:
    """Control and strategy on one measure; `None` where an approximate test would promise too much."""
    sums = [tally.measures.get(measure) for tally in (control, other)]
    if sums[0] is None or sums[1] is None or min(s.clusters for s in sums if s) < MIN_CUSTOMERS:
        return None
    if measure is Measure.RESOLVED:
        rate = (sums[0].total + sums[1].total) / (sums[0].count + sums[1].count)
        if min(sums[0].clusters, sums[1].clusters) * min(rate, 1 - rate) < SMALL_CELL:
            return None
    means = Mean.of_clusters(sums[0]), Mean.of_clusters(sums[1])
    return means if min(mean.sd for mean in means) > 0 else None


def _compare(experiment: Experiment, name: str, pair: Pair, *, confidence: float) -> Comparison:
    weights = experiment.weights
    share = (weights[name] + next(iter(weights.values()))) / sum(weights.values())
    planned = max(1, round(experiment.decision_sample * share))
    return always_valid(*pair, planned=planned, alpha=experiment.alpha, confidence=confidence)


def _contrast(experiment: Experiment, key: Key, pair: Pair, p: float, confidence: float) -> Contrast:
    name, measure = key
    found = _compare(experiment, name, pair, confidence=confidence)
    conclusion = Conclusion.NO_DIFFERENCE_SHOWN
    if p < experiment.alpha and 0.0 not in found.interval:
        conclusion = Conclusion.BETTER if (found.difference > 0) is measure.more_is_better else Conclusion.WORSE
    return Contrast(
        strategy=name,
        measure=measure,
        primary=measure is experiment.primary,
        difference=found.difference,
        interval=found.interval,
        confidence=confidence,
        p=p,
        conclusion=conclusion,
        sentence=_sentence(name, measure, found, p, conclusion, confidence),
        unadjusted=compare_means(*pair),
    )


def _too_little(experiment: Experiment, key: Key) -> Contrast:
    name, measure = key
    unknown = Interval(math.nan, math.nan)
    return Contrast(
        strategy=name,
        measure=measure,
        primary=measure is experiment.primary,
        difference=math.nan,
        interval=unknown,
        confidence=math.nan,
        p=math.nan,
        conclusion=Conclusion.NOT_ENOUGH_DATA,
        sentence=f"{name}: not enough data to compare {_WORDS[measure]}.",
        unadjusted=Comparison(math.nan, unknown, math.nan, Method.NOT_ESTIMABLE),
    )


_WORDS: Mapping[Measure, str] = {
    Measure.RESOLVED: "the share of resolved conversations",
    Measure.CSAT: "the rating",
    Measure.HANDLE_MINUTES: "the handling time",
}
#: What a difference is multiplied by for people, and its unit then.
UNITS: Mapping[Measure, tuple[float, str]] = {
    Measure.RESOLVED: (100.0, "points"),
    Measure.CSAT: (1.0, "of 5"),
    Measure.HANDLE_MINUTES: (1.0, "minutes"),
}


def _sentence(
    name: str, measure: Measure, found: Comparison, p: float, conclusion: Conclusion, confidence: float
) -> str:
    scale, unit = UNITS[measure]
    bounds = (
        f"{100 * confidence:.3g} % interval {scale * found.interval.low:+.2f} to {scale * found.interval.high:+.2f} "
        f"{unit}, adjusted p {p:.3g}"
    )
    if conclusion is Conclusion.NO_DIFFERENCE_SHOWN:
        return f"{name}: no difference in {_WORDS[measure]} shown ({bounds})."
    verb = "rose" if found.difference > 0 else "fell"
    return f"{name}: {_WORDS[measure]} {verb} by {scale * abs(found.difference):.2f} {unit} ({bounds})."


def _winner(contrasts: Sequence[Contrast]) -> str | None:
    better = [c.strategy for c in contrasts if c.primary and c.conclusion is Conclusion.BETTER]
    worse = {c.strategy for c in contrasts if c.conclusion is Conclusion.WORSE}
    return better[0] if len(better) == 1 and better[0] not in worse else None


def _headline(experiment: Experiment, contrasts: Sequence[Contrast], winner: str | None) -> str:
    primary = [contrast for contrast in contrasts if contrast.primary]
    control, what = experiment.strategies[0].name, _WORDS[experiment.primary]
    if all(contrast.conclusion is Conclusion.NOT_ENOUGH_DATA for contrast in primary):
        return (
            f"Not enough data yet: a comparison needs {MIN_CUSTOMERS} customers with a conversation in each strategy, "
            "and some of either outcome."
        )
    if winner is not None:
        return f"{winner} is better than {control}, the control, judged by {what}."
    parts = [
        f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} {conclusion.value} than {control}, the control, "
        f"judged by {what}."
        for conclusion in (Conclusion.BETTER, Conclusion.WORSE)
        if (names := [contrast.strategy for contrast in primary if contrast.conclusion is conclusion])
    ]
    if not parts:
        return f"No difference from {control}, the control, was shown in {what}."
    if len([contrast for contrast in primary if contrast.conclusion is Conclusion.BETTER]) > 1:
        parts.append("Between the better ones no winner is named: they were compared with the control only.")
    elif primary_better := [c.strategy for c in primary if c.conclusion is Conclusion.BETTER]:
        parts.append(f"{primary_better[0]} is worse on another measure, so no winner is named.")
    return " ".join(parts)
