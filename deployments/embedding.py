"""The embedder as a Serve deployment: one warm model, many callers merged into batches."""

from __future__ import annotations

from deployments.processes import configure_process
from models.embedding.engines import engines
from models.embedding.protocol import Embedder, Vectors
from models.resilience.deadline import Deadline
from models.settings import Settings


class EmbedderDeployment:
    """Holds the configured embedder; warm before the replica counts as healthy."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # Ray awaits the constructor
        configure_process(settings)
        chosen = settings.embedding
        embedder = engines.load(chosen.engine)(
            chosen.model, max_batch=chosen.max_batch, cache_entries=chosen.cache_entries
        )
        await embedder.load()
        self._embedder: Embedder = embedder

    async def embed(self, texts: list[str], deadline: Deadline | None = None) -> Vectors:
        return await self._embedder.embed(texts, deadline=deadline)

    async def probe(self) -> None:
        """Being able to answer at all is the check: the model is in this process."""
        return
