"""The documented base class of Python agents that know their customer; it needs no running cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from models.embedding.engines import build_embedder
from models.enrichment.prompt import CLOSING, NOTHING_KNOWN, OPENING
from models.enrichment.types import EnrichedContext
from models.errors import ConfigurationError, ContextEnrichmentError, InvalidRequest, UnsupportedByModel
from models.llm.factory import build_chain
from models.llm.protocol import LanguageModel
from models.llm.types import ChatMessage, LanguageModelRequest, Role, SourcePassage
from models.resilience.deadline import Deadline
from models.safety.pii import PatternPIIDetector
from models.settings import Settings, load_settings
from providers.context_service import ContextEnrichmentService, get_context_service

#: What an agent is handed and hands back: `customer_id`, `current_message`, `agent_response`, and what else it likes.
AgentState = dict[str, Any]


class AgentType(StrEnum):
    """What kind of agent it is among others; who sees what of a customer is `AgentConfig.context_view`."""

    COORDINATOR = "coordinator"
    SPECIALIST = "specialist"
    UTILITY = "utility"


class AgentCapability(StrEnum):
    """What an agent may use."""

    CONTEXT_AWARE = "context_aware"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """Who the agent is.

    `context_view` is one of the agent types of `config/agent_types.yaml` and decides what it sees of a customer;
    without one that is the most masked view. `max_context_tokens` bounds the customer context in its prompts.
    """

    name: str
    type: AgentType = AgentType.SPECIALIST
    capabilities: Sequence[AgentCapability] = ()
    context_view: str = ""
    max_context_tokens: int | None = None


class BaseAgent(ABC):
    """Derive from it, implement `process`, and call what it offers.

    The context service is the process's own and the language model the configured chain, unless others are given.
    """

    def __init__(
        self,
        config: AgentConfig,
        *,
        context_service: ContextEnrichmentService | None = None,
        language_model: LanguageModel | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        self.config = config
        self._context_service = context_service
        self._language_model = language_model
        self._timeout_s = timeout_s

    @abstractmethod
    async def process(self, state: AgentState) -> AgentState:
        """Answer what the state asks, and return the state with the answer in it."""

    async def get_enriched_context(self, customer_id: str | None, *, force_refresh: bool = False) -> EnrichedContext:
        """What this agent may see of the customer.

        Raises `ConfigurationError` when the agent is not `CONTEXT_AWARE`, `InvalidRequest` when there is no customer,
        and what `enrich_context` raises.
        """
        if AgentCapability.CONTEXT_AWARE not in self.config.capabilities:
            raise ConfigurationError(f"agent {self.config.name!r} lacks AgentCapability.CONTEXT_AWARE")
        if customer_id is None:
            raise InvalidRequest("this conversation has no customer whose context could be read")
        service = self._context_service or get_context_service()
        return await service.enrich_context(customer_id, self.config.context_view, force_refresh=force_refresh)

    async def inject_context_into_prompt(self, prompt: str, customer_id: str | None) -> str:
        """The prompt, followed by the customer's context; the context says so when nothing is known.

        An outage of enrichment never stops the agent. Raises `ConfigurationError` as `get_enriched_context`.
        """
        block = f"{OPENING}\n{NOTHING_KNOWN}\n{CLOSING}"
        if customer_id is not None:
            try:
                context = await self.get_enriched_context(customer_id)
                block = context.to_prompt_context(max_tokens=self.config.max_context_tokens)
            except ContextEnrichmentError:
                pass  # the service has logged the outage; the block says that nothing is known
        return f"{prompt}\n\n{block}"

    async def call_llm(self, system_prompt: str, message: str) -> str:
        """The configured language model's answer.

        An engine that answers only from passages (the embedded default) is given the system prompt as its passage: it
        quotes what the prompt says. Raises what `LanguageModel.generate` raises, `ModelRefused` for no answer among it.
        """
        self._language_model = model = self._language_model or build_language_model(load_settings())
        deadline = Deadline.after(self._timeout_s)
        question = ChatMessage(role=Role.USER, content=message)
        instructions = ChatMessage(role=Role.SYSTEM, content=system_prompt)
        try:
            reply = await model.generate(LanguageModelRequest(messages=(instructions, question)), deadline=deadline)
        except UnsupportedByModel:
            request = LanguageModelRequest(messages=(question,), passages=(_as_passage(system_prompt),))
            reply = await model.generate(request, deadline=deadline)
        return reply.text


def build_language_model(settings: Settings, *, embedder: Callable[..., Any] = build_embedder) -> LanguageModel:
    """The configured chain of language models in this process."""
    return build_chain(settings, embedder(settings.embedding), pii=PatternPIIDetector())


def _as_passage(prompt: str) -> SourcePassage:
    text = prompt.replace(OPENING, "").replace(CLOSING, "")
    return SourcePassage(passage_id="prompt", document_id="prompt", title="System prompt", version="1", text=text)
