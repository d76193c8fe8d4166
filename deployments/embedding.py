"""The embedder as a Serve deployment: one warm model, many callers merged into batches."""

from __future__ import annotations

from deployments.metrics import RayMetrics
from deployments.processes import configure_process
from models.embedding.engines import build_embedder
from models.embedding.protocol import StrictEmbedder, Vectors
from models.resilience.deadline import Deadline
from models.settings import Settings


class EmbedderDeployment:
    """Holds the configured embedder; warm before the replica counts as healthy.

    Its model computes with as many threads as the deployment reserves processors (`num_cpus`), and at least one.
    """

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # Ray awaits the constructor
        configure_process(settings)
        embedder = build_embedder(settings.embedding, metrics=RayMetrics())
        await embedder.load()
        self._embedder: StrictEmbedder = embedder

    async def embed(self, texts: list[str], deadline: Deadline | None = None) -> Vectors:
        return await self._embedder.embed(texts, deadline=deadline)

    async def embed_strict(self, texts: list[str], deadline: Deadline | None = None) -> tuple[Vectors, list[int]]:
        return await self._embedder.embed_strict(texts, deadline=deadline)

    async def probe(self) -> None:
        """Being able to answer at all is the check: the model is in this process."""
        return
