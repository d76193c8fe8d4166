"""Stage 1: shards of ids become customers with their features."""

from __future__ import annotations

from datetime import datetime

from batch.columns import CUSTOMERS, KEY, Row, customer_row
from batch.engines import Build
from batch.stages.stage import Stage
from models.campaign.protocol import Audience
from models.campaign.types import Shard


class ReadAudience(Stage):
    """Each shard comes out as its customers; a shard that cannot be read, as one failed row."""

    out = CUSTOMERS
    holds_resources = True

    def __init__(self, build: Build[Audience], as_of: datetime) -> None:
        super().__init__()
        self._build, self._as_of = build, as_of

    async def open(self) -> None:
        self._audience = await self._build()

    async def map_row(self, row: Row) -> list[Row]:
        customers = await self._audience.read(Shard(**row), as_of=self._as_of)
        return [customer_row(customer) for customer in customers]

    def stand_in(self, row: Row) -> Row:
        return {KEY: f"shard {row['number']}"}
