"""The enrichment orchestrator as a Serve deployment with an HTTP entrance of its own.

The replica that receives a context read owns the L1 cache: a hit is answered here, without a hop, a network call or a
serialisation (docs/adr/0002).
"""

from __future__ import annotations

from deployments.exposure import check_entrance
from deployments.ingress.http.application import build_context_api
from deployments.ingress.middleware import Envelope
from deployments.ingress.services import ContextServices
from deployments.limits import build_rate_limiter
from deployments.metrics import RayMetrics
from deployments.processes import configure_process, open_database
from models.enrichment.release import AuditedReader
from models.enrichment.selection import AgentViews
from models.enrichment.types import EnrichedContext
from models.resilience.deadline import Deadline
from models.settings import Settings
from providers.context_service import build_orchestrator
from providers.systems.audit import SqlAuditLog


class EnrichmentDeployment:
    """Answers context reads over HTTP, and the conversation's over its handle."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # Ray awaits the constructor
        configure_process(settings)
        check_entrance(settings)
        self._settings = settings
        self._metrics = RayMetrics()
        self._database = open_database(settings)
        self._orchestrator = build_orchestrator(
            self._database,
            settings=settings.context,
            redis_url=settings.redis.url.get_secret_value(),
            metrics=self._metrics,
        )
        self._orchestrator.start()
        self._audit = SqlAuditLog(self._database, metrics=self._metrics)
        self._audit.start()

    def __serve_build_asgi_app__(self) -> Envelope:  # the name is Ray's: called once, after the constructor
        salt = self._settings.hash_salt.get_secret_value()
        reader = AuditedReader(self._orchestrator, AgentViews.load(), self._audit, salt=salt)
        services = ContextServices(
            reader=reader, rate_limiter=build_rate_limiter(self._settings), metrics=self._metrics
        )
        return build_context_api(services, self._settings, echo_request_id=False)

    async def enrich(
        self, customer_id: str, agent_type: str, deadline: Deadline, force_refresh: bool, required: tuple[str, ...]
    ) -> EnrichedContext:
        return await self._orchestrator.enrich(
            customer_id, agent_type=agent_type, deadline=deadline, force_refresh=force_refresh, required=required
        )

    async def __del__(self) -> None:
        await self._orchestrator.close()
        await self._audit.close()

    async def probe(self) -> None:
        """Being reachable is the check: providers are isolated, and the database is asked by `/ready` itself."""
        return
