"""Who gets which arm, and what the simulation may depend on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from models.campaign.config import Simulation
from models.campaign.experimentation import assign, expected_sizes, merge, plan_experiment, simulate, tally
from models.campaign.types import TREATMENTS, Arm, Assignment, CustomerFeatures, ExperimentPlan, Tone
from models.errors import StageFailed

AUDIENCE = [(f"customer_{i}", "loyal" if i % 3 else "new") for i in range(248)]
EVERY_ARM = {"loyal": TREATMENTS, "new": TREATMENTS}


def plan(salt: str = "salt", approved: dict[str, tuple[Arm, ...]] | None = None) -> ExperimentPlan:
    return plan_experiment(AUDIENCE, approved or EVERY_ARM, salt=salt, alpha=0.05, primary_metric="visit")


def sizes(assignments: list[Assignment], stratum: str) -> Counter[Arm]:
    return Counter(a.arm for a in assignments if a.stratum == stratum)


def test_arms_of_a_stratum_differ_by_at_most_one_customer() -> None:
    assignments = assign(AUDIENCE, plan())
    assert [a.customer_id for a in assignments] == sorted(customer for customer, _ in AUDIENCE)
    for stratum in ("loyal", "new"):
        counted = sizes(assignments, stratum)
        assert set(counted) == set(Arm)
        assert max(counted.values()) - min(counted.values()) <= 1


def test_assignment_depends_on_salt_and_audience_only() -> None:
    first = assign(AUDIENCE, plan())
    assert assign(list(reversed(AUDIENCE)), plan()) == first
    other = assign(AUDIENCE, plan("other salt"))
    moved = sum(a.arm is not b.arm for a, b in zip(first, other, strict=True))
    assert moved > len(AUDIENCE) / 2


def test_an_audience_that_changed_after_sealing_is_refused() -> None:
    with pytest.raises(StageFailed):
        assign(AUDIENCE[1:], plan())
    with pytest.raises(StageFailed):
        assign([*AUDIENCE[1:], ("customer_0", "loyal")], plan())


def test_only_approved_arms_are_dealt_and_a_segment_without_any_stays_in_control() -> None:
    sealed = plan(approved={"loyal": (Arm.FRIENDLY,)})
    assignments = assign(AUDIENCE, sealed)
    assert set(sizes(assignments, "loyal")) == {Arm.CONTROL, Arm.FRIENDLY}
    assert set(sizes(assignments, "new")) == {Arm.CONTROL}
    loyal = sum(stratum == "loyal" for _, stratum in AUDIENCE)
    assert expected_sizes(AUDIENCE, sealed) == {Arm.CONTROL: loyal / 2, Arm.FRIENDLY: loyal / 2}


CUSTOMER = CustomerFeatures(
    customer_id="c", recency_days=20, frequency=5, monetary=900, engagement=0.5, tenure_days=400, churn_risk=0.2
)
MODEL = Simulation(visit_base=0.2, tone_effect={Tone.FRIENDLY: 2.0})


def visits(arm: Arm, engagement: float = 0.5, recency_days: float = 20) -> int:
    people = (
        replace(CUSTOMER, customer_id=str(i), engagement=engagement, recency_days=recency_days) for i in range(500)
    )
    return sum(simulate(person, arm, MODEL, seed=1).visited for person in people)


def test_simulated_engagement_is_marked_and_repeatable_and_consistent() -> None:
    people = [replace(CUSTOMER, customer_id=str(i)) for i in range(500)]
    done = [simulate(person, Arm.FRIENDLY, MODEL, seed=3) for person in people]
    assert done == [simulate(person, Arm.FRIENDLY, MODEL, seed=3) for person in people]
    assert done != [simulate(person, Arm.FRIENDLY, MODEL, seed=4) for person in people]
    assert all(e.simulated for e in done)
    assert all(e.visited for e in done if e.converted)
    assert all((e.spend_cents > 0) == e.converted for e in done)


def test_simulated_visits_follow_engagement_recency_and_tone() -> None:
    assert visits(Arm.CONTROL, engagement=0.9) > visits(Arm.CONTROL, engagement=0.1)
    assert visits(Arm.CONTROL, recency_days=5) > visits(Arm.CONTROL, recency_days=360)
    assert visits(Arm.FRIENDLY) > visits(Arm.CONTROL) == visits(Arm.URGENT)


def test_summaries_add_up_in_any_order() -> None:
    assignments = assign(AUDIENCE, plan())
    pairs = [(a, simulate(replace(CUSTOMER, customer_id=a.customer_id), a.arm, MODEL, seed=1)) for a in assignments]
    whole = tally(pairs)
    assert merge([*tally(pairs[100:]), *tally(pairs[:100])]) == whole
    assert sum(cell.customers for cell in whole) == len(AUDIENCE)
    assert sum(cell.spend_cents_squared for cell in whole) == sum(e.spend_cents**2 for _, e in pairs)
