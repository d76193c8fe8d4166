"""History for callers: of their agent type alone, and where it is unmasked only with the audit trail knowing."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from models.enrichment.history import HistoryPage
from models.enrichment.history_release import AuditedHistory
from models.enrichment.selection import AgentViews
from models.enrichment.types import HistoryEntry
from models.errors import DatabaseUnavailable, NotFound, UnknownAgentType
from models.telemetry import principal
from tests.fakes.campaign import AuditInMemory

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)


class Versions:
    """One version for every agent type, and none of `nobody`."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def page(self, customer_id: str, *, agent_type: str, limit: int, cursor: str | None) -> HistoryPage:
        self.asked.append(agent_type)
        entries = () if customer_id == "nobody" else (await self.get(customer_id, agent_type, "v-1"),)
        return HistoryPage(entries=entries, preceding=None, next_cursor=None)

    async def get(self, customer_id: str, agent_type: str, version: str) -> HistoryEntry:
        if version == "v-9":
            raise NotFound("this context has no such version")
        return HistoryEntry(
            customer_id=customer_id,
            agent_type=agent_type,
            context_version=version,
            content={"customer_intelligence": {"plan": version}},
            at=NOW,
        )


def history(audit: AuditInMemory, versions: Versions | None = None) -> AuditedHistory:
    return AuditedHistory(versions or Versions(), AgentViews.load(), audit, salt="salt", wall_clock=lambda: NOW)


async def test_without_an_agent_type_the_most_masked_history_is_shown() -> None:
    versions, audit = Versions(), AuditInMemory()
    await history(audit, versions).page("customer_1", agent_type="")
    assert versions.asked == ["general"]
    assert audit.records == []
    with pytest.raises(UnknownAgentType):
        await history(audit).page("customer_1", agent_type="astrologer")


async def test_an_unmasked_release_is_recorded_without_a_value() -> None:
    audit = AuditInMemory()
    token = principal.set("key:sales")
    try:
        await history(audit).page("customer_1", agent_type="sales")
        (change,) = await history(audit).compare("customer_1", agent_type="sales", older="v-1", newer="v-2")
    finally:
        principal.reset(token)
    assert (change.before, change.after) == ("v-1", "v-2")
    assert [(each.actor, each.action) for each in audit.records] == [("key:sales", "context.history.release")] * 2
    assert "customer_1" not in str(audit.records)
    assert "customer_intelligence.contact_email" in str(audit.records[0].details["fields"])


async def test_what_is_not_shown_is_not_recorded() -> None:
    audit = AuditInMemory()
    await history(audit).page("nobody", agent_type="sales")
    with pytest.raises(NotFound):
        await history(audit).compare("customer_1", agent_type="sales", older="v-1", newer="v-9")
    assert audit.records == []


async def test_without_the_audit_trail_nothing_unmasked_is_shown() -> None:
    audit = AuditInMemory(away=True)
    with pytest.raises(DatabaseUnavailable):
        await history(audit).page("customer_1", agent_type="sales")
    assert (await history(audit).page("customer_1", agent_type="support")).entries
