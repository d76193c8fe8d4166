"""The knowledge store on a Chroma server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date
from typing import Any, TypeVar

import chromadb
from chromadb.api.async_fastapi import AsyncFastAPI
from chromadb.config import Settings as ChromaSettings
from chromadb.errors import NotFoundError

from models.embedding.protocol import Vectors
from models.errors import KnowledgeUnavailable
from models.knowledge.types import Chunk, Document, DocumentKind, Passage
from models.telemetry import Transition

R = TypeVar("R")

_log = logging.getLogger(__name__)

#: `valid_until` of a document without an end: Chroma cannot filter on an absent value.
_NEVER = date.max.toordinal()

#: Searches before chunks that vanish under the reader are simply left out.
_SEARCHES = 3


class ChromaKnowledgeStore:
    """Chunks and vectors in one collection of a Chroma server, compared by cosine.

    The server is shared by every process that searches or ingests; this object only holds a connection, opens it on
    first use, and survives the server's restart. Every failure, a slow answer included, is `KnowledgeUnavailable`.
    """

    def __init__(self, host: str, port: int, collection: str, timeout_s: float = 3.0) -> None:
        self._host = host
        self._port = port
        self._name = collection
        self._timeout_s = timeout_s
        self._client: Any = None
        self._collection: Any = None
        self._opening = asyncio.Lock()
        self._transition = Transition("knowledge store", _log)

    async def replace(
        self, document: Document, chunks: Sequence[Chunk], vectors: Vectors, *, fingerprint: str = ""
    ) -> None:
        """Make these the only chunks of the document; a search meanwhile finds the old or the new ones, never none.

        Two processes that replace the same document at once may leave both versions; the next replace mends it.
        """
        if len(chunks) != len(vectors):
            raise ValueError("one vector per chunk is needed")
        metadatas = [_metadata(document, chunk, fingerprint) for chunk in chunks]

        async def work(collection: Any) -> None:
            before = await collection.get(where={"document_id": document.document_id}, include=[])
            if chunks:
                await collection.upsert(
                    ids=[chunk.chunk_id for chunk in chunks],
                    embeddings=vectors,
                    documents=[chunk.text for chunk in chunks],
                    metadatas=metadatas,
                )
            if gone := sorted(set(before["ids"]) - {chunk.chunk_id for chunk in chunks}):
                await collection.delete(ids=gone)

        await self._call(work)

    async def remove(self, document_id: str) -> None:
        """Forget the document; unknown ids are fine."""

        async def work(collection: Any) -> None:
            await collection.delete(where={"document_id": document_id})

        await self._call(work)

    async def search(
        self, vector: Vectors, *, limit: int, on: date, kinds: Sequence[DocumentKind] = ()
    ) -> list[Passage]:
        """Best chunks for one vector (shape (dimension,)), citable on that day, best first."""
        day = on.toordinal()
        conditions: list[dict[str, Any]] = [
            {"approved": True},
            {"valid_from": {"$lte": day}},
            {"valid_until": {"$gte": day}},
        ]
        if kinds:
            conditions.append({"kind": {"$in": [str(kind) for kind in kinds]}})

        async def work(collection: Any) -> Any:
            return await collection.query(
                query_embeddings=[vector],
                n_results=limit,
                where={"$and": conditions},
                include=["documents", "metadatas", "distances"],
            )

        # Chroma looks up ids first and their contents afterwards: a chunk replaced in between comes back empty, and its
        # successor may be missing. Asking again finds the successor.
        for _ in range(_SEARCHES):
            found = await self._call(work)
            rows = zip(
                found["ids"][0], found["documents"][0], found["metadatas"][0], found["distances"][0], strict=True
            )
            whole = [row for row in rows if row[1] is not None and row[2] is not None]
            if len(whole) == len(found["ids"][0]):
                break
        passages = [_passage(*row) for row in whole]
        # Equal scores keep one order, so that an answer does not depend on the index's mood.
        return sorted(passages, key=lambda p: (-p.score, p.chunk.chunk_id))

    async def fingerprints(self) -> Mapping[str, str]:
        """Document id -> the fingerprint given to `replace`, for every document held."""

        async def work(collection: Any) -> Any:
            return await collection.get(where={"position": 0}, include=["metadatas"])

        found = await self._call(work)
        return {str(row["document_id"]): str(row["fingerprint"]) for row in found["metadatas"]}

    async def count(self) -> int:
        """Chunks held, citable or not."""

        async def work(collection: Any) -> int:
            return int(await collection.count())

        return await self._call(work)

    async def check_health(self) -> None:
        """Return if the server answers for our collection; raise `KnowledgeUnavailable` otherwise."""
        await self.count()

    async def close(self) -> None:
        """Close the connections of this event loop; a later call opens them again."""
        self._client = self._collection = None
        # Chroma keeps one HTTP client per event loop in a class variable and offers no public way to close it.
        http = AsyncFastAPI._clients.pop(asyncio.get_running_loop().__hash__(), None)
        if http is not None:
            await http.aclose()

    async def _call(self, work: Callable[[Any], Awaitable[R]]) -> R:
        try:
            async with asyncio.timeout(self._timeout_s):
                try:
                    result = await work(await self._open())
                except NotFoundError:
                    # The server lost or replaced our collection: ask for it by name again.
                    self._collection = None
                    result = await work(await self._open())
        except Exception as exc:
            # Chroma raises bare `Exception` for many answers, so nothing narrower would do.
            self._transition.down(exc)
            where = f"Chroma at {self._host}:{self._port}"
            raise KnowledgeUnavailable(f"{where} did not serve the request: {type(exc).__name__}") from exc
        self._transition.up()
        return result

    async def _open(self) -> Any:
        async with self._opening:
            if self._client is None:
                # Chroma never frees a client it has created, even one that failed to connect: knock first.
                _, writer = await asyncio.open_connection(self._host, self._port)
                writer.close()
                settings = ChromaSettings(anonymized_telemetry=False)
                self._client = await chromadb.AsyncHttpClient(host=self._host, port=self._port, settings=settings)
            if self._collection is None:
                self._collection = await self._client.get_or_create_collection(
                    name=self._name,
                    configuration={"hnsw": {"space": "cosine"}},
                    embedding_function=None,
                )
            return self._collection


def _metadata(document: Document, chunk: Chunk, fingerprint: str) -> dict[str, str | int | bool]:
    return {
        "document_id": document.document_id,
        "position": chunk.position,
        "heading": chunk.heading,
        "title": document.title,
        "version": document.version,
        "kind": str(document.kind),
        "approved": document.approved,
        "valid_from": document.valid_from.toordinal(),
        "valid_until": _NEVER if document.valid_until is None else document.valid_until.toordinal(),
        "fingerprint": fingerprint,
    }


def _passage(chunk_id: str, text: str, metadata: Mapping[str, Any], distance: float) -> Passage:
    chunk = Chunk(
        chunk_id=chunk_id,
        document_id=str(metadata["document_id"]),
        position=int(metadata["position"]),
        heading=str(metadata["heading"]),
        text=text,
    )
    return Passage(
        chunk=chunk,
        title=str(metadata["title"]),
        version=str(metadata["version"]),
        kind=DocumentKind(metadata["kind"]),
        score=round(1.0 - float(distance), 6),
    )
