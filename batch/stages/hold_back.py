"""Stage 2: customers with open trouble are told from those whom it is worth writing to."""

from __future__ import annotations

from contextlib import AsyncExitStack

from batch.columns import JUDGED, KEY, TEXT_LIST, Row, judged_row
from batch.engines import Hold
from batch.stages.stage import Stage
from models.campaign.config import HoldBack
from models.campaign.hold_back import judge_all
from models.enrichment.protocol import ContextSource
from models.resilience.deadline import Deadline

#: As many as one query of a context provider is about: with more, its time would run while it waits for its turn.
CUSTOMERS_TOGETHER = 250
_TIMEOUT_S = 30.0


class JudgeCustomers(Stage):
    """Customers that are read together come out one by one; if they could not be read at all, as one failed row."""

    out = JUDGED
    holds_resources = True

    def __init__(self, contexts: Hold[ContextSource], options: HoldBack) -> None:
        super().__init__()
        self._hold, self._options = contexts, options
        self._held = AsyncExitStack()

    async def open(self) -> None:
        self._contexts = await self._held.enter_async_context(self._hold())

    async def close(self) -> None:
        await self._held.aclose()

    async def map_row(self, row: Row) -> list[Row]:
        customer_ids = TEXT_LIST.validate_json(row["customer_ids"])
        judged = await judge_all(customer_ids, self._contexts, self._options, deadline=Deadline.after(_TIMEOUT_S))
        return [judged_row(customer_id, judgement) for customer_id, judgement in judged.items()]

    def stand_in(self, row: Row) -> Row:
        return {KEY: f"customers {row['number']}"}
