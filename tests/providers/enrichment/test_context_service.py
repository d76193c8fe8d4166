"""The documented Python door, on the demo company and on both databases."""

from __future__ import annotations

import asyncio
import re
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select, text

import providers.registry
from demo.seed import plant
from models.clock import utc_now
from models.enrichment.types import SECTIONS, HistoryEntry
from models.errors import ConfigurationError, DatabaseUnavailable, InvalidRequest, UnknownAgentType
from models.settings import ContextSettings, Settings
from providers.base import ProviderResources
from providers.context_service import ContextEnrichmentService
from providers.database import Database
from providers.record_tables import AuditLine
from providers.registry import BUILT_IN, build_providers
from providers.systems.context_history import SqlContextHistory
from tests.fakes.enrichment import DOCUMENTED_PROMPT, DOCUMENTED_SUMMARY, NOW, FakeProvider

CUSTOMERS = 123


def service(database_url: str, **options: Any) -> ContextEnrichmentService:
    options.setdefault("now", lambda: NOW)
    return ContextEnrichmentService(database_url=database_url, redis_url="", settings=Settings(), **options)


@pytest.fixture
async def demo_url(database: Database, database_url: str) -> str:
    await plant(database, customers=CUSTOMERS, seed=7, now=NOW)
    return database_url


async def test_acme_reads_as_documented(demo_url: str) -> None:
    async with service(demo_url) as contexts:
        context = await contexts.enrich_context("customer_123")
        # The demo company has an open incident, which the documents have not.
        prompt, incidents = re.subn(r"\n\nProduct Status: DEGRADED\n- .*", "", context.to_prompt_context())
        assert (prompt, incidents) == (DOCUMENTED_PROMPT, 1)
        assert await contexts.get_context_summary("customer_123") == DOCUMENTED_SUMMARY
        assert context.customer_intelligence is not None
        assert context.customer_intelligence.contact_email == "[redacted]"


async def test_every_demo_customer_has_a_complete_context(demo_url: str) -> None:
    async with service(demo_url) as contexts:
        for number in range(1, CUSTOMERS + 1, 4):
            context = await contexts.enrich_context(f"customer_{number}", "success")
            assert context.complete, [outcome for outcome in context.outcomes if outcome.detail]
            assert context.customer_intelligence is not None
            assert context.to_prompt_context().count("\n") > 10


async def test_an_unknown_customer_gets_a_marked_minimal_context(demo_url: str) -> None:
    async with service(demo_url) as contexts:
        context = await contexts.enrich_context("customer_999999")
        assert context.minimal
        assert {outcome.detail for outcome in context.outcomes} == {"there is no such customer"}
        assert (await contexts.get_context_summary("nobody"))["company_name"] == "unknown"
        with pytest.raises(UnknownAgentType):
            await contexts.enrich_context("nobody", "astrology")
        with pytest.raises(InvalidRequest):
            await contexts.enrich_context("no body")


async def test_a_lost_database_gives_a_minimal_context(empty_url: str) -> None:
    async with service(empty_url) as contexts:
        context = await contexts.enrich_context("customer_123")
        assert context.minimal
        assert not context.complete


async def test_the_cache_can_be_skipped_invalidated_and_switched_off(demo_url: str) -> None:
    async with service(demo_url) as contexts:
        assert not (await contexts.enrich_context("customer_1")).cache_hit
        assert (await contexts.enrich_context("customer_1")).cache_hit
        assert not (await contexts.enrich_context("customer_1", force_refresh=True)).cache_hit
        await contexts.invalidate_cache("customer_1")
        assert not (await contexts.enrich_context("customer_1")).cache_hit
    async with service(demo_url, enable_caching=False) as contexts:
        assert [(await contexts.enrich_context("customer_1")).cache_hit for _ in range(2)] == [False, False]


def test_a_service_may_outlive_an_event_loop(empty_url: str) -> None:
    contexts = service(empty_url)

    async def once() -> bool:
        context = await contexts.enrich_context("customer_1")
        await contexts.close()
        return context.minimal

    assert [asyncio.run(once()) for _ in range(2)] == [True, True]


async def actions(database: Database) -> list[str]:
    async with database.session() as session:
        return list((await session.scalars(select(AuditLine.action).order_by(AuditLine.seq))).all())


async def test_what_an_agent_type_is_shown_unmasked_is_in_the_audit_trail(demo_url: str, database: Database) -> None:
    async with service(demo_url) as contexts:
        for _ in range(3):
            context = await contexts.enrich_context("customer_123", "sales")
            assert context.customer_intelligence is not None
            assert context.customer_intelligence.contact_email == "jordan.blake@example.com"
        assert await actions(database) == ["context.release"], "before the first was returned"
        await contexts.enrich_context("customer_123", "support")
    assert await actions(database) == ["context.release", "context.releases"]


async def test_without_an_audit_trail_the_masked_view_is_returned(demo_url: str, database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text("ALTER TABLE audit RENAME TO audit_elsewhere"))
    contexts = service(demo_url)
    context = await contexts.enrich_context("customer_123", "sales")
    assert context.customer_intelligence is not None
    assert context.customer_intelligence.contact_email == "[redacted]"
    with pytest.raises(DatabaseUnavailable, match="audit"):
        await contexts.close()


async def test_history_keeps_what_differs_from_the_newest(database: Database) -> None:
    history = SqlContextHistory(database)

    def entry(version: str, agent_type: str = "support") -> HistoryEntry:
        return HistoryEntry(
            customer_id="customer_1",
            agent_type=agent_type,
            context_version=version,
            content={"support_history": {"open_tickets": len(version)}},
            at=utc_now(),
        )

    kept = [await history.record(entry(version)) for version in ("a", "a", "b", "a")]
    assert kept == [True, False, True, True]
    assert await history.record(entry("a", "sales"))
    recent = await history.recent("customer_1", agent_type="support", limit=2)
    assert [found.context_version for found in recent] == ["a", "b"]
    assert recent[0].content == {"support_history": {"open_tickets": 1}}


async def test_history_follows_the_data(demo_url: str, database: Database) -> None:
    async with service(demo_url) as contexts:
        for _ in range(3):
            await contexts.enrich_context("customer_123", "sales", force_refresh=True)
            await contexts._opened().orchestrator.settle()
    [entry] = await SqlContextHistory(database).recent("customer_123", agent_type="sales")
    assert entry.content["customer_intelligence"]["company_name"] == "Acme Corp"


class Horoscope(FakeProvider):
    """A provider of somebody else's."""

    def __init__(self, resources: ProviderResources) -> None:
        super().__init__("account_health")


class TestRegistry:
    def entries(self, monkeypatch: pytest.MonkeyPatch, name: str, target: str) -> None:
        entry = EntryPoint(name=name, value=target, group=providers.registry.ENTRY_POINTS)
        monkeypatch.setattr(providers.registry, "entry_points", lambda group: [entry])

    async def test_the_table_agrees_with_the_classes(self, database: Database) -> None:
        keys = dict.fromkeys(("clearbit_api_key", "crunchbase_api_key", "news_api_key"), SecretStr("key"))
        built = build_providers(ProviderResources(database=database, settings=ContextSettings(**keys)))
        assert {provider.spec.name for provider in built} == set(BUILT_IN)
        assert {provider.spec.section for provider in built} == set(SECTIONS)

    async def test_installed_providers_enter_by_the_same_path(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        resources = ProviderResources(database=database)
        self.entries(monkeypatch, "account_health", f"{__name__}:Horoscope")
        with pytest.raises(ConfigurationError, match="twice"):
            build_providers(resources)
        self.entries(monkeypatch, "horoscope", f"{__name__}:Horoscope")
        with pytest.raises(ConfigurationError, match="calls itself"):
            build_providers(resources, ["horoscope"])
        monkeypatch.setattr(providers.registry, "BUILT_IN", {})
        self.entries(monkeypatch, "account_health", f"{__name__}:Horoscope")
        [provider] = build_providers(resources)
        assert isinstance(provider, Horoscope)
        with pytest.raises(ConfigurationError, match="unknown context provider"):
            build_providers(resources, ["palmistry"])
