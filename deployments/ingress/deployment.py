"""The API ingress as a Serve deployment: builds the routes' services inside the replica."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.campaigns import RayJobCampaignDesk
from deployments.context_desk import build_context_desk
from deployments.exposure import check_entrance
from deployments.handles import (
    ContextHandle,
    ConversationHandle,
    EmbedderHandle,
    LanguageModelHandle,
    ProbeHandle,
    SafetyHandle,
)
from deployments.housekeeping import Housekeeping
from deployments.ingress.http.application import build_api
from deployments.ingress.middleware import Envelope
from deployments.ingress.services import ApiServices, DependencyReport, DependencyState
from deployments.limits import build_rate_limiter
from deployments.metrics import RayMetrics
from deployments.metrics_scrape import build_metrics_page
from deployments.processes import configure_process, open_database
from deployments.readiness import Check, ReadinessChecks, language_model_check
from models.resilience.redis_client import connect
from models.settings import Settings
from providers.systems.campaigns import SqlCampaignRegistry
from providers.systems.idempotency import SqlIdempotencyStore

#: What a deployment's absence means to a customer, and whether the system can serve without it.
MEANING: Mapping[str, tuple[bool, str]] = {
    "conversation": (True, "messages cannot be routed or answered"),
    "classifier": (True, "messages cannot be classified"),
    "embedder": (True, "messages cannot be classified, moderated or searched for"),
    "safety": (True, "replies are blocked and customer messages go to people"),
    "language_model": (False, "questions get contact options instead of an answer"),
    "knowledge": (False, "questions get contact options instead of an answer"),
    "enrichment": (False, "replies are written without customer context"),
}


class IngressDeployment:
    """Speaks HTTP for the conversation graph."""

    async def __init__(  # type: ignore[misc]  # Ray awaits the constructor
        self, settings: Settings, conversation: DeploymentHandle[Any], others: Mapping[str, DeploymentHandle[Any]]
    ) -> None:
        configure_process(settings)
        check_entrance(settings)
        self._settings = settings
        self._conversation = ConversationHandle(conversation)
        self._context = ContextHandle(serve.get_deployment_handle("enrichment", app_name="context"))
        self._language_model = LanguageModelHandle(others["language_model"])
        self._embedder = EmbedderHandle(others["embedder"], model_id=settings.embedding.model)
        self._safety = SafetyHandle(others["safety"])
        self._probes = {
            "conversation": self._conversation,
            "embedder": self._embedder,
            "safety": self._safety,
            "classifier": ProbeHandle(others["classifier"]),
            "knowledge": ProbeHandle(others["knowledge"]),
            "enrichment": self._context,
        }
        self._database = open_database(settings)
        self._idempotency = SqlIdempotencyStore(self._database)
        self._housekeeping = Housekeeping({"recorded answers": self._idempotency.remove_expired})
        self._housekeeping.start()

    async def __del__(self) -> None:
        await self._housekeeping.close()
        await self._database.close()

    def __serve_build_asgi_app__(self) -> Envelope:  # the name is Ray's: called once, after the constructor
        services = ApiServices(
            router=self._conversation,
            conversation=self._conversation,
            language_model=self._language_model,
            embedder=self._embedder,
            safety=self._safety,
            context=build_context_desk(self._settings, self._database, self._context, RayMetrics()),
            campaigns=RayJobCampaignDesk(SqlCampaignRegistry(self._database)),
            idempotency=self._idempotency,
            readiness=self._readiness(),
            metrics_page=build_metrics_page(self._settings),
            rate_limiter=build_rate_limiter(self._settings),
            metrics=RayMetrics(),
        )
        return build_api(services, self._settings, echo_request_id=False)

    def _readiness(self) -> ReadinessChecks:
        checks = [
            Check(
                name="database",
                ask=self._database.check_health,
                critical=True,
                missing="nothing can be recorded; run the migrations or check DATABASE_URL",
            )
        ]
        notes = []
        if url := self._settings.redis.url.get_secret_value():
            redis = connect(url, timeout_s=self._settings.redis.timeout_s)

            async def ask_redis() -> None:
                await redis.ping()

            missing = "no conversations; caches and limits are per replica"
            checks.append(Check(name="redis", ask=ask_redis, critical=False, missing=missing))
        else:
            detail = "memory only: one replica of ingress, enrichment and conversation; nothing survives a restart"
            notes.append(DependencyReport(name="redis", state=DependencyState.DEGRADED, critical=False, detail=detail))
        checks.append(language_model_check(self._language_model.states, missing=MEANING["language_model"][1]))
        for name, probe in self._probes.items():
            critical, meaning = MEANING[name]
            checks.append(Check(name=name, ask=probe.check_health, critical=critical, missing=meaning))
        return ReadinessChecks(checks, notes=notes)
