"""Stage 6: every variant passes the safety gate, the same one that guards replies."""

from __future__ import annotations

from datetime import UTC, datetime

from batch.columns import CHECKED, MESSAGES, VARIANTS, Row, encode
from batch.engines import Build
from batch.stages.stage import Stage
from models.campaign.types import CheckedVariant
from models.resilience.deadline import Deadline
from models.safety.protocol import SafetyGate
from models.safety.types import Purpose

_TIMEOUT_S = 60.0


class CheckSafety(Stage):
    """Subject and body are checked as one text; the gate blocks when it cannot tell."""

    out = MESSAGES
    holds_resources = True

    def __init__(self, build: Build[SafetyGate]) -> None:
        super().__init__()
        self._build = build

    async def open(self) -> None:
        self._gate = await self._build()

    async def map_row(self, row: Row) -> list[Row]:
        variants = VARIANTS.validate_json(row["variants"] or "[]")
        texts = [f"{variant.subject}\n\n{variant.body}" for variant in variants]
        deadline = Deadline.after(_TIMEOUT_S)
        verdicts = await self._gate.check(texts, purpose=Purpose.CAMPAIGN, deadline=deadline) if texts else []
        checked = tuple(
            CheckedVariant(
                variant=variant,
                decision=verdict.decision,
                findings=verdict.findings,
                reasons=verdict.reasons,
                policy_version=verdict.policy_version,
                checked_at=datetime.now(UTC),
            )
            for variant, verdict in zip(variants, verdicts, strict=True)
        )
        return [{**row, "checked": encode(CHECKED, checked)}]
