"""The safety gate as a Serve deployment."""

from __future__ import annotations

from typing import Any

from models.safety.factory import build_gate
from ray.serve.handle import DeploymentHandle

from deployments.handles import EmbedderHandle
from deployments.processes import configure_process
from models.embedding.protocol import Vectors
from models.resilience.deadline import Deadline
from models.safety.types import Purpose, Verdict
from models.settings import Settings


class SafetyDeployment:
    """Holds the moderation probe and the policy over it."""

    def __init__(self, settings: Settings, embedder: DeploymentHandle[Any]) -> None:
        configure_process(settings)
        self._embedder = EmbedderHandle(embedder, model_id=settings.embedding.model)
        self._gate = build_gate(settings.safety, self._embedder)

    async def check(
        self, texts: list[str], purpose: Purpose, vectors: Vectors | None = None, deadline: Deadline | None = None
    ) -> list[Verdict]:
        return await self._gate.check(texts, purpose=purpose, vectors=vectors, deadline=deadline)

    async def probe(self) -> None:
        await self._embedder.check_health()
