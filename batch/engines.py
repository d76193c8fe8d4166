"""What stages are built from: factories that travel to an actor and build their object there, once.

`engines_for` is where a campaign's models are chosen: the shared deployments of the running graph when there is one,
otherwise the same classes inside the actor. Heavy libraries are imported there too, by the factory that needs them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from batch.handles import shared_contexts, shared_embedder, shared_safety
from models.campaign.protocol import Audience
from models.clock import utc_now
from models.embedding.protocol import Embedder
from models.enrichment.protocol import ContextSource
from models.knowledge.protocol import KnowledgeSearch
from models.safety.protocol import SafetyGate
from models.settings import Settings
from providers.database import Database
from providers.systems.audience import SqlAudience

T = TypeVar("T")
Build = Callable[[], Awaitable[T]]
#: A factory of what has to be closed again.
Hold = Callable[[], AbstractAsyncContextManager[T]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """One factory per contract that a campaign relies on; `source` tells where the models run."""

    audience: Build[Audience]
    contexts: Hold[ContextSource]
    knowledge: Build[KnowledgeSearch]
    safety: Build[SafetyGate]
    source: str


def engines_for(settings: Settings, *, shared: bool) -> Engines:
    """Factories for these settings; `shared` takes contexts, embedder and safety gate from the running graph."""
    return Engines(
        audience=partial(_audience, settings),
        contexts=partial(_contexts, settings, shared),
        knowledge=partial(_knowledge, settings, shared),
        safety=partial(_safety, settings, shared),
        source="shared Serve deployments" if shared else "in the campaign's own processes",
    )


async def _audience(settings: Settings) -> Audience:
    return SqlAudience(Database(settings.database_url, pool_size=1, busy_timeout_s=settings.database.busy_timeout_s))


@asynccontextmanager
async def _contexts(settings: Settings, shared: bool) -> AsyncIterator[ContextSource]:
    """The shared caches, or the same providers without any: a campaign reads every customer once."""
    if shared:
        yield shared_contexts()
        return
    from models.campaign.hold_back import PROVIDERS
    from providers.context_service import build_orchestrator, load_views

    uncached = settings.context.model_copy(update={"cache_enabled": False})
    views = load_views(uncached, external=False).only(PROVIDERS)
    database = Database(settings.database_url, pool_size=1, busy_timeout_s=settings.database.busy_timeout_s)
    orchestrator = build_orchestrator(database, settings=uncached, views=views)
    try:
        yield orchestrator
    finally:
        await orchestrator.close()
        await database.close()


async def _embedder(settings: Settings, shared: bool) -> Embedder:
    if shared:
        return shared_embedder(settings.embedding.model)
    from models.embedding.engines import build_embedder

    embedder = build_embedder(settings.embedding.model_copy(update={"cache_entries": 0}), threads=1)
    await embedder.load()
    return embedder


async def _knowledge(settings: Settings, shared: bool) -> KnowledgeSearch:
    from models.knowledge.chroma import ChromaKnowledgeStore
    from models.knowledge.retriever import Retriever

    chosen = settings.knowledge
    store = ChromaKnowledgeStore(chosen.host, chosen.port, chosen.collection, timeout_s=chosen.timeout_s)
    return Retriever(store, await _embedder(settings, shared), utc_now)


async def _safety(settings: Settings, shared: bool) -> SafetyGate:
    if shared:
        return shared_safety()
    from models.safety.factory import build_gate

    return build_gate(settings.safety, await _embedder(settings, shared))
