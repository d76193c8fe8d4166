"""No version of a context leaves with personal data unmasked unless the audit trail durably knows of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from models.clock import WallClock, utc_now
from models.enrichment.history import FieldChange, HistoryPage, diff
from models.enrichment.selection import AgentViews
from models.enrichment.types import HistoryEntry
from models.ids import NewId, new_id
from models.safety.audit import hash_subject
from models.safety.protocol import AuditLog
from models.safety.types import AuditRecord
from models.telemetry import principal, request_id


class KeptVersions(Protocol):
    """Where versions are kept, each as one agent type saw it."""

    async def page(self, customer_id: str, *, agent_type: str, limit: int, cursor: str | None) -> HistoryPage: ...

    async def get(self, customer_id: str, agent_type: str, version: str) -> HistoryEntry: ...


class AuditedHistory:
    """The history of contexts for callers: by agent type, the empty name meaning the default one.

    Versions hold what their agent type was shown; where that is unmasked, the release is in the audit trail first.
    """

    def __init__(
        self,
        versions: KeptVersions,
        views: AgentViews,
        audit: AuditLog,
        *,
        salt: str,
        patience_s: float = 1.0,
        wall_clock: WallClock = utc_now,
        ids: NewId = new_id,
    ) -> None:
        self._versions = versions
        self._views = views
        self._audit = audit
        self._salt = salt
        self._patience_s = patience_s
        self._wall_clock = wall_clock
        self._ids = ids

    async def page(
        self, customer_id: str, *, agent_type: str, limit: int = 20, cursor: str | None = None
    ) -> HistoryPage:
        """The newest first. Raises `UnknownAgentType`, `InvalidRequest` for a cursor, `DatabaseUnavailable`."""
        name = self._views.view(agent_type).agent_type
        page = await self._versions.page(customer_id, agent_type=name, limit=limit, cursor=cursor)
        if page.entries:
            await self._note_release(customer_id, name)
        return page

    async def compare(self, customer_id: str, *, agent_type: str, older: str, newer: str) -> Sequence[FieldChange]:
        """What changed between two versions. Raises `UnknownAgentType`, `NotFound`, `DatabaseUnavailable`."""
        name = self._views.view(agent_type).agent_type
        before = await self._versions.get(customer_id, name, older)
        after = await self._versions.get(customer_id, name, newer)
        await self._note_release(customer_id, name)
        return diff(before, after)

    async def _note_release(self, customer_id: str, agent_type: str) -> None:
        view = self._views.view(agent_type)
        if not view.unmasked:
            return
        record = AuditRecord(
            audit_id=self._ids("aud"),
            at=self._wall_clock(),
            actor=principal.get() or "unknown",
            action="context.history.release",
            subject=hash_subject(self._salt, customer_id),
            outcome="unmasked",
            request_id=request_id.get(),
            details={"agent_type": agent_type, "fields": ",".join(view.unmasked)},
        )
        await self._audit.record_durably([record], timeout_s=self._patience_s)
