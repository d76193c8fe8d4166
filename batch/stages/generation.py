"""Stage 5: every segment gets three composed variants, or the reasons why not."""

from __future__ import annotations

from collections.abc import Mapping

from batch.columns import FAILURES, MESSAGES, PASSAGES, SEGMENT, VARIANTS, Row, encode
from batch.stages.stage import Stage
from models.campaign.frames import ToneFrame
from models.campaign.generation import compose_variants
from models.campaign.types import Tone, Variant, VariantFailure


class ComposeVariants(Stage):
    out = MESSAGES

    def __init__(self, frames: Mapping[Tone, ToneFrame], campaign_id: str) -> None:
        super().__init__()
        self._frames, self._campaign_id = frames, campaign_id

    async def map_row(self, row: Row) -> list[Row]:
        segment, passages = SEGMENT.validate_json(row["segment"]), PASSAGES.validate_json(row["passages"] or "[]")
        composed = compose_variants(segment, passages, self._frames, campaign_id=self._campaign_id)
        variants = tuple(one for one in composed if isinstance(one, Variant))
        failures = tuple(one for one in composed if isinstance(one, VariantFailure))
        return [{**row, "variants": encode(VARIANTS, variants), "failures": encode(FAILURES, failures)}]
