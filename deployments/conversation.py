"""The message router and the conversation agent as one Serve deployment: a turn needs both, and shares their vector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.handles import (
    ClassifierHandle,
    ContextHandle,
    EmbedderHandle,
    KnowledgeHandle,
    LanguageModelHandle,
    SafetyHandle,
)
from deployments.metrics import RayMetrics
from deployments.processes import configure_process, open_database
from models.classification.protocol import Classifier
from models.conversation.agent import AgentConfig, ConversationAgent
from models.conversation.handoff import HandoffDesk, PersonWish
from models.embedding.protocol import Embedder
from models.enrichment.protocol import ContextSource
from models.enrichment.selection import AgentViews
from models.knowledge.protocol import KnowledgeSearch
from models.llm.protocol import LanguageModel
from models.llm.types import ChatMessage
from models.resilience.deadline import Deadline
from models.resilience.redis_client import connect
from models.safety.pii import PatternPIIDetector
from models.safety.protocol import SafetyGate
from models.sessions.lock import MemorySessionLock
from models.sessions.manager import SessionManager
from models.sessions.memory import MemorySessionStore
from models.sessions.redis import RedisSessionStore
from models.sessions.redis_lock import RedisSessionLock
from models.sessions.types import Session, Turn
from models.settings import Settings
from models.telemetry import Metrics, request_id
from models.workflows.replies import SAFETY_REPLIES, Wordings
from models.workflows.router import MessageRouter, RouterConfig
from models.workflows.types import InboundMessage, WorkflowResult
from providers.database import Database
from providers.systems.compliance import SqlComplianceSystem
from providers.systems.customers import SqlCustomerDirectory
from providers.systems.orders import SqlOrderSystem
from providers.systems.tickets import SqlTicketSystem

CONFIG = Path(__file__).resolve().parent.parent / "config"


def build_conversation(
    settings: Settings,
    database: Database,
    *,
    embedder: Embedder,
    safety: SafetyGate,
    classifier: Classifier,
    knowledge: KnowledgeSearch,
    language_model: LanguageModel,
    context: ContextSource,
    metrics: Metrics,
) -> tuple[MessageRouter, ConversationAgent]:
    """Both objects over the given parts and the company's systems; the agent still has to `load()`."""
    replies = Wordings.read(CONFIG / "replies.yaml")
    pii = PatternPIIDetector()
    router = MessageRouter(
        embedder,
        classifier,
        safety,
        pii,
        knowledge,
        language_model,
        SqlOrderSystem(database),
        SqlCustomerDirectory(database),
        SqlComplianceSystem(database),
        RouterConfig(
            replies=replies,
            safety_replies=Wordings.read(CONFIG / "safety_replies.yaml", SAFETY_REPLIES),
            min_confidence=settings.classification.min_confidence,
            min_score=settings.knowledge.min_score,
            limit=settings.knowledge.limit,
            max_tokens=settings.language_model.max_tokens,
        ),
        metrics,
    )
    agent = ConversationAgent(
        build_sessions(settings),
        router,
        PersonWish(embedder, CONFIG / "exemplars" / "handoff.yaml"),
        HandoffDesk(SqlTicketSystem(database), pii),
        context,
        AgentConfig(replies=replies),
        metrics,
        agent_types=AgentViews.load().names(),
    )
    return router, agent


def build_sessions(settings: Settings) -> SessionManager:
    """Sessions in Redis, or in this process when there is none (one replica only; `/ready` says so)."""
    chosen = settings.sessions
    if url := settings.redis.url.get_secret_value():
        client = connect(url, timeout_s=settings.redis.timeout_s)
        store, lock = RedisSessionStore(client), RedisSessionLock(client)
        return SessionManager(store, lock, ttl_s=chosen.ttl_s, max_turns=chosen.max_turns)
    return SessionManager(MemorySessionStore(), MemorySessionLock(), ttl_s=chosen.ttl_s, max_turns=chosen.max_turns)


class ConversationDeployment:
    """Forwards to the router and the agent; the handles it holds are the graph's only inner hops."""

    async def __init__(  # type: ignore[misc]  # Ray awaits the constructor
        self,
        settings: Settings,
        embedder: DeploymentHandle[Any],
        safety: DeploymentHandle[Any],
        classifier: DeploymentHandle[Any],
        knowledge: DeploymentHandle[Any],
        language_model: DeploymentHandle[Any],
    ) -> None:
        configure_process(settings)
        self._database = open_database(settings)
        self._router, self._agent = build_conversation(
            settings,
            self._database,
            embedder=EmbedderHandle(embedder, model_id=settings.embedding.model),
            safety=SafetyHandle(safety),
            classifier=ClassifierHandle(classifier),
            knowledge=KnowledgeHandle(knowledge),
            language_model=LanguageModelHandle(language_model),
            context=ContextHandle(serve.get_deployment_handle("enrichment", app_name="context")),
            metrics=RayMetrics(),
        )
        await self._agent.load()

    async def route(self, message: InboundMessage, deadline: Deadline) -> WorkflowResult:
        request_id.set(message.request_id)
        return await self._router.route(message, deadline=deadline)

    async def open(
        self, customer_id: str | None, agent_type: str | None, principal: str, metadata: dict[str, str]
    ) -> Session:
        return await self._agent.open(
            customer_id=customer_id, agent_type=agent_type, principal=principal, metadata=metadata
        )

    async def get(self, session_id: str, principal: str) -> Session:
        return await self._agent.get(session_id, principal=principal)

    async def end(self, session_id: str, principal: str) -> Session:
        return await self._agent.end(session_id, principal=principal)

    async def of_customer(self, customer_id: str, principal: str) -> list[Session]:
        return await self._agent.of_customer(customer_id, principal=principal)

    async def turn(
        self,
        session_id: str,
        text: str,
        principal: str,
        client_message_id: str | None,
        rid: str,
        deadline: Deadline,
        turn_id: str | None,
    ) -> Turn:
        request_id.set(rid)
        return await self._agent.turn(
            session_id,
            text,
            principal=principal,
            client_message_id=client_message_id,
            request_id=rid,
            deadline=deadline,
            turn_id=turn_id,
        )

    async def complete(
        self,
        messages: tuple[ChatMessage, ...],
        customer_id: str | None,
        agent_type: str | None,
        principal: str,
        rid: str,
        deadline: Deadline,
    ) -> Turn:
        request_id.set(rid)
        return await self._agent.complete(
            messages,
            customer_id=customer_id,
            agent_type=agent_type,
            principal=principal,
            request_id=rid,
            deadline=deadline,
        )

    async def probe(self) -> None:
        """Being reachable is the check: the parts are asked one by one by `/ready`."""
        return
