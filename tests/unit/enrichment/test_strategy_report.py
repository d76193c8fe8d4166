"""The judgement of an experiment: against reference implementations, on noise, on real differences, on trouble."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray
from statsmodels.regression.linear_model import OLS

from models.enrichment.measures import Measure, check_measures
from models.enrichment.strategies import Experiment, Strategy
from models.enrichment.strategy_page import PAGE, REPORT, as_text, render, write_report
from models.enrichment.strategy_report import (
    Conclusion,
    ReportState,
    StrategyReport,
    StrategyTally,
    analyse,
)
from models.errors import InvalidRequest
from models.statistics import ClusterSums, Mean, RatioState, always_valid, compare_means

Floats = NDArray[np.float64]


def trial(*names: str, primary: Measure = Measure.RESOLVED) -> Experiment:
    strategies = tuple(Strategy(name=name) for name in names or ("everything", "essentials"))
    return Experiment(
        name="trial",
        active=True,
        agent_types=("support",),
        strategies=strategies,
        primary=primary,
        decision_sample=1000,
    )


def sums(totals: Floats, counts: Floats) -> ClusterSums:
    return ClusterSums(
        clusters=len(totals),
        count=int(counts.sum()),
        total=float(totals.sum()),
        count_squares=float((counts * counts).sum()),
        total_squares=float((totals * totals).sum()),
        total_times_count=float((totals * counts).sum()),
    )


def customers(rng: Generator, n: int, rate: float) -> tuple[Floats, Floats]:
    """Resolved conversations and conversations of `n` customers, each with an own rate around `rate`."""
    counts = 1 + rng.poisson(1.5, n)
    own = rng.beta(4 * rate, 4 * (1 - rate), n)
    return rng.binomial(counts, own).astype(float), counts.astype(float)


def tally(measures: Mapping[Measure, ClusterSums], *, assigned: int | None = None) -> StrategyTally:
    some = next(iter(measures.values()))
    return StrategyTally(
        assigned=some.clusters * 2 if assigned is None else assigned,
        customers=some.clusters,
        conversations=some.count,
        measures=measures,
    )


def resolved(rng: Generator, n: int, rate: float) -> StrategyTally:
    return tally({Measure.RESOLVED: sums(*customers(rng, n, rate))})


def conclusions(report: StrategyReport) -> dict[tuple[str, Measure], Conclusion]:
    return {(contrast.strategy, contrast.measure): contrast.conclusion for contrast in report.contrasts}


class TestMethods:
    def test_one_conversation_each_is_the_plain_mean(self) -> None:
        values = np.random.default_rng(1).normal(4, 1, 300)
        found = Mean.of_clusters(sums(values, np.ones(300)))
        assert (found.mean, found.sd, found.n) == pytest.approx((values.mean(), values.std(ddof=1), 300))

    def test_clusters_against_statsmodels(self) -> None:
        rng = np.random.default_rng(2)
        groups = [customers(rng, 240, 0.6), customers(rng, 300, 0.7)]
        outcome, arm, cluster = [], [], []
        for which, (totals, counts) in enumerate(groups):
            for number, (total, count) in enumerate(zip(totals, counts, strict=True)):
                outcome += [1.0] * int(total) + [0.0] * int(count - total)
                arm += [which] * int(count)
                cluster += [which * 1000 + number] * int(count)
        design = np.column_stack([np.ones(len(arm)), arm])
        fitted = OLS(np.array(outcome), design).fit(
            cov_type="cluster", cov_kwds={"groups": np.array(cluster), "use_correction": False}
        )
        control, other = (Mean.of_clusters(sums(*group)) for group in groups)
        assert other.mean - control.mean == pytest.approx(fitted.params[1], rel=1e-9)
        uncorrected = sum(mean.variance / mean.n * (mean.n - 1) / mean.n for mean in (control, other))
        assert math.sqrt(uncorrected) == pytest.approx(fitted.bse[1], rel=1e-9)
        # Ignoring that conversations of one customer resemble each other would promise more than there is.
        assert compare_means(control, other).interval.low < fitted.params[1] - 1.96 * OLS(outcome, design).fit().bse[1]

    @pytest.mark.parametrize(
        ("control", "treatment", "planned", "p", "low", "high"),
        [
            # gbstats 0.8.0: its published example, and spend and visits of the Hillstrom e-mail test.
            (Mean(0.41, 3.9, 3_407), Mean(0.70, 6.2, 3_461), 5_000, 0.29075, -0.08941, 0.66941),
            (
                Mean(0.652789355, 11.58819968, 21_306),
                Mean(1.422616511, 17.75420510, 21_307),
                5_000,
                8.0754e-6,
                0.302066,
                1.237589,
            ),
            (
                Mean(0.652789355, 11.58819968, 21_306),
                Mean(1.077201571, 15.11610647, 21_387),
                5_000,
                0.0446217,
                0.004648,
                0.844177,
            ),
        ],
    )
    def test_always_valid_against_gbstats(
        self, control: Mean, treatment: Mean, planned: int, p: float, low: float, high: float
    ) -> None:
        found = always_valid(control, treatment, planned=planned)
        assert found.p == pytest.approx(p, rel=2e-5)
        assert (found.interval.low, found.interval.high) == pytest.approx((low, high), abs=6e-6)

    @pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
    def test_the_interval_excludes_zero_exactly_with_p(self, confidence: float) -> None:
        control = Mean(0.0, 1.0, 500)
        for difference in np.linspace(0, 0.4, 41):
            found = always_valid(control, Mean(float(difference), 1.0, 500), planned=1000, confidence=confidence)
            assert (0.0 not in found.interval) == (found.p < 1 - confidence)


class TestNoise:
    def test_a_winner_is_rarely_named_where_there_is_none_however_often_one_looks(self) -> None:
        """200 experiments without any difference, three strategies, each judged five times as it grows."""
        rng, named, experiment = np.random.default_rng(3), 0, trial("control", "b", "c")
        for _ in range(200):
            everyone = {name: customers(rng, 1000, 0.7) for name in experiment.weights}
            named += any(
                analyse(
                    experiment,
                    {
                        name: tally({Measure.RESOLVED: sums(totals[:n], counts[:n])})
                        for name, (totals, counts) in everyone.items()
                    },
                ).winner
                is not None
                for n in range(200, 1001, 200)
            )
        assert named / 200 <= experiment.alpha

    def test_a_real_difference_is_found(self) -> None:
        rng = np.random.default_rng(4)
        found = [
            analyse(trial(), {"everything": resolved(rng, 600, 0.6), "essentials": resolved(rng, 600, 0.75)})
            for _ in range(40)
        ]
        assert sum(report.winner == "essentials" for report in found) >= 36
        covered = sum(0.15 in report.contrasts[0].interval for report in found)
        assert covered >= 36


class TestJudgement:
    def test_the_winner_needs_the_primary_measure(self) -> None:
        rng = np.random.default_rng(5)
        same, quick = (customers(rng, 400, 0.7) for _ in range(2))
        minutes = {Measure.HANDLE_MINUTES: sums(rng.normal(9, 2, 400), np.ones(400))}
        faster = {Measure.HANDLE_MINUTES: sums(rng.normal(6, 2, 400), np.ones(400))}
        tallies = {
            "everything": tally({Measure.RESOLVED: sums(*same), **minutes}),
            "essentials": tally({Measure.RESOLVED: sums(*quick), **faster}),
        }
        report = analyse(trial(), tallies)
        assert conclusions(report) == {
            ("essentials", Measure.RESOLVED): Conclusion.NO_DIFFERENCE_SHOWN,
            ("essentials", Measure.CSAT): Conclusion.NOT_ENOUGH_DATA,
            ("essentials", Measure.HANDLE_MINUTES): Conclusion.BETTER,
        }
        assert report.winner is None
        assert report.headline.startswith("No difference from everything")
        by_minutes = analyse(trial(primary=Measure.HANDLE_MINUTES), tallies)
        assert by_minutes.winner == "essentials"
        assert by_minutes.headline.startswith("essentials is better than everything")

    def test_who_is_worse_elsewhere_does_not_win(self) -> None:
        rng = np.random.default_rng(6)
        report = analyse(
            trial(),
            {
                "everything": tally(
                    {
                        Measure.RESOLVED: sums(*customers(rng, 800, 0.5)),
                        Measure.CSAT: sums(rng.normal(4.5, 0.5, 800), np.ones(800)),
                    }
                ),
                "essentials": tally(
                    {
                        Measure.RESOLVED: sums(*customers(rng, 800, 0.8)),
                        Measure.CSAT: sums(rng.normal(3.5, 0.5, 800), np.ones(800)),
                    }
                ),
            },
        )
        assert conclusions(report)["essentials", Measure.RESOLVED] is Conclusion.BETTER
        assert conclusions(report)["essentials", Measure.CSAT] is Conclusion.WORSE
        assert report.winner is None
        assert "no winner" in report.headline

    def test_of_two_better_ones_none_is_the_winner(self) -> None:
        rng = np.random.default_rng(7)
        report = analyse(
            trial("control", "b", "c"),
            {"control": resolved(rng, 800, 0.4), "b": resolved(rng, 800, 0.7), "c": resolved(rng, 800, 0.7)},
        )
        assert set(conclusions(report).values()) == {Conclusion.BETTER, Conclusion.NOT_ENOUGH_DATA}
        assert report.winner is None
        assert "b and c are better than control" in report.headline

    def test_a_worse_strategy_is_told(self) -> None:
        rng = np.random.default_rng(8)
        report = analyse(trial(), {"everything": resolved(rng, 800, 0.8), "essentials": resolved(rng, 800, 0.5)})
        assert report.contrasts[0].conclusion is Conclusion.WORSE
        assert report.winner is None
        assert "essentials is worse than everything" in report.headline

    def test_more_strategies_widen_the_interval(self) -> None:
        rng = np.random.default_rng(9)
        tallies = {name: resolved(rng, 400, 0.6) for name in ("a", "b", "c", "d")}
        few = analyse(trial("a", "b"), {name: tallies[name] for name in "ab"}).contrasts[0]
        many = analyse(trial("a", "b", "c", "d"), tallies).contrasts[0]
        assert (few.confidence, many.confidence) == pytest.approx((0.95, 1 - 0.05 / 3))
        assert many.p >= few.p
        assert few.unadjusted == many.unadjusted

    @pytest.mark.parametrize("rate", [0.0, 0.01, 1.0])
    def test_outcomes_that_hardly_vary_are_not_compared(self, rate: float) -> None:
        n, few = 200, round(200 * rate)
        totals = np.array([1.0] * few + [0.0] * (n - few))
        same = tally({Measure.RESOLVED: sums(totals, np.ones(n))})
        report = analyse(trial(), {"everything": same, "essentials": same})
        assert report.contrasts[0].conclusion is Conclusion.NOT_ENOUGH_DATA
        assert report.headline.startswith("Not enough data")

    def test_too_few_customers_are_not_compared(self) -> None:
        rng = np.random.default_rng(10)
        report = analyse(trial(), {"everything": resolved(rng, 99, 0.1), "essentials": resolved(rng, 99, 0.9)})
        assert report.winner is None
        assert report.headline.startswith("Not enough data")
        assert report.strategies[0].measures[Measure.RESOLVED].customers == 99


class TestTrouble:
    def test_wrong_sizes_hide_every_effect(self) -> None:
        rng = np.random.default_rng(11)
        big, small = resolved(rng, 900, 0.5), resolved(rng, 600, 0.9)
        report = analyse(trial(), {"everything": big, "essentials": small})
        assert report.state is ReportState.SAMPLE_RATIO_MISMATCH
        assert report.ratios["assigned"].state is RatioState.STOP
        assert report.contrasts == ()
        assert report.winner is None
        assert not any(each.measures for each in report.strategies)

    def test_customers_who_stay_away_from_one_strategy_hide_every_effect(self) -> None:
        rng = np.random.default_rng(12)
        tallies = {
            "everything": replace(resolved(rng, 900, 0.5), assigned=2000),
            "essentials": replace(resolved(rng, 600, 0.9), assigned=2000),
        }
        report = analyse(trial(), tallies)
        assert report.ratios["assigned"].state is RatioState.OK
        assert report.state is ReportState.SAMPLE_RATIO_MISMATCH

    def test_a_change_under_way_hides_every_effect(self) -> None:
        rng = np.random.default_rng(13)
        tallies = {"everything": resolved(rng, 800, 0.4), "essentials": resolved(rng, 800, 0.8)}
        report = analyse(trial(), tallies, moved=1)
        assert report.state is ReportState.CHANGED_WHILE_RUNNING
        assert (report.contrasts, report.winner) == ((), None)

    def test_nobody_yet(self) -> None:
        report = analyse(trial(), {})
        assert report.state is ReportState.NOBODY_ASSIGNED
        assert [each.strategy for each in report.strategies] == ["everything", "essentials"]


class TestPages:
    def test_files(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(14)
        report = analyse(trial(), {"everything": resolved(rng, 500, 0.5), "essentials": resolved(rng, 500, 0.7)})
        write_report(report, tmp_path / "trial")
        told = json.loads((tmp_path / "trial" / REPORT).read_text())
        assert told["winner"] == "essentials"
        assert told["contrasts"][0]["difference"] == report.contrasts[0].difference
        assert told["contrasts"][1]["difference"] is None
        page = (tmp_path / "trial" / PAGE).read_text()
        assert report.headline in page
        assert page.count("data:image/png;base64,") == 1
        assert as_text(report).startswith("trial: essentials is better")

    @pytest.mark.parametrize("moved", [0, 3])
    def test_without_anything_to_compare_there_is_no_picture(self, moved: int) -> None:
        report = analyse(trial(), {}, moved=moved)
        assert "data:image" not in render(report)
        assert report.headline in render(report)


@pytest.mark.parametrize(
    ("measure", "value"),
    [
        (Measure.RESOLVED, 0.5),
        (Measure.CSAT, 0.0),
        (Measure.CSAT, 5.5),
        (Measure.HANDLE_MINUTES, -1.0),
        (Measure.HANDLE_MINUTES, math.inf),
        (Measure.CSAT, math.nan),
    ],
)
def test_impossible_values_are_refused(measure: Measure, value: float) -> None:
    with pytest.raises(InvalidRequest) as raised:
        check_measures({Measure.RESOLVED: 1.0, measure: value})
    assert [field.pointer for field in raised.value.fields] == [f"/{measure.value}"]
