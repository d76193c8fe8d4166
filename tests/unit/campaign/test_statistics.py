"""The methods against published and recomputed numbers of the Hillstrom e-mail test (summary statistics only)."""

from __future__ import annotations

import math
from statistics import fmean, stdev

import pytest

from models.campaign.stratified import exact_p, smallest_expected, stratum_weighted, weighted_newcombe
from models.statistics import (
    Mean,
    Method,
    Proportion,
    RatioState,
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
    wilson,
)

N, M, W = 21_306, 21_307, 21_387
VISITS = {"control": Proportion(2_262, N), "mens": Proportion(3_894, M), "womens": Proportion(3_238, W)}
CONVERSIONS = {"control": Proportion(122, N), "mens": Proportion(267, M), "womens": Proportion(189, W)}
SPEND = {
    "control": Mean(0.652789355, 11.58819968, N),
    "mens": Mean(1.422616511, 17.75420510, M),
    "womens": Mean(1.077201571, 15.11610647, W),
}


@pytest.mark.parametrize(
    ("arms", "arm", "difference", "z", "p", "low", "high"),
    [
        (VISITS, "mens", 0.076589564, 22.486041, 5.685e-112, 0.0699533, 0.0832267),
        (VISITS, "womens", 0.045233107, 13.949181, 3.182e-44, 0.0388941, 0.0515743),
        (CONVERSIONS, "mens", 0.006805007, 7.385114, 1.523e-13, 0.0050143, 0.0086407),
        (CONVERSIONS, "womens", 0.003111058, 3.779561, 1.5711e-4, 0.0015017, 0.0047455),
    ],
)
def test_two_proportions(
    arms: dict[str, Proportion], arm: str, difference: float, z: float, p: float, low: float, high: float
) -> None:
    found = compare_proportions(arms["control"], arms[arm])
    assert found.method is Method.POOLED_Z
    assert found.difference == pytest.approx(difference, abs=5e-10)
    assert found.statistic == pytest.approx(z, abs=5e-7)
    assert found.p == pytest.approx(p, rel=1e-3)
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high), abs=1e-6)


def test_one_arm_against_another() -> None:
    assert compare_proportions(VISITS["womens"], VISITS["mens"]).statistic == pytest.approx(8.684558, abs=1e-6)
    assert compare_proportions(CONVERSIONS["womens"], CONVERSIONS["mens"]).statistic == pytest.approx(
        3.712584, abs=1e-6
    )
    spend = compare_means(SPEND["womens"], SPEND["mens"])
    assert (spend.statistic, spend.p) == pytest.approx((2.164018, 0.030469), abs=1e-6)


@pytest.mark.parametrize(
    ("arm", "t", "df", "p", "low", "high"),
    [
        ("mens", 5.300140, 36_671.158, 1.163815e-7, 0.4851397, 1.0545146),
        ("womens", 3.256372, 40_064.884, 1.129397e-3, 0.1689568, 0.6798676),
    ],
)
def test_two_means(arm: str, t: float, df: float, p: float, low: float, high: float) -> None:
    found = compare_means(SPEND["control"], SPEND[arm])
    assert found.statistic == pytest.approx(t, abs=2e-6)
    assert found.df == pytest.approx(df, abs=0.01)
    assert found.p == pytest.approx(p, rel=1e-5)
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high), abs=1e-6)


def test_the_published_case_of_another_library() -> None:
    found = compare_means(Mean(0.41, 3.9, 3_407), Mean(0.70, 6.2, 3_461))
    assert found.difference == pytest.approx(0.29)
    assert found.p == pytest.approx(0.02016, abs=5e-6)
    assert (found.interval.low, found.interval.high) == pytest.approx((0.04538, 0.53462), abs=6e-6)


def test_mean_from_sums_of_squares() -> None:
    values = [0.0, 0.0, 3.5, 12.25, 1.0]
    found = Mean.from_sums(len(values), sum(values), sum(value**2 for value in values))
    assert (found.mean, found.sd) == pytest.approx((fmean(values), stdev(values)))


@pytest.mark.parametrize(
    ("arms", "arm", "low", "high"),
    [
        (VISITS, "mens", 0.6404, 0.8064),
        (CONVERSIONS, "mens", 0.7680, 1.7088),
        (VISITS, "womens", 0.3562, 0.4995),
        (CONVERSIONS, "womens", 0.2301, 0.9363),
    ],
)
def test_lift_of_rates(arms: dict[str, Proportion], arm: str, low: float, high: float) -> None:
    found = katz_lift(arms["control"], arms[arm])
    assert found is not None
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_lift_of_means_solves_fiellers_equation() -> None:
    control, treatment = SPEND["control"], SPEND["mens"]
    found = fieller_lift(control, treatment)
    assert found is not None
    for lift in (found.low, found.high):
        ratio = 1 + lift
        gap = treatment.mean - ratio * control.mean
        variance = treatment.variance / treatment.n + ratio**2 * control.variance / control.n
        assert abs(gap) / math.sqrt(variance) == pytest.approx(1.959964, abs=1e-6)
    assert found.low < 1.1793 < found.high


def test_lift_is_undefined_without_events_or_without_a_clear_control_mean() -> None:
    assert katz_lift(Proportion(0, 100), Proportion(3, 100)) is None
    assert fieller_lift(Mean(0.1, 3.0, 50), Mean(0.5, 3.0, 50)) is None


def test_intervals_of_one_arm() -> None:
    for successes, n in ((7, 40), (0, 25), (2_262, N)):
        found = wilson(Proportion(successes, n))
        for rate in (found.low, found.high):  # each end is the rate from which the observed one is 1.96 errors away
            assert abs(successes / n - rate) == pytest.approx(1.959964 * math.sqrt(rate * (1 - rate) / n), abs=1e-6)
    spend = mean_interval(Mean(10.0, 3.0, 16))
    assert (spend.low, spend.high) == pytest.approx((10 - 2.131450 * 0.75, 10 + 2.131450 * 0.75), abs=1e-5)
    assert math.isnan(mean_interval(Mean(10.0, math.nan, 1)).low)


def test_omnibus_over_all_arms() -> None:
    assert omnibus(list(VISITS.values())).statistic == pytest.approx(504.46067, abs=1e-5)
    found = omnibus(list(CONVERSIONS.values()))
    assert found.statistic == pytest.approx(55.25804, abs=1e-5)
    assert found.df == 2
    assert omnibus([Proportion(0, 10), Proportion(0, 12)]).p == 1.0


def hypergeometric(x0: int, n0: int, x1: int, n1: int) -> float:
    """Fisher's two-sided p by counting tables."""
    events = x0 + x1
    chance = [math.comb(n0, k) * math.comb(n1, events - k) / math.comb(n0 + n1, events) for k in range(events + 1)]
    return sum(p for p in chance if p <= chance[x0] * (1 + 1e-9))


def test_small_cells_take_an_exact_test_and_no_events_say_so() -> None:
    for x0, n0, x1, n1 in ((0, 20, 5, 20), (1, 4000, 3, 4000)):
        small = compare_proportions(Proportion(x0, n0), Proportion(x1, n1))
        assert small.method is Method.FISHER
        assert small.p == pytest.approx(hypergeometric(x0, n0, x1, n1))
    none = compare_proportions(Proportion(0, 20), Proportion(0, 25))
    assert (none.method, none.p) == (Method.NO_EVENTS, 1.0)
    assert none.interval.low < 0 < none.interval.high


@pytest.mark.parametrize(("arms", "critical"), [(1, 1.9600), (2, 2.2121), (3, 2.3490)])
def test_many_to_one_critical_values(arms: int, critical: float) -> None:
    found = dunnett([critical] * arms, many_to_one_loadings([100] * arms, 100))
    assert found.critical == pytest.approx(critical, abs=1e-4)
    assert found.p == pytest.approx([0.05] * arms, abs=1e-4)


def test_many_to_one_agrees_with_dunnetts_test_of_spend() -> None:
    found = dunnett([5.28539, 2.91661], many_to_one_loadings([M, W], N))
    assert found.p[1] == pytest.approx(0.00684, abs=5e-5)
    assert found.p[0] < 1e-6
    assert found.p[0] < dunnett([4.0, 0.0], many_to_one_loadings([M, W], N)).p[0]


def test_a_far_tail_is_still_ordered() -> None:
    loadings = many_to_one_loadings([100, 100], 100)
    assert 0 < dunnett([9.0, 0.0], loadings).p[0] < dunnett([6.5, 0.0], loadings).p[0] < 1e-8


def test_false_discovery_over_the_six_tests() -> None:
    p = [5.685e-112, 3.182e-44, 1.523e-13, 1.5711e-4, 1.163815e-7, 1.129397e-3]
    adjusted = benjamini_hochberg(p)
    assert adjusted[5] == pytest.approx(1.129397e-3)
    assert adjusted[3] == pytest.approx(1.885262e-4, rel=1e-4)
    assert adjusted[4] == pytest.approx(1.745722e-7, rel=1e-5)
    assert benjamini_hochberg([]) == () == holm([])
    assert holm([0.01, 0.04]) == pytest.approx((0.02, 0.04))


@pytest.mark.parametrize(
    ("dropped", "statistic", "p", "state"),
    [
        (0, 0.202531, 0.903693, RatioState.OK),
        (500, 9.3695, 0.009235, RatioState.WARN),
        (1_000, None, 3.1e-8, RatioState.STOP),
    ],
)
def test_sample_ratio(dropped: int, statistic: float | None, p: float, state: RatioState) -> None:
    found = sample_ratio([N - dropped, M, W], [1, 1, 1])
    assert found.state is state
    assert found.p == pytest.approx(p, rel=0.02)
    if statistic is not None:
        assert found.statistic == pytest.approx(statistic, abs=1e-4)


def test_sample_ratio_needs_eight_a_cell() -> None:
    assert sample_ratio([7, 0, 9], [1, 1, 1]).state is RatioState.SKIPPED
    assert sample_ratio([0, 0], [1, 1]).state is RatioState.SKIPPED
    assert sample_ratio([40], [1]).state is RatioState.SKIPPED


#: Visits and customers by `history_segment`: (control, mens, womens).
STRATA = [
    ((646, 7612), (1185, 7724), (1005, 7634)),
    ((440, 4836), (751, 4691), (631, 4727)),
    ((511, 4044), (862, 4090), (675, 4155)),
    ((319, 2124), (502, 2097), (417, 2188)),
    ((181, 1652), (333, 1597), (292, 1662)),
    ((96, 622), (139, 644), (124, 593)),
    ((69, 416), (122, 464), (94, 428)),
]


@pytest.mark.parametrize(("arm", "difference", "se"), [(1, 0.0764972, 0.0033767), (2, 0.0449967, 0.0032268)])
def test_stratum_weighted_estimator(arm: int, difference: float, se: float) -> None:
    cells = {str(i): (Proportion(*row[0]), Proportion(*row[arm])) for i, row in enumerate(STRATA)}
    found = stratum_weighted(cells, {str(i): sum(n for _, n in row) for i, row in enumerate(STRATA)})
    assert found is not None
    assert (found.difference, found.se) == pytest.approx((difference, se), abs=5e-8)


def test_stratum_weighted_estimator_without_a_usable_stratum() -> None:
    assert stratum_weighted({"a": (Proportion(0, 1), Proportion(1, 5))}, {"a": 6}) is None
    assert stratum_weighted({}, {}) is None


def test_stratified_methods_are_the_plain_ones_in_a_single_stratum() -> None:
    for x0, n0, x1, n1 in ((0, 20, 5, 20), (1, 4000, 3, 4000), (7, 30, 2, 11)):
        control, treatment = Proportion(x0, n0), Proportion(x1, n1)
        one = {"a": (control, treatment)}
        assert exact_p(one) == pytest.approx(hypergeometric(x0, n0, x1, n1))
        plain = newcombe(control, treatment)
        found = weighted_newcombe(one, {"a": 1.0})
        assert (found.low, found.high) == pytest.approx((plain.low, plain.high))
        assert smallest_expected(one) == pytest.approx(min(n0, n1) * (x0 + x1) / (n0 + n1))


def test_the_exact_test_counts_every_pair_of_tables() -> None:
    (a0, a1), (b0, b1) = ((1, 9), (4, 8)), ((0, 6), (3, 7))

    def chance(k: int, x: tuple[int, int], y: tuple[int, int]) -> float:
        return math.comb(y[1], k) * math.comb(x[1], x[0] + y[0] - k) / math.comb(x[1] + y[1], x[0] + y[0])

    totals: dict[int, float] = {}
    for i in range(a0[0] + a1[0] + 1):
        for j in range(b0[0] + b1[0] + 1):
            totals[i + j] = totals.get(i + j, 0.0) + chance(i, a0, a1) * chance(j, b0, b1)
    expected = sum(p for p in totals.values() if p <= totals[a1[0] + b1[0]] * (1 + 1e-9))
    cells = {"a": (Proportion(*a0), Proportion(*a1)), "b": (Proportion(*b0), Proportion(*b1))}
    assert exact_p(cells) == pytest.approx(expected)
    quiet = {**cells, "c": (Proportion(0, 500), Proportion(0, 40))}
    assert exact_p(quiet) == pytest.approx(expected)
    assert exact_p({"c": quiet["c"]}) is None
