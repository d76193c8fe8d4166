"""No version of a context leaves with personal data unmasked unless the audit trail durably knows of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Protocol

from models.clock import WallClock, utc_now
from models.enrichment.history import FieldChange, HistoryPage, diff
from models.enrichment.masking import REDACTED
from models.enrichment.release import release_record
from models.enrichment.selection import AgentView, AgentViews
from models.enrichment.types import SECTIONS, HistoryEntry
from models.ids import NewId, new_id
from models.safety.protocol import AuditLog


class KeptVersions(Protocol):
    """Where versions are kept, each as one agent type saw it."""

    async def check_customer(self, customer_id: str) -> None: ...

    async def page(self, customer_id: str, *, agent_type: str, limit: int, cursor: str | None) -> HistoryPage: ...

    async def get(self, customer_id: str, agent_type: str, version: str) -> HistoryEntry: ...


class AuditedHistory:
    """The history of contexts for callers: by agent type, the empty name meaning the default one.

    Versions hold what their agent type was shown. Of one that other rules than today's masked, nothing personal and
    nothing that people wrote is shown; nor are sections that the agent type does not see today. Where today's view is
    unmasked, the release is in the audit trail first.
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

    def resolve(self, agent_type: str) -> str:
        """The name of the agent type that is meant. Raises `UnknownAgentType`."""
        return self._views.view(agent_type).agent_type

    async def page(
        self, customer_id: str, *, agent_type: str, limit: int = 20, cursor: str | None = None
    ) -> HistoryPage:
        """The newest first.

        Raises `UnknownAgentType`, `UnknownCustomer`, `InvalidRequest` for a cursor, `DatabaseUnavailable`.
        """
        view = self._views.view(agent_type)
        page = await self._versions.page(customer_id, agent_type=view.agent_type, limit=limit, cursor=cursor)
        if page.entries:
            await self._note_release(customer_id, view)
        else:
            await self._versions.check_customer(customer_id)
        return replace(
            page,
            entries=tuple(_as_seen_by(view, entry) for entry in page.entries),
            preceding=None if page.preceding is None else _as_seen_by(view, page.preceding),
        )

    async def compare(self, customer_id: str, *, agent_type: str, older: str, newer: str) -> Sequence[FieldChange]:
        """What changed between two versions. Raises `UnknownAgentType`, `NotFound`, `DatabaseUnavailable`."""
        view = self._views.view(agent_type)
        before = await self._versions.get(customer_id, view.agent_type, older)
        after = await self._versions.get(customer_id, view.agent_type, newer)
        await self._note_release(customer_id, view)
        return diff(_as_seen_by(view, before), _as_seen_by(view, after))

    async def _note_release(self, customer_id: str, view: AgentView) -> None:
        if not view.unmasked:
            return
        record = release_record(
            "context.history.release", customer_id, view, salt=self._salt, at=self._wall_clock(), ids=self._ids
        )
        await self._audit.record_durably([record], timeout_s=self._patience_s)


def _as_seen_by(view: AgentView, entry: HistoryEntry) -> HistoryEntry:
    shown = view.sections()
    content = {name: section for name, section in entry.content.items() if name in shown}
    if entry.rules != view.fingerprint:
        content = {name: _redacted(name, section) for name, section in content.items()}
    return replace(entry, content=content)


def _redacted(name: str, section: Mapping[str, Any]) -> dict[str, Any]:
    """The section without what rules could hide; what older rules left of a value cannot be masked by today's."""
    hidden = {item.name for item in fields(SECTIONS[name]) if item.metadata.keys() & {"personal", "free_text"}}
    return {key: REDACTED if key in hidden and value is not None else value for key, value in section.items()}
