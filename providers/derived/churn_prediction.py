"""How likely the customer is to leave, by the trained model and as recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection

from models.enrichment.types import ChurnPrediction, ProviderSpec
from providers.base import ProviderResources, SqlProvider
from providers.derived.facts import Known, read_known
from providers.derived.model import insights_of

RECORDED, MODEL = "recorded", "model"


class ChurnPredictionProvider(SqlProvider[ChurnPrediction]):
    """A recorded risk wins over the prediction, and both are shown.

    Nothing for who cannot churn (no subscription, a trial, already cancelled) or has been here for less than 30 days.
    """

    spec = ProviderSpec(
        name="churn_prediction",
        section="churn_prediction",
        source="insights",
        tier=2,
        ttl_s=300.0,
        tags=("customers", "subscriptions", "invoices", "conversations", "tickets", "usage"),
    )

    def __init__(self, resources: ProviderResources) -> None:
        super().__init__(resources)
        self._insights = insights_of(resources)
        self._version = self._insights.version

    def load(
        self, connection: Connection, customer_ids: Sequence[str], now: datetime
    ) -> Mapping[str, ChurnPrediction | None]:
        known = read_known(connection, customer_ids, now)
        judged = [customer_id for customer_id, one in known.items() if one.facts.at_risk]
        predicted = self._insights.churn.predict([known[customer_id].facts for customer_id in judged])
        sections: dict[str, ChurnPrediction | None] = dict.fromkeys(known)
        for customer_id, (probability, drivers) in zip(judged, predicted, strict=True):
            sections[customer_id] = self._section(known[customer_id], probability, drivers)
        return sections

    def _section(self, known: Known, probability: float, drivers: tuple[str, ...]) -> ChurnPrediction:
        predicted = round(probability, 3)
        recorded = known.recorded_risk
        return ChurnPrediction(
            risk=predicted if recorded is None else recorded,
            risk_source=MODEL if recorded is None else RECORDED,
            recorded=recorded,
            predicted=predicted,
            horizon_days=self._insights.churn.horizon_days,
            drivers=drivers,
            model_version=self._version,
            synthetic=self._insights.synthetic,
        )
