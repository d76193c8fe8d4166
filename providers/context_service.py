"""The documented Python door to customer context, and the builder behind it and behind the Serve deployment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from types import TracebackType
from typing import Any

from models.clock import utc_now
from models.embedding.protocol import Embedder
from models.enrichment.assembly import unknown_customer
from models.enrichment.cache import LRUCache, TieredCache
from models.enrichment.orchestrator import ContextOrchestrator
from models.enrichment.policy import CachePolicy
from models.enrichment.relevance import RelevanceScorer
from models.enrichment.selection import AgentViews
from models.enrichment.types import ContextRequest, EnrichedContext
from models.errors import ContextEnrichmentError, UnknownCustomer
from models.resilience.deadline import Deadline
from models.settings import ContextSettings, Settings, config_file, load_settings
from models.telemetry import Metrics
from providers.base import ProviderResources
from providers.database import Database
from providers.external.company import VENDORS, configured
from providers.registry import build_providers
from providers.systems.context_history import SqlContextHistory

__all__ = [
    "ContextEnrichmentError",
    "ContextEnrichmentService",
    "build_orchestrator",
    "get_context_service",
    "load_views",
]

#: A slower cache is no help to a read that has a quarter of a second.
CACHE_TIMEOUT_S = 0.1


def load_views(settings: ContextSettings, *, secret: str = "", external: bool = True) -> AgentViews:
    """The agent types, without the vendors that have no key or are not to be asked.

    `secret` keys the hashes and tokens that stand for personal data. Raises `ConfigurationError` naming what is wrong.
    """
    views = AgentViews.load(config_file(settings.agent_types), secret=secret)
    absent = VENDORS.keys() - (configured(settings) if external else frozenset())
    return views.only(set(views.providers()) - absent)


def build_orchestrator(
    database: Database,
    *,
    settings: ContextSettings,
    views: AgentViews,
    redis_url: str = "",
    embedder: Embedder | None = None,
    metrics: Metrics | None = None,
    now: Callable[[], datetime] = utc_now,
) -> ContextOrchestrator:
    """The orchestrator over every provider that an agent type names; call `start()` in its event loop.

    Without `redis_url` the cache is this process's own, without `embedder` no section is ranked by a message. The
    caller keeps owning the database; `close()` lets go of Redis.
    """
    redis = None
    if redis_url:
        from models.resilience.redis_client import connect  # memory-only needs no Redis

        redis = connect(redis_url, timeout_s=CACHE_TIMEOUT_S)
    resources = ProviderResources(database=database, now=now, redis=redis, settings=settings)
    providers = build_providers(resources, views.providers())
    l2 = invalidations = None
    if redis is not None and settings.cache_enabled:
        from models.enrichment.redis_cache import RedisCache
        from models.enrichment.redis_invalidations import RedisInvalidations

        l2, invalidations = RedisCache(redis), RedisInvalidations(redis)
    tiers = TieredCache(LRUCache(entries=settings.l1_entries), l2, metrics=metrics)
    return ContextOrchestrator(
        providers,
        views=views,
        cache=tiers if settings.cache_enabled else None,
        invalidations=invalidations,
        history=SqlContextHistory(database),
        relevance=None if embedder is None else RelevanceScorer(embedder),
        policy=CachePolicy.of(settings),
        wall_clock=now,
        metrics=metrics,
    )


class ContextEnrichmentService:
    """Customer context for Python callers, as documented.

    What is not given comes from the settings. It opens its database and caches on first use, in the running event
    loop; `close()` it, or use it with `async with`. Without `enable_external_apis` no vendor is asked.
    """

    def __init__(
        self,
        enable_external_apis: bool = False,
        enable_caching: bool | None = None,
        redis_url: str | None = None,
        cache_ttl: float | None = None,
        *,
        database_url: str | None = None,
        timeout_s: float = 2.0,
        now: Callable[[], datetime] = utc_now,
        settings: Settings | None = None,
    ) -> None:
        settings = settings or load_settings()
        changes: dict[str, Any] = {}
        if enable_caching is not None:
            changes["cache_enabled"] = enable_caching
        if cache_ttl is not None:
            changes |= {"l2_ttl_s": cache_ttl, "l1_ttl_s": min(cache_ttl, settings.context.l1_ttl_s)}
        self._context = settings.context.model_copy(update=changes)
        self._redis_url = settings.redis.url.get_secret_value() if redis_url is None else redis_url
        self._database_url = database_url or settings.database_url
        self._timeout_s = timeout_s
        self._now = now
        self._views = load_views(
            self._context, secret=settings.hash_salt.get_secret_value(), external=enable_external_apis
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._database: Database | None = None
        self._orchestrator: ContextOrchestrator | None = None

    async def enrich_context(
        self, customer_id: str, agent_type: str = "", *, force_refresh: bool = False
    ) -> EnrichedContext:
        """Everything known of the customer for this agent type; the most masked view without one.

        An unknown customer gives a context whose `minimal` is true. Raises `ContextEnrichmentError`,
        `UnknownAgentType`, `InvalidRequest`.
        """
        try:
            return await self._opened().enrich(
                customer_id,
                ContextRequest(
                    deadline=Deadline.after(self._timeout_s), agent_type=agent_type, force_refresh=force_refresh
                ),
            )
        except UnknownCustomer:
            return unknown_customer(customer_id, self._views.view(agent_type), self._now())

    async def get_context_summary(self, customer_id: str, agent_type: str = "") -> Mapping[str, Any]:
        """The documented keys; see `models.enrichment.prompt` for the bands."""
        return (await self.enrich_context(customer_id, agent_type)).get_context_summary()

    async def invalidate_cache(self, customer_id: str) -> None:
        """Forget the customer on every replica. Raises `CacheUnavailable` when the others could not be told."""
        await self._opened().invalidate([customer_id])

    async def close(self) -> None:
        if self._orchestrator is not None:
            await self._orchestrator.close()
        if self._database is not None:
            await self._database.close()
        self._orchestrator = self._database = self._loop = None

    async def __aenter__(self) -> ContextEnrichmentService:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _opened(self) -> ContextOrchestrator:
        # Connections belong to the event loop that opened them: under a second `asyncio.run` everything is built anew.
        loop = asyncio.get_running_loop()
        if self._orchestrator is None or self._loop is not loop:
            self._loop = loop
            self._database = Database(self._database_url)
            self._orchestrator = build_orchestrator(
                self._database,
                settings=self._context,
                views=self._views,
                redis_url=self._redis_url,
                now=self._now,
            )
            self._orchestrator.start()
        return self._orchestrator


@cache
def get_context_service() -> ContextEnrichmentService:
    """The service of this process, built from the settings on the first call."""
    return ContextEnrichmentService()
