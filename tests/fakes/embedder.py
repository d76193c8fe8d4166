"""An embedder without a model: words hashed into a vector, so that texts sharing words are near."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np

from models.embedding.protocol import Vectors
from models.resilience.deadline import Deadline


class HashingEmbedder:
    """Deterministic; `calls` holds every batch it was given, and `error` is raised instead of answering."""

    model_id = "hashing"
    dimension = 256

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.error: Exception | None = None

    async def embed(self, texts: Sequence[str], *, deadline: Deadline | None = None) -> Vectors:
        if self.error is not None:
            raise self.error
        self.calls.append(tuple(texts))
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                vectors[row, zlib.crc32(word.encode()) % self.dimension] += 1.0
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.where(norms == 0, 1, norms), dtype=np.float32)
