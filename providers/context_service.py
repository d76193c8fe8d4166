"""The documented Python door to customer context, and the builder behind it and behind the Serve deployment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from models.enrichment.release import AuditedReader
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
from providers.systems.audit import SqlAuditLog
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

    What an agent type is shown unmasked is in the audit trail before it is returned, under the name in
    `models.telemetry.principal`; while it cannot be, the masked view is returned.
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
        self._salt = settings.hash_salt.get_secret_value()
        self._views = load_views(self._context, secret=self._salt, external=enable_external_apis)
        self._connected: _Connected | None = None

    async def enrich_context(
        self, customer_id: str, agent_type: str = "", *, force_refresh: bool = False
    ) -> EnrichedContext:
        """Everything known of the customer for this agent type; the most masked view without one.

        An unknown customer gives a context whose `minimal` is true. Raises `ContextEnrichmentError`,
        `UnknownAgentType`, `InvalidRequest`.
        """
        try:
            return await self._opened().reader.enrich(
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
        await self._opened().orchestrator.invalidate([customer_id])

    async def close(self) -> None:
        """Let go of everything. Raises `DatabaseUnavailable` when audit lines were lost."""
        connected, self._connected = self._connected, None
        if connected is not None:
            await connected.close()

    async def __aenter__(self) -> ContextEnrichmentService:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _opened(self) -> _Connected:
        # Connections belong to the event loop that opened them: under a second `asyncio.run` everything is built anew.
        loop = asyncio.get_running_loop()
        if self._connected is None or self._connected.loop is not loop:
            database = Database(self._database_url)
            orchestrator = build_orchestrator(
                database,
                settings=self._context,
                views=self._views,
                redis_url=self._redis_url,
                now=self._now,
            )
            audit = SqlAuditLog(database)
            reader = AuditedReader(orchestrator, self._views, audit, salt=self._salt)
            self._connected = _Connected(
                loop=loop, database=database, orchestrator=orchestrator, audit=audit, reader=reader
            )
            orchestrator.start()
        return self._connected


@dataclass(frozen=True, slots=True, kw_only=True)
class _Connected:
    """What a service holds in one event loop."""

    loop: asyncio.AbstractEventLoop
    database: Database
    orchestrator: ContextOrchestrator
    audit: SqlAuditLog
    reader: AuditedReader

    async def close(self) -> None:
        """Each before what it writes to. In another loop there is nobody left who would write audit lines."""
        here = self.loop is asyncio.get_running_loop()
        try:
            if here:
                await self.reader.close()
            await self.orchestrator.close()
            if here:
                await self.audit.close()
        finally:
            await self.database.close()


@cache
def get_context_service() -> ContextEnrichmentService:
    """The service of this process, built from the settings on the first call."""
    return ContextEnrichmentService()
