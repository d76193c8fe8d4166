"""The message classifier as a Serve deployment."""

from __future__ import annotations

from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.handles import EmbedderHandle
from deployments.processes import configure_process
from models.classification.engines import build_classifier
from models.classification.types import Classification
from models.embedding.protocol import Vectors
from models.resilience.deadline import Deadline
from models.settings import Settings


class ClassifierDeployment:
    """Holds the configured classifier, its exemplars embedded before the replica counts as healthy."""

    async def __init__(self, settings: Settings, embedder: DeploymentHandle[Any]) -> None:  # type: ignore[misc]  # Ray awaits the constructor
        configure_process(settings)
        self._embedder = EmbedderHandle(embedder, model_id=settings.embedding.model)
        self._classifier = build_classifier(settings.classification, self._embedder)
        await self._classifier.load()

    async def classify(
        self, messages: list[str], vectors: Vectors | None = None, deadline: Deadline | None = None
    ) -> list[Classification]:
        return await self._classifier.classify(messages, vectors=vectors, deadline=deadline)

    async def probe(self) -> None:
        await self._embedder.check_health()
