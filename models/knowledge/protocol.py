"""What the rest of Rapport relies on for knowledge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Protocol

from models.embedding.protocol import Vectors
from models.knowledge.types import Chunk, Document, DocumentKind, Passage
from models.resilience.deadline import Deadline


class KnowledgeStore(Protocol):
    """Holds chunks with their vectors; knows no embedding model."""

    async def replace(
        self, document: Document, chunks: Sequence[Chunk], vectors: Vectors, *, fingerprint: str = ""
    ) -> None:
        """Make these the only chunks of the document. Raises `KnowledgeUnavailable`.

        `fingerprint` says what they were made from; `fingerprints` gives it back.
        """
        ...

    async def fingerprints(self) -> Mapping[str, str]:
        """Document id -> the fingerprint it was stored with, so that unchanged documents need no work."""
        ...

    async def remove(self, document_id: str) -> None: ...

    async def search(
        self, vector: Vectors, *, limit: int, on: date, kinds: Sequence[DocumentKind] = ()
    ) -> list[Passage]:
        """Best chunks for one vector (shape (dimension,)), citable on that day, best first."""
        ...

    async def count(self) -> int: ...

    async def check_health(self) -> None: ...


class KnowledgeSearch(Protocol):
    """Finds passages that may be cited today."""

    async def search(
        self,
        query: str,
        *,
        limit: int = 5,
        min_score: float = 0.0,
        kinds: Sequence[DocumentKind] = (),
        vector: Vectors | None = None,
        deadline: Deadline | None = None,
    ) -> list[Passage]:
        """Best first, at least `min_score`. `vector` (shape (dimension,)) is the query's embedding if already known."""
        ...
