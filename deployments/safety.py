"""The safety gate as a Serve deployment."""

from __future__ import annotations

from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.handles import EmbedderHandle
from deployments.metrics import RayMetrics
from deployments.processes import configure_process, open_database
from models.clock import utc_now
from models.embedding.protocol import Vectors
from models.resilience.deadline import Deadline
from models.safety.audit import verdict_record
from models.safety.factory import build_gate
from models.safety.types import Purpose, Verdict
from models.settings import Settings
from providers.systems.audit import SqlAuditLog


class SafetyDeployment:
    """Holds the moderation probe and the policy over it."""

    def __init__(self, settings: Settings, embedder: DeploymentHandle[Any]) -> None:
        configure_process(settings)
        self._embedder = EmbedderHandle(embedder, model_id=settings.embedding.model)
        metrics = RayMetrics()
        self._gate = build_gate(settings.safety, self._embedder, metrics)
        self._audit = SqlAuditLog(open_database(settings), metrics=metrics)
        self._audit.start()

    async def check(
        self, texts: list[str], purpose: Purpose, vectors: Vectors | None = None, deadline: Deadline | None = None
    ) -> list[Verdict]:
        verdicts = await self._gate.check(texts, purpose=purpose, vectors=vectors, deadline=deadline)
        for verdict in verdicts:
            if not verdict.allowed:
                self._audit.record(
                    verdict_record(verdict, purpose=purpose, subject=purpose.value, actor="safety", at=utc_now())
                )
        return verdicts

    async def __del__(self) -> None:
        await self._audit.close()

    async def probe(self) -> None:
        await self._embedder.check_health()
