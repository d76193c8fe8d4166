"""The audit line for every context that is released with personal data unmasked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from models.clock import WallClock, utc_now
from models.enrichment.protocol import ContextReader
from models.enrichment.selection import AgentViews, Mask
from models.enrichment.types import ContextReading, ReadFormat
from models.ids import NewId, new_id
from models.resilience.deadline import Deadline
from models.safety.audit import hash_subject
from models.safety.protocol import AuditLog
from models.safety.types import AuditRecord
from models.telemetry import principal, request_id


class AuditedReader:
    """A `ContextReader` that records who was shown a customer's unmasked fields: a pseudonym, never a value.

    Recording only appends to memory; the audit log makes it durable within a second, off the path of the read.
    """

    def __init__(
        self,
        reader: ContextReader,
        views: AgentViews,
        audit: AuditLog,
        *,
        salt: str,
        clock: WallClock = utc_now,
        ids: NewId = new_id,
    ) -> None:
        self._reader = reader
        self._unmasked = {
            name: ",".join(sorted(field for field, mask in views.view(name).masks.items() if mask is Mask.KEEP))
            for name in views.names()
        }
        self._audit = audit
        self._pseudonym = lru_cache(maxsize=4096)(lambda customer_id: hash_subject(salt, customer_id))
        self._clock = clock
        self._ids = ids

    async def read(
        self,
        customer_id: str,
        *,
        agent_type: str,
        deadline: Deadline,
        max_age_ms: int | None = None,
        force_refresh: bool = False,
        required: Sequence[str] = (),
        format: ReadFormat = ReadFormat.JSON,
        max_tokens: int | None = None,
    ) -> ContextReading:
        """The reading, unchanged; raises as the reader does."""
        reading = await self._reader.read(
            customer_id,
            agent_type=agent_type,
            deadline=deadline,
            max_age_ms=max_age_ms,
            force_refresh=force_refresh,
            required=required,
            format=format,
            max_tokens=max_tokens,
        )
        if fields := self._unmasked.get(agent_type):
            self._audit.record(
                AuditRecord(
                    audit_id=self._ids("aud"),
                    at=self._clock(),
                    actor=principal.get() or "unknown",
                    action="context.release",
                    subject=self._pseudonym(customer_id),
                    outcome="unmasked",
                    request_id=request_id.get(),
                    details={
                        "agent_type": agent_type,
                        "fields": fields,
                        "context_version": reading.context_version,
                    },
                )
            )
        return reading
