"""Stage 4: every segment gets the passages its messages may quote."""

from __future__ import annotations

from batch.columns import MESSAGES, PASSAGES, SEGMENT, Row, encode
from batch.engines import Build
from batch.stages.stage import Stage
from models.campaign.config import Retrieval
from models.campaign.retrieval import retrieve
from models.knowledge.protocol import KnowledgeSearch
from models.resilience.deadline import Deadline

_TIMEOUT_S = 60.0


class RetrievePassages(Stage):
    out = MESSAGES
    holds_resources = True

    def __init__(self, build: Build[KnowledgeSearch], options: Retrieval) -> None:
        super().__init__()
        self._build, self._options = build, options

    async def open(self) -> None:
        self._search = await self._build()

    async def map_row(self, row: Row) -> list[Row]:
        segment = SEGMENT.validate_json(row["segment"])
        found = await retrieve(segment, self._search, self._options, deadline=Deadline.after(_TIMEOUT_S))
        return [{**row, "passages": encode(PASSAGES, found)}]
