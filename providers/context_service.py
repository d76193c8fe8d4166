"""The documented Python door to customer context, and the builder behind it and behind the Serve deployment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from types import TracebackType
from typing import Any

from models.clock import utc_now
from models.enrichment.assembly import unknown_customer
from models.enrichment.cache import LRUCache, TieredCache
from models.enrichment.orchestrator import ContextOrchestrator, cache_version
from models.enrichment.selection import AgentViews
from models.enrichment.types import EnrichedContext
from models.errors import UnknownCustomer
from models.resilience.deadline import Deadline
from models.settings import ContextSettings, Settings, load_settings
from models.telemetry import Metrics
from providers.base import ProviderResources
from providers.database import Database
from providers.registry import build_providers
from providers.systems.context_history import SqlContextHistory

#: A slower cache is no help to a read that has a quarter of a second.
CACHE_TIMEOUT_S = 0.1


def build_orchestrator(
    database: Database,
    *,
    settings: ContextSettings,
    redis_url: str = "",
    views: AgentViews | None = None,
    metrics: Metrics | None = None,
    now: Callable[[], datetime] = utc_now,
    internal_only: bool = False,
) -> ContextOrchestrator:
    """The orchestrator over every provider that an agent type names; call `start()` in its event loop.

    Without `redis_url` the cache is this process's own. `internal_only` leaves out providers of other sources than the
    database. The caller keeps owning the database; `close()` lets go of Redis.
    """
    views = views or AgentViews.load()
    resources = ProviderResources(database=database, now=now)
    providers = build_providers(resources, views.providers())
    if internal_only:
        providers = [provider for provider in providers if provider.spec.source == "database"]
        views = views.only({provider.spec.name for provider in providers})
    l2 = invalidations = None
    if redis_url and settings.cache_enabled:
        from models.enrichment.redis_cache import RedisCache, RedisInvalidations  # memory-only needs no Redis
        from models.resilience.redis_client import connect

        client = connect(redis_url, timeout_s=CACHE_TIMEOUT_S)
        l2, invalidations = RedisCache(client), RedisInvalidations(client, version=cache_version(views))
    tiers = TieredCache(
        LRUCache(entries=settings.l1_entries), l2, l1_ttl_s=settings.l1_ttl_s, wall_clock=now, metrics=metrics
    )
    return ContextOrchestrator(
        providers,
        views=views,
        cache=tiers if settings.cache_enabled else None,
        invalidations=invalidations,
        history=SqlContextHistory(database),
        wall_clock=now,
        metrics=metrics,
        ttl_s=settings.l2_ttl_s,
        remembered_customers=settings.l1_entries,
    )


class ContextEnrichmentService:
    """Customer context for Python callers, as documented.

    What is not given comes from the settings. It opens its database and caches on first use, in the running event
    loop; `close()` it, or use it with `async with`. Without `enable_external_apis` only our own database is asked.
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
        self._internal_only = not enable_external_apis
        self._timeout_s = timeout_s
        self._now = now
        self._views = AgentViews.load()
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
                agent_type=agent_type,
                deadline=Deadline.after(self._timeout_s),
                force_refresh=force_refresh,
            )
        except UnknownCustomer:
            return unknown_customer(customer_id, self._views.view(agent_type), self._now())

    async def get_context_summary(self, customer_id: str, agent_type: str = "") -> Mapping[str, Any]:
        """The documented keys; see `models.enrichment.prompt` for the bands."""
        return (await self.enrich_context(customer_id, agent_type)).get_context_summary()

    async def invalidate_cache(self, customer_id: str) -> None:
        """Forget the customer on every replica. Raises `CacheUnavailable` when the others could not be told."""
        await self._opened().invalidate(customer_id)

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
                redis_url=self._redis_url,
                views=self._views,
                now=self._now,
                internal_only=self._internal_only,
            )
            self._orchestrator.start()
        return self._orchestrator


@cache
def get_context_service() -> ContextEnrichmentService:
    """The service of this process, built from the settings on the first call."""
    return ContextEnrichmentService()
