"""Finds what may be cited today for a question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import datetime

from models.clock import utc_now
from models.embedding.protocol import Embedder, Vectors
from models.knowledge.protocol import KnowledgeStore
from models.knowledge.types import DocumentKind, Passage
from models.resilience.deadline import Deadline


class Retriever:
    """A `KnowledgeSearch` over one store and the embedder its chunks were embedded with.

    `clock` returns an aware time; its UTC day decides which documents are valid.
    """

    def __init__(self, store: KnowledgeStore, embedder: Embedder, clock: Callable[[], datetime] = utc_now) -> None:
        self._store = store
        self._embedder = embedder
        self._clock = clock

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
        """Best first, at least `min_score`. `vector` (shape (dimension,)) is the query's embedding if already known.

        Raises `KnowledgeUnavailable`, `ModelUnavailable`, `DeadlineExceeded`.
        """
        async with AsyncExitStack() as stack:
            if deadline is not None:
                await stack.enter_async_context(deadline.enforce("knowledge search"))
            if vector is None:
                vector = (await self._embedder.embed([query], deadline=deadline))[0]
            today = self._clock().date()
            passages = await self._store.search(vector, limit=limit, on=today, kinds=kinds)
        return [passage for passage in passages if passage.score >= min_score]
