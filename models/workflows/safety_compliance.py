"""A safety report: recorded durably first, answered in fixed words afterwards."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from models.errors import DatabaseUnavailable, RapportError
from models.safety.protocol import PIIDetector
from models.workflows.protocol import ComplianceSystem
from models.workflows.replies import SELF_HARM, Wordings
from models.workflows.severity import SERVICE_LEVELS, Assessment
from models.workflows.types import InboundMessage, WorkflowResult

logger = logging.getLogger(__name__)

#: Stored in place of a text that could not be redacted: the report is kept, the personal data is not.
WITHHELD = "[text withheld: redaction failed]"


class SafetyComplianceWorkflow:
    """No reply exists before the compliance record is committed; without the record there is no reply at all."""

    def __init__(self, compliance: ComplianceSystem, pii: PIIDetector, safety_replies: Wordings) -> None:
        self._compliance = compliance
        self._pii = pii
        self._safety_replies = safety_replies
        self._commits: set[asyncio.Future[str]] = set()

    async def run(self, message: InboundMessage, so_far: WorkflowResult, *, assessment: Assessment) -> WorkflowResult:
        """Raises `DatabaseUnavailable` when the record could not be committed.

        No deadline is taken, and a cancelled caller does not stop the commit: who stops waiting undoes no report.
        """
        level = SERVICE_LEVELS[assessment.severity]
        redacted, degraded = self._redact(message.text)
        try:
            record_id = await self._commit(
                self._compliance.record(
                    customer_id=message.customer_id,
                    channel=message.channel,
                    severity=assessment.severity,
                    redacted_text=redacted,
                    due_in=level.due_in,
                    queue=level.queue,
                    request_id=message.request_id,
                )
            )
        except DatabaseUnavailable:
            raise
        except (RapportError, OSError, TimeoutError) as exc:
            raise DatabaseUnavailable("the compliance record could not be committed") from exc
        wording = SELF_HARM if assessment.self_harm else str(assessment.severity)
        return replace(
            so_far,
            decision_path=(
                *so_far.decision_path,
                f"severity:{assessment.severity}",
                "pii_redacted" if not degraded else "text_withheld",
                "compliance_recorded",
                f"queued:{level.queue}",
            ),
            next_step=level.next_step,
            reply=self._safety_replies.text(wording, record_id=record_id),
            entities={
                **so_far.entities,
                "severity": str(assessment.severity),
                "compliance_record_id": record_id,
                **({"signals": ", ".join(assessment.signals)} if assessment.signals else {}),
            },
            severity=assessment.severity,
            degraded=(*so_far.degraded, *degraded),
        )

    async def _commit(self, recording: Coroutine[Any, Any, str]) -> str:
        commit = asyncio.ensure_future(recording)
        self._commits.add(commit)  # the loop itself keeps only weak references
        commit.add_done_callback(self._commits.discard)
        return await asyncio.shield(commit)

    def _redact(self, text: str) -> tuple[str, tuple[str, ...]]:
        try:
            return self._pii.redact(text), ()
        except Exception as exc:  # any defect of a detector must cost the text, not the report
            logger.error("a safety report was recorded without its text", extra={"error": type(exc).__name__})
            return WITHHELD, ("pii",)
