"""What the API does with the context of many customers: the caches over a handle, and the database, as one object."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from models.enrichment.events import Event, ProductActivity
from models.enrichment.selection import AgentViews
from models.enrichment.strategies import load_experiments
from models.enrichment.types import ContextRequest
from models.errors import CacheUnavailable, RapportError
from models.resilience.redis_client import connect
from models.settings import Settings, config_file
from models.telemetry import Metrics
from providers.database import Database
from providers.systems.activity import RecentActivity
from providers.systems.events import Accepted, SqlEvents

logger = logging.getLogger(__name__)

ACTIVITY_TIMEOUT_S = 0.5


class ContextCaches(Protocol):
    """The deployment that reads and caches contexts."""

    async def read_many(self, customer_ids: Sequence[str], request: ContextRequest) -> bytes: ...

    async def invalidate(self, customer_ids: Sequence[str], tags: Sequence[str]) -> None: ...

    async def deliver_changes(self) -> None: ...


def build_context_desk(
    settings: Settings, database: Database, caches: ContextCaches, metrics: Metrics
) -> ClusterContextDesk:
    """The desk with the configured experiments, and with what Redis knows of recent activity where there is Redis."""
    views = AgentViews.load(config_file(settings.context.agent_types))
    experiments = load_experiments(views, config_file(settings.context.strategies))
    active = [experiment.name for experiment in experiments.active]
    events = SqlEvents(database, experiments=active, metrics=metrics)
    activity = None
    if url := settings.redis.url.get_secret_value():
        activity = RecentActivity(connect(url, timeout_s=settings.redis.timeout_s))
    return ClusterContextDesk(caches, events, activity)


class ClusterContextDesk:
    """`deployments.ingress.services.ContextDesk`: what cannot be told to the caches now is left to the outbox."""

    def __init__(self, caches: ContextCaches, events: SqlEvents, activity: RecentActivity | None = None) -> None:
        self._caches = caches
        self._events = events
        self._activity = activity

    async def read_many(self, customer_ids: Sequence[str], request: ContextRequest) -> bytes:
        return await self._caches.read_many(customer_ids, request)

    async def invalidate(self, customer_ids: Sequence[str], tags: Sequence[str]) -> None:
        try:
            await self._caches.invalidate(customer_ids, tags)
        except RapportError as error:
            await self._events.announce(customer_ids, tags)
            raise CacheUnavailable("not every cache could be told; the outbox will") from error

    async def accept(self, events: Sequence[Event]) -> Accepted:
        accepted = await self._events.accept(events)
        if accepted.new:
            await self._note_activity(accepted.new)
            await self._tell()
        return accepted

    async def _note_activity(self, events: Sequence[Event]) -> None:
        """Who is at work now; what cannot be noted is in the database all the same."""
        if self._activity is None:
            return
        try:
            async with asyncio.timeout(ACTIVITY_TIMEOUT_S):
                for event in events:
                    if isinstance(fact := event.fact, ProductActivity) and event.customer_id is not None:
                        await self._activity.record(
                            event.customer_id,
                            contact_id=fact.contact_id,
                            name=fact.name,
                            feature=fact.feature,
                            at=event.at,
                        )
        except (CacheUnavailable, TimeoutError):
            logger.info("recent activity is read from the database for a while")

    async def _tell(self) -> None:
        """Sooner than the relay would by itself, which makes good whatever fails here."""
        try:
            await self._caches.deliver_changes()
        except RapportError as error:
            logger.info("the caches hear of events a little later", extra={"code": error.code})
