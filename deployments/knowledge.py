"""Knowledge search as a Serve deployment."""

from __future__ import annotations

from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.handles import EmbedderHandle
from deployments.processes import configure_process
from models.embedding.protocol import Vectors
from models.knowledge.chroma import ChromaKnowledgeStore
from models.knowledge.retriever import Retriever
from models.knowledge.types import DocumentKind, Passage
from models.resilience.deadline import Deadline
from models.settings import Settings


class KnowledgeDeployment:
    """Holds the connection to the vector store and the retriever over it."""

    def __init__(self, settings: Settings, embedder: DeploymentHandle[Any]) -> None:
        configure_process(settings)
        chosen = settings.knowledge
        self._store = ChromaKnowledgeStore(chosen.host, chosen.port, chosen.collection, timeout_s=chosen.timeout_s)
        self._retriever = Retriever(self._store, EmbedderHandle(embedder, model_id=settings.embedding.model))

    async def search(
        self,
        query: str,
        limit: int,
        min_score: float,
        kinds: tuple[DocumentKind, ...],
        vector: Vectors | None,
        deadline: Deadline | None,
    ) -> list[Passage]:
        return await self._retriever.search(
            query, limit=limit, min_score=min_score, kinds=kinds, vector=vector, deadline=deadline
        )

    async def probe(self) -> None:
        await self._store.check_health()
