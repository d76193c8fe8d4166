"""Stage 8: every assigned customer gets a simulated engagement, marked so."""

from __future__ import annotations

from batch.columns import ENGAGED, Row, customer_of
from batch.stages.stage import Stage
from models.campaign.config import Simulation
from models.campaign.experimentation import simulate
from models.campaign.types import Arm


class SimulateEngagement(Stage):
    out = ENGAGED

    def __init__(self, model: Simulation, seed: int) -> None:
        super().__init__()
        self._model, self._seed = model, seed

    async def map_row(self, row: Row) -> list[Row]:
        done = simulate(customer_of(row), Arm(row["arm"]), self._model, seed=self._seed)
        return [{**row, "visited": done.visited, "converted": done.converted, "spend_cents": done.spend_cents}]
