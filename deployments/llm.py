"""The language model as a Serve deployment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.handles import EmbedderHandle
from deployments.processes import configure_process
from models.llm.engines import build_language_model
from models.llm.types import Delta, LanguageModelReply, LanguageModelRequest
from models.resilience.deadline import Deadline
from models.settings import Settings


class LanguageModelDeployment:
    """Holds the configured engine."""

    def __init__(self, settings: Settings, embedder: DeploymentHandle[Any]) -> None:
        configure_process(settings)
        self._model = build_language_model(
            settings.language_model, EmbedderHandle(embedder, model_id=settings.embedding.model)
        )

    async def generate(self, request: LanguageModelRequest, deadline: Deadline) -> LanguageModelReply:
        return await self._model.generate(request, deadline=deadline)

    async def stream(self, request: LanguageModelRequest, deadline: Deadline) -> AsyncIterator[Delta]:
        async for piece in self._model.stream(request, deadline=deadline):
            yield piece

    async def probe(self) -> None:
        await self._model.check_health()
