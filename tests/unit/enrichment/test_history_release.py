"""History for callers: of their agent type alone, and where it is unmasked only with the audit trail knowing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from models.enrichment.history import HistoryPage
from models.enrichment.history_release import AuditedHistory
from models.enrichment.selection import AgentViews
from models.enrichment.types import HistoryEntry
from models.errors import DatabaseUnavailable, NotFound, UnknownAgentType, UnknownCustomer
from models.telemetry import principal
from tests.fakes.campaign import AuditInMemory

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
VIEWS = AgentViews.load()
CONTENT: dict[str, dict[str, Any]] = {
    "customer_intelligence": {"contact_name": "Dana Reyes", "contact_email": "dana@acme.com"},
    "company_news": {"total": 1, "articles": [{"title": "Call Dana on +1 202 555 0143", "source": "wire"}]},
    "security_context": {"open_events": 2, "last_event_detail": "dana@acme.com from 10.0.0.7"},
}


class Versions:
    """One version for every agent type, none of `newcomer`, and `nobody` is unknown."""

    def __init__(self, **rules: str) -> None:
        self.asked: list[str] = []
        #: By version with _ for -, where they are not those of today.
        self.rules = {name.replace("_", "-"): value for name, value in rules.items()}

    async def page(self, customer_id: str, *, agent_type: str, limit: int, cursor: str | None) -> HistoryPage:
        self.asked.append(agent_type)
        entries = () if customer_id in ("newcomer", "nobody") else (await self.get(customer_id, agent_type, "v-1"),)
        return HistoryPage(entries=entries, preceding=None, next_cursor=None)

    async def check_customer(self, customer_id: str) -> None:
        if customer_id == "nobody":
            raise UnknownCustomer("there is no such customer")

    async def get(self, customer_id: str, agent_type: str, version: str) -> HistoryEntry:
        if version == "v-9":
            raise NotFound("this context has no such version")
        return HistoryEntry(
            customer_id=customer_id,
            agent_type=agent_type,
            context_version=version,
            content=CONTENT | {"customer_intelligence": {**CONTENT["customer_intelligence"], "plan": version}},
            at=NOW,
            rules=self.rules.get(version, VIEWS.view(agent_type).fingerprint),
        )


def history(audit: AuditInMemory, versions: Versions | None = None) -> AuditedHistory:
    return AuditedHistory(versions or Versions(), VIEWS, audit, salt="salt", wall_clock=lambda: NOW)


async def test_without_an_agent_type_the_most_masked_history_is_shown() -> None:
    versions, audit = Versions(), AuditInMemory()
    await history(audit, versions).page("customer_1", agent_type="")
    assert versions.asked == ["general"]
    assert history(audit).resolve("") == "general"
    assert audit.records == []
    with pytest.raises(UnknownAgentType):
        await history(audit).page("customer_1", agent_type="astrologer")


async def test_nobody_has_no_history_and_a_new_customer_an_empty_one() -> None:
    audit = AuditInMemory()
    with pytest.raises(UnknownCustomer):
        await history(audit).page("nobody", agent_type="support")
    assert (await history(audit).page("newcomer", agent_type="support")).entries == ()


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
    assert (await history(audit).page("newcomer", agent_type="sales")).entries == ()
    with pytest.raises(NotFound):
        await history(audit).compare("customer_1", agent_type="sales", older="v-1", newer="v-9")
    assert audit.records == []


async def test_without_the_audit_trail_nothing_unmasked_is_shown() -> None:
    audit = AuditInMemory(away=True)
    with pytest.raises(DatabaseUnavailable):
        await history(audit).page("customer_1", agent_type="sales")
    assert (await history(audit).page("customer_1", agent_type="support")).entries


@pytest.mark.parametrize("rules", ["", "those of last week", VIEWS.view("general").fingerprint])
async def test_what_other_rules_masked_is_shown_without_anything_personal(rules: str) -> None:
    page = await history(AuditInMemory(), Versions(v_1=rules)).page("customer_1", agent_type="sales")
    assert page.entries[0].content == {
        "customer_intelligence": {"contact_name": "[redacted]", "contact_email": "[redacted]", "plan": "v-1"},
        "company_news": {"total": 1, "articles": "[redacted]"},
    }


async def test_what_today_s_rules_masked_is_shown_as_it_was() -> None:
    page = await history(AuditInMemory()).page("customer_1", agent_type="security")
    shown = page.entries[0].content
    assert shown["customer_intelligence"]["contact_email"] == "dana@acme.com"
    assert shown["security_context"] == CONTENT["security_context"]
    assert "company_news" not in shown, "security does not see it today"


async def test_a_comparison_shows_nothing_of_older_rules_either() -> None:
    versions = Versions(v_1="older")
    found = await history(AuditInMemory(), versions).compare("customer_1", agent_type="sales", older="v-1", newer="v-2")
    changes = {change.field: change.before for change in found}
    assert changes["customer_intelligence.contact_email"] == "[redacted]"
    assert "dana" not in str(list(changes.values())).lower()


async def test_the_version_before_a_page_is_masked_as_the_page_is() -> None:
    class Paged(Versions):
        async def page(self, customer_id: str, *, agent_type: str, limit: int, cursor: str | None) -> HistoryPage:
            newest, before = [await self.get(customer_id, agent_type, version) for version in ("v-2", "v-1")]
            return HistoryPage(entries=(newest,), preceding=before, next_cursor="1")

    page = await history(AuditInMemory(), Paged(v_1="older")).page("customer_1", agent_type="sales")
    assert page.preceding is not None
    assert "dana" not in str(page.preceding.content).lower()
    assert page.next_cursor == "1"
