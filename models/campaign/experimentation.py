"""The experiment: who gets which arm, and a simulated engagement for companies that cannot send yet.

Assignment deals arms in permuted blocks within each stratum, so that the arms of a stratum never differ by more than
one customer. It is a pure function of the salt and the sealed audience snapshot, whose hash stands in the plan.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist

from models.assignment import uniform
from models.campaign.config import Simulation
from models.campaign.types import (
    TREATMENTS,
    Arm,
    Assignment,
    CellSummary,
    CustomerFeatures,
    Engagement,
    ExperimentPlan,
)
from models.errors import StageFailed

_SIMULATED_HORIZON_DAYS = 365.0


def snapshot_hash(audience: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over the sorted (customer, stratum) pairs: the seal of an audience."""
    digest = hashlib.sha256()
    for customer_id, stratum in sorted(audience):
        digest.update(f"{customer_id}\t{stratum}\n".encode())
    return digest.hexdigest()


def plan_experiment(
    audience: Sequence[tuple[str, str]],
    approved: Mapping[str, Iterable[Arm]],
    *,
    salt: str,
    alpha: float,
    primary_metric: str,
) -> ExperimentPlan:
    """Seal the audience and deal in each stratum the control and its approved arms; without any, the control alone."""
    strata = sorted({stratum for _, stratum in audience})
    arms = {
        stratum: (Arm.CONTROL, *(arm for arm in TREATMENTS if arm in set(approved.get(stratum, ()))))
        for stratum in strata
    }
    return ExperimentPlan(
        salt=salt, snapshot_hash=snapshot_hash(audience), arms=arms, alpha=alpha, primary_metric=primary_metric
    )


def assign(audience: Sequence[tuple[str, str]], plan: ExperimentPlan) -> list[Assignment]:
    """Everyone's arm, in order of customer id. Raises `StageFailed` if the audience is not the sealed one."""
    if snapshot_hash(audience) != plan.snapshot_hash:
        raise StageFailed("the audience differs from the one the plan was sealed for")
    strata: dict[str, list[str]] = {}
    for customer_id, stratum in audience:
        strata.setdefault(stratum, []).append(customer_id)
    assignments = []
    for stratum, members in strata.items():
        arms = plan.arms[stratum]
        dealt: list[Arm] = []
        for position, customer_id in enumerate(sorted(members, key=lambda unit: _key(plan.salt, stratum, unit))):
            if position % len(arms) == 0:
                block = position // len(arms)
                dealt = sorted(arms, key=lambda arm: _key(plan.salt, stratum, str(block), arm))
            arm = dealt[position % len(arms)]
            assignments.append(Assignment(customer_id=customer_id, stratum=stratum, arm=arm))
    return sorted(assignments, key=lambda assignment: assignment.customer_id)


def expected_sizes(audience: Iterable[tuple[str, str]], plan: ExperimentPlan) -> dict[Arm, float]:
    """Customers per arm as planned, over the strata that take part."""
    sizes: dict[str, int] = {}
    for _, stratum in audience:
        sizes[stratum] = sizes.get(stratum, 0) + 1
    expected: dict[Arm, float] = {}
    for stratum, size in sizes.items():
        arms = plan.arms[stratum]
        for arm in arms if len(arms) > 1 else ():
            expected[arm] = expected.get(arm, 0.0) + size / len(arms)
    return expected


def _key(*parts: str) -> bytes:
    return hashlib.sha256("\x1f".join(parts).encode()).digest()


def simulate(customer: CustomerFeatures, arm: Arm, model: Simulation, *, seed: int) -> Engagement:
    """Simulated engagement of one customer: a pure function of seed, customer, arm and model.

    The baseline rises with engagement and falls with time since the last order; the arm shifts it on the logit scale.
    """
    draw = (str(seed), customer.customer_id)
    recency = min(customer.recency_days, _SIMULATED_HORIZON_DAYS) / _SIMULATED_HORIZON_DAYS
    tendency = model.engagement_weight * (customer.engagement - 0.5) + model.recency_weight * (recency - 0.5)
    effect = model.tone_effect.get(arm.tone, 0.0) if arm.tone else 0.0
    if uniform(*draw, "visit") >= _logistic(_logit(model.visit_base) + tendency + effect):
        return Engagement(visited=False, converted=False, spend_cents=0)
    inclination = model.conversion_weight * (customer.engagement - 0.5)
    if uniform(*draw, "conversion") >= _logistic(_logit(model.conversion_base) + inclination):
        return Engagement(visited=True, converted=False, spend_cents=0)
    quantile = NormalDist().inv_cdf(min(max(uniform(*draw, "spend"), 1e-9), 1 - 1e-9))
    spend = model.spend_median * math.exp(model.spend_sigma * quantile)
    return Engagement(visited=True, converted=True, spend_cents=round(100 * spend))


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def tally(observed: Iterable[tuple[Assignment, Engagement]]) -> list[CellSummary]:
    """Sufficient statistics per stratum and arm, in their order."""
    return merge(
        CellSummary(
            stratum=assignment.stratum,
            arm=assignment.arm,
            customers=1,
            visits=int(engagement.visited),
            conversions=int(engagement.converted),
            spend_cents=engagement.spend_cents,
            spend_cents_squared=engagement.spend_cents**2,
        )
        for assignment, engagement in observed
    )


def merge(cells: Iterable[CellSummary]) -> list[CellSummary]:
    """Add up summaries of the same stratum and arm; exact, so the order of blocks cannot matter."""
    sums: dict[tuple[str, Arm], list[int]] = {}
    for cell in cells:
        total = sums.setdefault((cell.stratum, cell.arm), [0, 0, 0, 0, 0])
        for i, value in enumerate(
            (cell.customers, cell.visits, cell.conversions, cell.spend_cents, cell.spend_cents_squared)
        ):
            total[i] += value
    return [
        CellSummary(
            stratum=stratum,
            arm=arm,
            customers=n,
            visits=visits,
            conversions=conversions,
            spend_cents=spend,
            spend_cents_squared=squares,
        )
        for (stratum, arm), (n, visits, conversions, spend, squares) in sorted(sums.items())
    ]
