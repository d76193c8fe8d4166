"""The enrichment orchestrator as a Serve deployment with an HTTP entrance of its own.

The replica that receives a context read owns the L1 cache: a hit is answered here, without a hop, a network call or a
serialisation (docs/adr/0002). The main application reaches it over a handle, for many customers and for what changes.
"""

from __future__ import annotations

from collections.abc import Sequence

from ray import serve

from deployments.enrichment_parts import build_enrichment
from deployments.exposure import check_entrance
from deployments.handles import EmbedderHandle
from deployments.ingress.http.application import build_context_api
from deployments.ingress.middleware import Envelope
from deployments.ingress.services import ContextServices
from deployments.limits import build_rate_limiter
from deployments.metrics import RayMetrics
from deployments.processes import configure_process, open_database
from models import telemetry
from models.enrichment.types import ContextRequest, EnrichedContext
from models.settings import Settings


class EnrichmentDeployment:
    """Answers context reads over HTTP, and those of the main application over its handle."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # Ray awaits the constructor
        configure_process(settings)
        check_entrance(settings)
        self._settings = settings
        self._metrics = RayMetrics()
        # Not looked for: that application may start after this one, and without it relevance does without messages.
        embedder = serve.get_deployment_handle("embedder", app_name="rapport", _check_exists=False)
        self._parts = build_enrichment(
            settings,
            open_database(settings),
            embedder=EmbedderHandle(embedder, model_id=settings.embedding.model),
            metrics=self._metrics,
        )
        self._parts.start()

    def __serve_build_asgi_app__(self) -> Envelope:  # the name is Ray's: called once, after the constructor
        services = ContextServices(
            reader=self._parts.reader,
            history=self._parts.history,
            rate_limiter=build_rate_limiter(self._settings),
            metrics=self._metrics,
        )
        return build_context_api(services, self._settings, echo_request_id=False)

    async def enrich(
        self, customer_id: str, request: ContextRequest, principal: str, request_id: str
    ) -> EnrichedContext:
        _on_behalf_of(principal, request_id)
        return await self._parts.reader.enrich(customer_id, request)

    async def enrich_many(
        self, customer_ids: Sequence[str], request: ContextRequest, principal: str, request_id: str
    ) -> dict[str, EnrichedContext]:
        _on_behalf_of(principal, request_id)
        return await self._parts.reader.enrich_many(customer_ids, request)

    async def read_many(
        self, customer_ids: Sequence[str], request: ContextRequest, principal: str, request_id: str
    ) -> bytes:
        _on_behalf_of(principal, request_id)
        return await self._parts.reader.read_many(customer_ids, request)

    async def invalidate(self, customer_ids: Sequence[str], tags: Sequence[str]) -> None:
        await self._parts.orchestrator.invalidate(customer_ids, tags)

    async def deliver_changes(self) -> None:
        await self._parts.relay.deliver()

    async def __del__(self) -> None:
        await self._parts.close()

    async def probe(self) -> None:
        """Being reachable is the check: providers are isolated, and the database is asked by `/ready` itself."""
        return


def _on_behalf_of(principal: str, request_id: str) -> None:
    """The audit trail and the log lines of this call name its caller."""
    telemetry.principal.set(principal)
    telemetry.request_id.set(request_id)
