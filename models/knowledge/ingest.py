"""Brings documents into the knowledge store."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from models.embedding.protocol import Embedder
from models.knowledge.chunking import CHUNKING_VERSION, chunk_document, embedding_text
from models.knowledge.documents import load_documents
from models.knowledge.protocol import KnowledgeStore
from models.knowledge.types import Document

#: Documents worked on at once: enough for full embedding batches while earlier ones are being stored.
_TOGETHER = 16

#: Called with a line of text after each group of documents.
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestReport:
    """What an ingest did: documents by what happened to them, and chunks written."""

    added: int
    updated: int
    unchanged: int
    chunks: int


async def ingest(
    paths: Iterable[Path], store: KnowledgeStore, embedder: Embedder, progress: Progress | None = None
) -> IngestReport:
    """Load, cut, embed and store the documents; those that are stored unchanged are skipped.

    Safe to run again and after an interruption. Documents that are in the store but not in `paths` stay. Raises
    `InvalidRequest` before anything is written if a file is malformed, `KnowledgeUnavailable`, `ModelUnavailable`.
    """
    documents = load_documents(paths)
    stored = await store.fingerprints()
    changed = [d for d in documents if stored.get(d.document_id) != document_fingerprint(d, embedder.model_id)]
    done = len(documents) - len(changed)
    chunks = 0
    for start in range(0, len(changed), _TOGETHER):
        group = changed[start : start + _TOGETHER]
        chunks += sum(await asyncio.gather(*(ingest_document(document, store, embedder) for document in group)))
        done += len(group)
        if progress is not None:
            progress(f"{done} of {len(documents)} documents, {chunks} chunks written")
    updated = sum(1 for document in changed if document.document_id in stored)
    return IngestReport(
        added=len(changed) - updated,
        updated=updated,
        unchanged=len(documents) - len(changed),
        chunks=chunks,
    )


async def ingest_document(document: Document, store: KnowledgeStore, embedder: Embedder) -> int:
    """Cut, embed and store one document in place of its earlier version; returns the number of chunks."""
    chunks = chunk_document(document)
    vectors = await embedder.embed([embedding_text(document, chunk) for chunk in chunks])
    await store.replace(document, chunks, vectors, fingerprint=document_fingerprint(document, embedder.model_id))
    return len(chunks)


def document_fingerprint(document: Document, model_id: str) -> str:
    """A digest of all that decides what is stored: every field of the document, the cutting, the vector space."""
    return hashlib.sha256(f"{CHUNKING_VERSION}\n{model_id}\n{document!r}".encode()).hexdigest()
