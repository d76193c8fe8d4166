"""Stage 3: every customer gets a segment."""

from __future__ import annotations

from batch.columns import CUSTOMERS, Row, customer_of
from batch.stages.stage import Stage
from models.campaign.segmentation import Segmenter


class SegmentCustomers(Stage):
    out = CUSTOMERS

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self._segmenter = segmenter

    async def map_row(self, row: Row) -> list[Row]:
        return [{**row, "segment": self._segmenter.label(customer_of(row))}]
