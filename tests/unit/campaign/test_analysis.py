"""One conclusion per arm and metric, and it may be "no difference shown"."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from models.campaign.analysis import Conclusion, ExperimentState, Metric, analyse
from models.campaign.types import TREATMENTS, Arm, CellSummary
from models.statistics import Method, RatioState

#: Visits of 4,000 customers in each arm.
SAME = dict.fromkeys(Arm, 400)
FRIENDLY_WINS = {**SAME, Arm.FRIENDLY: 520}


def cells(visits: dict[Arm, int], *, n: int = 4_000, conversions: int = 60, strata: int = 2) -> list[CellSummary]:
    return [
        CellSummary(
            stratum=f"s{stratum}",
            arm=arm,
            customers=n // strata,
            visits=count // strata,
            conversions=conversions // strata,
            spend_cents=conversions // strata * 5_000,
            spend_cents_squared=conversions // strata * 5_000**2 * 2,
        )
        for stratum in range(strata)
        for arm, count in visits.items()
    ]


EQUAL = dict.fromkeys(Arm, 4_000.0)


def test_a_clear_difference_is_concluded_for_its_arm_alone() -> None:
    found = analyse(cells(FRIENDLY_WINS), EQUAL)
    assert found.state is ExperimentState.MEASURED
    primary = {lift.arm: lift for lift in found.lifts if lift.primary}
    assert {arm: lift.conclusion for arm, lift in primary.items()} == {
        Arm.URGENT: Conclusion.NO_DIFFERENCE_SHOWN,
        Arm.INFORMATIONAL: Conclusion.NO_DIFFERENCE_SHOWN,
        Arm.FRIENDLY: Conclusion.HIGHER,
    }
    friendly = primary[Arm.FRIENDLY]
    assert friendly.difference == pytest.approx(0.03)
    assert friendly.relative == pytest.approx(0.3)
    assert "friendly (+3.0 points)" in found.headline
    assert "no difference in visits shown" in primary[Arm.URGENT].sentence


def test_no_difference_is_a_possible_conclusion() -> None:
    found = analyse(cells(SAME), EQUAL)
    assert {lift.conclusion for lift in found.lifts} == {Conclusion.NO_DIFFERENCE_SHOWN}
    assert found.headline == "No difference in visits was shown between any message and the control group."


def test_a_difference_that_only_an_uncorrected_test_shows_is_not_concluded() -> None:
    found = analyse(cells({**SAME, Arm.URGENT: 456}), EQUAL)
    urgent = next(lift for lift in found.lifts if lift.primary and lift.arm is Arm.URGENT)
    assert urgent.unadjusted.p < 0.05 < urgent.p
    assert 0.0 not in urgent.unadjusted.interval
    assert 0.0 in urgent.interval
    assert urgent.conclusion is Conclusion.NO_DIFFERENCE_SHOWN


@pytest.mark.parametrize("urgent", range(300, 520, 10))
def test_interval_p_and_conclusion_never_disagree(urgent: int) -> None:
    found = analyse(cells({**SAME, Arm.URGENT: urgent, Arm.FRIENDLY: 470}, conversions=urgent // 5), EQUAL)
    for lift in found.lifts:
        shown = lift.conclusion in (Conclusion.HIGHER, Conclusion.LOWER)
        assert shown == (lift.p < 0.05) == (0.0 not in lift.interval)


def test_a_sample_ratio_mismatch_hides_every_effect() -> None:
    thinned = [cell if cell.arm is not Arm.CONTROL else replace(cell, customers=1_700) for cell in cells(FRIENDLY_WINS)]
    found = analyse(thinned, EQUAL)
    assert found.ratio.state is RatioState.STOP
    assert found.state is ExperimentState.SAMPLE_RATIO_MISMATCH
    assert found.lifts == ()
    assert found.arms == ()
    assert found.overall is None


def test_few_events_take_exact_tests_and_none_are_not_measured() -> None:
    few = analyse(cells({**dict.fromkeys(Arm, 2), Arm.FRIENDLY: 4}, n=80, conversions=0), dict.fromkeys(Arm, 80.0))
    primary = [lift for lift in few.lifts if lift.primary]
    assert {lift.method for lift in primary} == {Method.HOLM_EXACT}
    assert all(lift.conclusion is Conclusion.NO_DIFFERENCE_SHOWN for lift in primary)
    secondary = [lift for lift in few.lifts if not lift.primary]
    assert {lift.conclusion for lift in secondary} == {Conclusion.NOT_MEASURED}
    none = analyse(cells(dict.fromkeys(Arm, 0), n=80, conversions=0), dict.fromkeys(Arm, 80.0))
    assert {lift.conclusion for lift in none.lifts} == {Conclusion.NOT_MEASURED}
    assert none.smallest_detectable is None


def test_a_segment_in_control_takes_no_part() -> None:
    lonely = CellSummary(stratum="quiet", arm=Arm.CONTROL, customers=3_000, visits=2_900)
    with_it, without = analyse([*cells(FRIENDLY_WINS), lonely], EQUAL), analyse(cells(FRIENDLY_WINS), EQUAL)
    assert with_it.left_out == ("quiet",)
    assert with_it.lifts == without.lifts


def test_a_segment_that_lacks_one_arm_still_compares_the_others() -> None:
    partly = [c for c in cells(FRIENDLY_WINS) if not (c.stratum == "s1" and c.arm is Arm.URGENT)]
    expected = {**EQUAL, Arm.URGENT: 2_000.0}
    found = analyse(partly, expected)
    assert found.state is ExperimentState.MEASURED
    visits = {lift.arm: lift for lift in found.lifts if lift.metric is Metric.VISIT}
    assert set(visits) == set(TREATMENTS)
    assert visits[Arm.URGENT].segments == ("s0",)
    assert visits[Arm.FRIENDLY].segments == ("s0", "s1")


def deal(stratum: str, counts: dict[Arm, tuple[int, int, int]], *, cents: int = 5_000) -> list[CellSummary]:
    """Cells of one segment from (customers, visits, conversions) by arm; every buyer spends `cents` times 1 or 2."""
    return [
        CellSummary(
            stratum=stratum,
            arm=arm,
            customers=n,
            visits=visits,
            conversions=bought,
            spend_cents=bought * cents,
            spend_cents_squared=bought * cents**2,
        )
        for arm, (n, visits, bought) in counts.items()
    ]


#: No message does anything; urgent ran only among customers who visit and buy often anyway.
NO_EFFECT = {
    "many events": [
        *deal("quiet", dict.fromkeys((Arm.CONTROL, Arm.INFORMATIONAL, Arm.FRIENDLY), (2000, 100, 40))),
        *deal("keen", dict.fromkeys(Arm, (400, 200, 80))),
    ],
    "few events": [
        *deal("quiet", {Arm.CONTROL: (1_000, 1, 0), Arm.FRIENDLY: (1_000, 1, 0)}),
        *deal("keen", {Arm.CONTROL: (22, 3, 3), Arm.URGENT: (22, 3, 3)}),
    ],
}


@pytest.mark.parametrize("primary", [Metric.VISIT, Metric.CONVERSION])
@pytest.mark.parametrize("case", NO_EFFECT)
def test_base_rates_of_segments_are_no_effect(case: str, primary: Metric) -> None:
    found = analyse(NO_EFFECT[case], expected_of(NO_EFFECT[case]), primary=primary)
    assert found.state is ExperimentState.MEASURED
    for lift in found.lifts:
        assert lift.difference == pytest.approx(0.0)
        assert lift.arm_value == pytest.approx(lift.control_value)
        assert lift.conclusion in (Conclusion.NO_DIFFERENCE_SHOWN, Conclusion.NOT_MEASURED)
        assert lift.p == pytest.approx(1.0)
        assert lift.unadjusted.p == pytest.approx(1.0)
        assert lift.relative is None or lift.relative == pytest.approx(0.0)
    assert found.overall is not None
    assert found.overall.p > 0.9
    assert "No difference" in found.headline
    urgent = next(lift for lift in found.lifts if lift.primary and lift.arm is Arm.URGENT)
    assert urgent.segments == ("keen",)


def expected_of(dealt: list[CellSummary]) -> dict[Arm, float]:
    return {arm: float(sum(c.customers for c in dealt if c.arm is arm)) for arm in {c.arm for c in dealt}}


def test_no_effect_is_seldom_taken_for_one() -> None:
    draw = random.Random(11)

    def events(n: int, rate: float) -> tuple[int, int, int]:
        count = sum(draw.random() < rate for _ in range(n))
        return n, count, 0

    wrong = 0
    for _ in range(60):
        dealt = [
            *deal("quiet", {arm: events(150, 0.04) for arm in (Arm.CONTROL, Arm.INFORMATIONAL)}),
            *deal("keen", {arm: events(80, 0.5) for arm in (Arm.CONTROL, Arm.URGENT, Arm.INFORMATIONAL)}),
            *deal("mild", {arm: events(100, 0.2) for arm in (Arm.CONTROL, Arm.FRIENDLY)}),
        ]
        found = analyse(dealt, expected_of(dealt))
        wrong += any(lift.primary and lift.conclusion is not Conclusion.NO_DIFFERENCE_SHOWN for lift in found.lifts)
    assert wrong <= 9  # at most 3 expected at 5 %, and more than 9 has a chance near 0.1 %


def test_an_effect_in_the_only_segment_of_an_arm_is_found() -> None:
    dealt = [
        *deal("quiet", dict.fromkeys((Arm.CONTROL, Arm.FRIENDLY), (2000, 800, 0))),
        *deal("keen", {Arm.CONTROL: (800, 80, 0), Arm.URGENT: (800, 160, 0)}),
    ]
    found = {lift.arm: lift for lift in analyse(dealt, expected_of(dealt)).lifts if lift.primary}
    assert found[Arm.URGENT].conclusion is Conclusion.HIGHER
    assert found[Arm.URGENT].difference == pytest.approx(0.1)
    assert found[Arm.URGENT].relative == pytest.approx(1.0)
    assert found[Arm.FRIENDLY].conclusion is Conclusion.NO_DIFFERENCE_SHOWN


def test_an_arm_that_vanished_from_a_segment_is_a_mismatch() -> None:
    planned = {"s0": tuple(Arm), "s1": tuple(Arm), "quiet": (Arm.CONTROL,)}
    lost = [cell for cell in cells(SAME) if not (cell.stratum == "s1" and cell.arm is Arm.URGENT)]
    found = analyse(lost, EQUAL, planned=planned)
    assert found.ratio_by_segment["s1"].observed == (2_000, 0, 2_000, 2_000)
    assert found.ratio_by_segment["s1"].state is RatioState.STOP
    assert found.ratio_by_segment["s0"].state is RatioState.OK
    assert found.state is ExperimentState.SAMPLE_RATIO_MISMATCH
    assert found.left_out == ("quiet",)


def test_segments_are_checked_together() -> None:
    sizes = {f"s{i}": (1_000, 1_000) for i in range(19)} | {"odd": (1_000, 883)}  # p 0.007 by itself
    dealt = [
        cell
        for stratum, (control, urgent) in sizes.items()
        for cell in deal(stratum, {Arm.CONTROL: (control, 50, 0), Arm.URGENT: (urgent, 50, 0)})
    ]
    checked = analyse(dealt, expected_of(dealt)).ratio_by_segment["odd"]
    assert checked.state is RatioState.OK
    assert checked.p == pytest.approx(20 * 0.00702, rel=0.02)


def test_without_treatment_there_is_no_experiment() -> None:
    assert analyse([], {}).state is ExperimentState.NO_EXPERIMENT
    only = [CellSummary(stratum="a", arm=Arm.CONTROL, customers=50, visits=5)]
    assert analyse(only, {}).state is ExperimentState.NO_EXPERIMENT
