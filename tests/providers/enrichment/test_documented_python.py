"""The examples of the documented Python API, as a newcomer pastes them; only import paths differ. No cluster runs."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest

from demo.seed import plant
from models.clock import utc_now
from models.errors import ConfigurationError
from models.llm.types import LanguageModelReply, LanguageModelRequest
from models.resilience.deadline import Deadline
from providers.agents import AgentCapability, AgentConfig, AgentState, AgentType, BaseAgent
from providers.context_service import ContextEnrichmentError, ContextEnrichmentService, get_context_service
from providers.database import Database
from tests.fakes.redis_server import RedisServer

logger = logging.getLogger(__name__)


@pytest.fixture
async def documented(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The environment of somebody who has set nothing but a database."""
    await plant(database, customers=123, seed=7, now=utc_now())
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    get_context_service.cache_clear()


@pytest.fixture
async def service(documented: None) -> AsyncIterator[ContextEnrichmentService]:
    found = get_context_service()
    yield found
    await found.close()
    get_context_service.cache_clear()


class MyAgent(BaseAgent):
    """The documented example, line by line."""

    def __init__(self) -> None:
        config = AgentConfig(
            name="my_agent",
            type=AgentType.SPECIALIST,
            capabilities=[AgentCapability.CONTEXT_AWARE],  # Enable context
        )
        super().__init__(config)

    async def process(self, state: AgentState) -> AgentState:
        customer_id = state.get("customer_id")

        # Get enriched context
        context = await self.get_enriched_context(customer_id)
        assert context.customer_intelligence is not None

        # Inject into prompt
        system_prompt = "You are a helpful support agent."
        enriched_prompt = await self.inject_context_into_prompt(system_prompt, customer_id)

        # Use enriched prompt with LLM
        response = await self.call_llm(enriched_prompt, state["current_message"])

        state["agent_response"] = response
        return state


async def test_basic_usage(service: ContextEnrichmentService) -> None:
    service = get_context_service()
    context = await service.enrich_context("customer_123")
    prompt_context = context.to_prompt_context()
    assert prompt_context.startswith("<customer_context>\nCompany: Acme Corp\n")
    summary = await service.get_context_summary("customer_123")
    assert list(summary) == [
        "company_name",
        "plan",
        "health_score",
        "churn_risk",
        "churn_risk_level",
        "login_count_30d",
        "open_tickets",
        "days_to_renewal",
        "has_critical_issues",
        "has_opportunities",
        "cache_hit",
    ]
    assert summary["company_name"] == "Acme Corp"


async def test_an_agent_answers_with_what_is_known_of_its_customer(service: ContextEnrichmentService) -> None:
    state = await MyAgent().process({"customer_id": "customer_123", "current_message": "How many seats do we have?"})
    assert "Seats: 8/10" in state["agent_response"]


async def test_invalidation_and_force_refresh(service: ContextEnrichmentService) -> None:
    await service.enrich_context("customer_123")
    assert (await service.enrich_context("customer_123")).cache_hit
    await service.invalidate_cache("customer_123")
    assert not (await service.enrich_context("customer_123")).cache_hit
    context = await service.enrich_context("customer_123", force_refresh=True)
    assert not context.cache_hit


async def test_the_documented_ways_to_cache(documented: None) -> None:
    redis = RedisServer()
    try:
        with_redis = ContextEnrichmentService(enable_caching=True, redis_url=redis.url, cache_ttl=300)
        beside_it = ContextEnrichmentService(enable_caching=True, redis_url=redis.url, cache_ttl=300)
        in_memory = ContextEnrichmentService(enable_external_apis=False, redis_url=None, cache_ttl=300)
        without = ContextEnrichmentService(enable_caching=False)
        hits = {}
        for name, one in (("redis", with_redis), ("memory", in_memory), ("off", without)):
            await one.enrich_context("customer_123")
            hits[name] = (await one.enrich_context("customer_123")).cache_hit
        assert hits == {"redis": True, "memory": True, "off": False}
        assert (await beside_it.enrich_context("customer_123")).cache_hit, "the shared tier holds what another read"
        for one in (with_redis, beside_it, in_memory, without):
            await one.close()
    finally:
        redis.stop()


async def test_a_service_level_error_can_be_caught_as_documented(
    service: ContextEnrichmentService, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        context = await service.enrich_context("customer_123")
    except ContextEnrichmentError as e:
        logger.error(f"Enrichment failed: {e}")
        context = None
    assert context is not None

    async def broken(*_: object, **__: object) -> None:
        raise ContextEnrichmentError("the service itself failed")

    monkeypatch.setattr(service, "enrich_context", broken)
    prompt = await MyAgent().inject_context_into_prompt("You help.", "customer_123")
    assert prompt.startswith("You help.\n\n<customer_context>\n")
    assert "No customer data is available right now." in prompt


async def test_an_agent_must_be_declared_context_aware(service: ContextEnrichmentService) -> None:
    agent = MyAgent()
    agent.config = AgentConfig(name="plain")
    with pytest.raises(ConfigurationError, match="CONTEXT_AWARE"):
        await agent.get_enriched_context("customer_123")


async def test_a_generative_model_is_given_prompt_and_message(service: ContextEnrichmentService) -> None:
    class Recorder:
        asked: LanguageModelRequest

        async def generate(self, request: LanguageModelRequest, *, deadline: Deadline) -> LanguageModelReply:
            self.asked = request
            return LanguageModelReply(text="Gladly.", engine="recorder", model="recorder")

    model = Recorder()
    agent = MyAgent()
    agent._language_model = model  # type: ignore[assignment]  # only `generate` is used
    assert await agent.call_llm("You help.", "Can you?") == "Gladly."
    assert [(one.role.value, one.content) for one in model.asked.messages] == [
        ("system", "You help."),
        ("user", "Can you?"),
    ]
    assert model.asked.passages == ()
