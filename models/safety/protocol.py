"""What the rest of Rapport relies on for safety."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from models.embedding.protocol import Vectors
from models.resilience.deadline import Deadline
from models.safety.types import AuditRecord, Finding, PIISpan, Purpose, Verdict


class Moderator(Protocol):
    """Scores texts for harm; knows no policy."""

    async def moderate(
        self, texts: Sequence[str], *, vectors: Vectors | None = None, deadline: Deadline | None = None
    ) -> list[tuple[Finding, ...]]:
        """One finding per harm and text. `vectors` are the texts' embeddings when the caller already has them.

        Raises `SafetyUnavailable`.
        """
        ...


class PIIDetector(Protocol):
    """Finds personal data in text."""

    def detect(self, text: str) -> tuple[PIISpan, ...]:
        """Non-overlapping spans in order of appearance."""
        ...

    def redact(self, text: str) -> str:
        """The text with every span replaced by its type in brackets, such as `[EMAIL]`."""
        ...


class SafetyGate(Protocol):
    """The one door every text passes: moderation and policy together, failing closed."""

    async def check(
        self,
        texts: Sequence[str],
        *,
        purpose: Purpose,
        vectors: Vectors | None = None,
        deadline: Deadline | None = None,
    ) -> list[Verdict]:
        """One verdict per text; never raises for an unavailable moderator, it blocks instead."""
        ...


class AuditLog(Protocol):
    """Append-only trail of decisions and releases."""

    def record(self, record: AuditRecord) -> None:
        """Take the record without waiting; it is durable within one second."""
        ...

    async def record_durably(self, records: Sequence[AuditRecord], *, timeout_s: float) -> None:
        """Take the records and return once they are durable.

        Raises `DatabaseUnavailable` when one of them was lost, or is not durable within `timeout_s`; what was taken may
        still be written later.
        """
        ...

    async def flush(self) -> None:
        """Return once everything taken so far is durable. Raises `DatabaseUnavailable`."""
        ...
