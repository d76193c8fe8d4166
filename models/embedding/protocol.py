"""What the rest of Rapport relies on when it needs vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.resilience.deadline import Deadline

#: float32, shape (texts, dimension), every row of unit length: a dot product is a cosine.
Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """Turns texts into unit vectors of one space."""

    @property
    def model_id(self) -> str:
        """Public id of the vector space, such as `all-minilm-l6-v2`."""
        ...

    async def embed(self, texts: Sequence[str], *, deadline: Deadline | None = None) -> Vectors:
        """Vectors in the order of `texts`; text beyond the model's window is cut. Raises `ModelUnavailable`."""
        ...


class StrictEmbedder(Embedder, Protocol):
    """An embedder that can refuse text it would have to cut, and says how many tokens it read."""

    async def embed_strict(
        self, texts: Sequence[str], *, deadline: Deadline | None = None
    ) -> tuple[Vectors, list[int]]:
        """Vectors and tokens in the order of `texts`.

        Raises `ContextLengthExceeded` pointing at every text (`/input/3`) longer than the window, and
        `ModelUnavailable`.
        """
        ...
