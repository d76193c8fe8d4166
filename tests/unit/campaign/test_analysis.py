"""One conclusion per arm and metric, and it may be "no difference shown"."""

from __future__ import annotations

from dataclasses import replace

import pytest

from models.campaign.analysis import Conclusion, ExperimentState, Metric, analyse
from models.campaign.statistics import Method, RatioState
from models.campaign.types import TREATMENTS, Arm, CellSummary

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
    assert {lift.arm for lift in found.lifts if lift.metric is Metric.VISIT} == set(TREATMENTS)


def test_without_treatment_there_is_no_experiment() -> None:
    assert analyse([], {}).state is ExperimentState.NO_EXPERIMENT
    only = [CellSummary(stratum="a", arm=Arm.CONTROL, customers=50, visits=5)]
    assert analyse(only, {}).state is ExperimentState.NO_EXPERIMENT
