"""What to do for the customer: the action that is shown to help customers like this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection

from models.enrichment.types import ChurnPrediction, NextBestAction, ProviderSpec, Section
from models.insights.next_best_action import RULES, Gain, choose
from models.insights.types import Action
from models.resilience.deadline import Deadline
from providers.base import ProviderResources, SqlProvider
from providers.derived.facts import read_facts
from providers.derived.model import insights_of

CHURN = "churn_prediction"
_NOTHING_SHOWN = "No action is shown to help customers like this one"


class NextBestActionProvider(SqlProvider[NextBestAction]):
    """The eligible action with the highest expected gain whose interval lies above 0, "none" where there is none.

    The reason adds what drives the customer's churn risk. Nothing while the trained model knows no actions.
    """

    spec = ProviderSpec(
        name="next_best_action",
        section="next_best_action",
        source="insights",
        tier=2,
        ttl_s=300.0,
        depends_on=(CHURN,),
        tags=("customers", "subscriptions", "invoices", "conversations", "tickets", "usage"),
    )

    def __init__(self, resources: ProviderResources) -> None:
        super().__init__(resources)
        self._insights = insights_of(resources)
        self._version = self._insights.version

    async def fetch(
        self, customer_id: str, *, deadline: Deadline, known: Mapping[str, Section] | None = None
    ) -> NextBestAction | None:
        section = await super().fetch(customer_id, deadline=deadline)
        return None if section is None else _with_drivers(section, (known or {}).get(CHURN))

    async def fetch_many(
        self,
        customer_ids: Sequence[str],
        *,
        deadline: Deadline,
        known: Mapping[str, Mapping[str, Section]] | None = None,
    ) -> Mapping[str, NextBestAction | None]:
        churn = {customer_id: sections.get(CHURN) for customer_id, sections in (known or {}).items()}
        found = await super().fetch_many(customer_ids, deadline=deadline)
        return {
            customer_id: None if section is None else _with_drivers(section, churn.get(customer_id))
            for customer_id, section in found.items()
        }

    def load(
        self, connection: Connection, customer_ids: Sequence[str], now: datetime
    ) -> Mapping[str, NextBestAction | None]:
        facts = read_facts(connection, customer_ids, now)
        model = self._insights.actions
        if model is None:
            return dict.fromkeys(facts)
        gains = model.gains(list(facts.values()))
        return {customer_id: self._section(found) for customer_id, found in zip(facts, gains, strict=True)}

    def _section(self, gains: tuple[Gain, ...]) -> NextBestAction:
        best = choose(gains)
        others = [gain.action for gain in gains if gain.low > 0 and gain is not best]
        return NextBestAction(
            action=Action.NONE.value if best is None else best.action,
            expected_gain=0.0 if best is None else round(best.expected, 2),
            reason=_NOTHING_SHOWN if best is None else RULES[best.action].reason,
            alternatives=tuple(others),
            model_version=self._version,
            synthetic=self._insights.synthetic,
        )


def _with_drivers(section: NextBestAction, churn: Section | None) -> NextBestAction:
    if not isinstance(churn, ChurnPrediction) or not churn.drivers or section.action == Action.NONE:
        return section
    drivers = ", ".join(driver.replace("_", " ") for driver in churn.drivers)
    return replace(section, reason=f"{section.reason}; churn risk is driven by {drivers}")
