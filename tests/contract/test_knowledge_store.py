"""What every knowledge store promises, on a real Chroma server with real vectors."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest

from models.embedding.sentence_transformers import SentenceTransformerEmbedder
from models.errors import InvalidRequest, KnowledgeUnavailable
from models.knowledge.chroma import ChromaKnowledgeStore
from models.knowledge.ingest import ingest, ingest_document
from models.knowledge.retriever import Retriever
from models.knowledge.types import Document, DocumentKind
from tests.fakes.chroma_server import ChromaServer

TODAY = date(2026, 6, 15)
REFUNDS = Document(
    document_id="refunds",
    title="Refunds",
    body="## How long it takes\n\nRefunds reach your card within five working days.",
    owner="billing",
    version="3",
    approved=True,
    valid_from=date(2026, 1, 1),
    valid_until=date(2026, 6, 15),
)


@pytest.fixture
async def store(chroma: ChromaServer) -> AsyncIterator[ChromaKnowledgeStore]:
    opened = ChromaKnowledgeStore(chroma.host, chroma.port, f"t-{uuid.uuid4().hex}", timeout_s=20)
    yield opened
    await opened.close()


@pytest.fixture
def retriever(store: ChromaKnowledgeStore, minilm: SentenceTransformerEmbedder) -> Retriever:
    return Retriever(store, minilm, lambda: datetime(2026, 6, 15, 23, 59, tzinfo=UTC))


async def found(retriever: Retriever, query: str = "When do I get my refund?", **options: object) -> list[str]:
    return [p.chunk.text for p in await retriever.search(query, **options)]  # type: ignore[arg-type]  # test options


async def test_a_stored_document_is_found_with_its_source(
    store: ChromaKnowledgeStore, retriever: Retriever, minilm: SentenceTransformerEmbedder
) -> None:
    assert await ingest_document(REFUNDS, store, minilm) == 1
    (passage,) = await retriever.search("When do I get my refund?")
    assert passage.chunk.text in REFUNDS.body
    assert (passage.chunk.document_id, passage.title, passage.version) == ("refunds", "Refunds", "3")
    assert (passage.chunk.heading, passage.kind) == ("How long it takes", DocumentKind.HELP)
    asked, held = await minilm.embed(["When do I get my refund?", f"Refunds\nHow long it takes\n{passage.chunk.text}"])
    assert passage.score == pytest.approx(float(asked @ held), abs=1e-3)


@pytest.mark.parametrize(
    ("change", "citable"),
    [
        ({}, True),
        ({"valid_until": None}, True),
        ({"valid_from": TODAY}, True),
        ({"approved": False}, False),
        ({"valid_from": date(2026, 6, 16)}, False),
        ({"valid_until": date(2026, 6, 14)}, False),
    ],
)
async def test_only_approved_documents_inside_their_validity_are_ever_found(
    store: ChromaKnowledgeStore,
    retriever: Retriever,
    minilm: SentenceTransformerEmbedder,
    change: dict[str, object],
    citable: bool,
) -> None:
    document = replace(REFUNDS, **change)  # type: ignore[arg-type]  # fields of the table above
    await ingest_document(document, store, minilm)
    assert document.citable_on(TODAY) is citable
    assert bool(await found(retriever)) is citable
    assert await store.count() == 1


async def test_withdrawing_approval_takes_a_document_out_of_the_answers(
    store: ChromaKnowledgeStore, retriever: Retriever, minilm: SentenceTransformerEmbedder
) -> None:
    await ingest_document(REFUNDS, store, minilm)
    await ingest_document(replace(REFUNDS, approved=False), store, minilm)
    assert await found(retriever) == []


async def test_replacing_leaves_only_the_new_text(
    store: ChromaKnowledgeStore, retriever: Retriever, minilm: SentenceTransformerEmbedder
) -> None:
    long = "\n\n".join(f"## Part {n}\n\nRefund rule {n} is: " + "word " * 60 for n in range(5))
    await ingest_document(replace(REFUNDS, body=long), store, minilm)
    assert await store.count() == 5
    await ingest_document(REFUNDS, store, minilm)
    assert await found(retriever) == [REFUNDS.body]
    assert await store.count() == 1


async def test_a_search_during_a_replacement_always_finds_the_document(
    store: ChromaKnowledgeStore, retriever: Retriever, minilm: SentenceTransformerEmbedder
) -> None:
    await ingest_document(REFUNDS, store, minilm)

    async def rewrite() -> None:
        for version in range(8):
            await ingest_document(replace(REFUNDS, version=f"v{version}"), store, minilm)

    writing = asyncio.create_task(rewrite())
    answers = []
    while not writing.done():
        answers.append(await found(retriever))
    await writing
    assert answers
    assert all(answers)


async def test_kinds_limit_and_minimum_score_narrow_the_search(
    store: ChromaKnowledgeStore, retriever: Retriever, minilm: SentenceTransformerEmbedder
) -> None:
    kinds = (DocumentKind.HELP, DocumentKind.OFFER, DocumentKind.SAFETY)
    for kind in kinds:
        await ingest_document(replace(REFUNDS, document_id=kind, kind=kind), store, minilm)
    assert len(await found(retriever, limit=2)) == 2
    only = await retriever.search("refund", kinds=[DocumentKind.OFFER, DocumentKind.SAFETY])
    assert {p.kind for p in only} == {DocumentKind.OFFER, DocumentKind.SAFETY}
    assert await found(retriever, "How tall is Mount Everest?", min_score=0.4) == []


async def test_best_comes_first_and_a_known_vector_gives_the_same(
    store: ChromaKnowledgeStore, retriever: Retriever, minilm: SentenceTransformerEmbedder
) -> None:
    other = replace(REFUNDS, document_id="calendar", title="Calendar", body="The calendar shows all appointments.")
    for document in (other, REFUNDS):
        await ingest_document(document, store, minilm)
    passages = await retriever.search("When do I get my refund?")
    assert [p.chunk.document_id for p in passages] == ["refunds", "calendar"]
    assert passages[0].score > passages[1].score
    vector = (await minilm.embed(["When do I get my refund?"]))[0]
    assert await retriever.search("ignored", vector=vector) == passages


async def test_a_removed_document_is_gone(store: ChromaKnowledgeStore, minilm: SentenceTransformerEmbedder) -> None:
    await ingest_document(REFUNDS, store, minilm)
    await store.remove("refunds")
    await store.remove("never-was")
    assert await store.count() == 0


async def test_another_connection_sees_what_was_written(
    chroma: ChromaServer, store: ChromaKnowledgeStore, minilm: SentenceTransformerEmbedder
) -> None:
    reader = ChromaKnowledgeStore(chroma.host, chroma.port, store._name, timeout_s=20)
    assert await reader.count() == 0
    await ingest_document(REFUNDS, store, minilm)
    vector = (await minilm.embed(["refund"]))[0]
    assert len(await reader.search(vector, limit=5, on=TODAY)) == 1


async def test_vectors_and_chunks_must_match(store: ChromaKnowledgeStore) -> None:
    with pytest.raises(ValueError, match="one vector per chunk"):
        await store.replace(REFUNDS, [], np.zeros((1, 384), dtype=np.float32))


def article(folder: Path, name: str, text: str, approved: bool = True) -> None:
    front = (
        f"id: {name}\ntitle: {name}\nowner: o\nversion: 1\napproved: {str(approved).lower()}\nvalid_from: 2026-01-01"
    )
    (folder / f"{name}.md").write_text(f"---\n{front}\n---\n\n{text}\n")


async def test_ingest_writes_only_what_changed(
    store: ChromaKnowledgeStore, minilm: SentenceTransformerEmbedder, tmp_path: Path
) -> None:
    for name in ("one", "two", "three"):
        article(tmp_path, name, f"Everything about {name}.")
    told: list[str] = []
    first = await ingest([tmp_path], store, minilm, told.append)
    assert (first.added, first.updated, first.unchanged) == (3, 0, 0)
    assert told
    before = minilm.encode_calls
    again = await ingest([tmp_path], store, minilm)
    assert (again.added, again.updated, again.unchanged, again.chunks) == (0, 0, 3, 0)
    assert minilm.encode_calls == before
    article(tmp_path, "two", "Everything about two.", approved=False)
    changed = await ingest([tmp_path], store, minilm)
    assert (changed.added, changed.updated, changed.unchanged) == (0, 1, 2)


async def test_a_malformed_file_stops_the_ingest_before_anything_is_written(
    store: ChromaKnowledgeStore, minilm: SentenceTransformerEmbedder, tmp_path: Path
) -> None:
    article(tmp_path, "good", "Fine.")
    (tmp_path / "bad.md").write_text("no front matter")
    with pytest.raises(InvalidRequest, match=r"bad\.md"):
        await ingest([tmp_path], store, minilm)
    assert await store.count() == 0


async def test_an_outage_is_typed_and_the_store_recovers(tmp_path: Path, minilm: SentenceTransformerEmbedder) -> None:
    server = ChromaServer(tmp_path)
    store = ChromaKnowledgeStore(server.host, server.port, "outage", timeout_s=20)
    vector = (await minilm.embed(["refund"]))[0]
    with pytest.raises(KnowledgeUnavailable):
        await store.check_health()
    await asyncio.to_thread(server.start)
    try:
        await ingest_document(REFUNDS, store, minilm)
        await asyncio.to_thread(server.stop)
        for _ in range(3):
            with pytest.raises(KnowledgeUnavailable):
                await store.search(vector, limit=5, on=TODAY)
        await asyncio.to_thread(server.start)
        assert len(await store.search(vector, limit=5, on=TODAY)) == 1
    finally:
        await store.close()
        await asyncio.to_thread(server.stop)


async def test_a_server_that_hangs_is_an_outage_too(
    chroma: ChromaServer, store: ChromaKnowledgeStore, minilm: SentenceTransformerEmbedder
) -> None:
    await ingest_document(REFUNDS, store, minilm)
    hurried = ChromaKnowledgeStore(chroma.host, chroma.port, store._name, timeout_s=0.3)
    chroma.pause()
    try:
        with pytest.raises(KnowledgeUnavailable):
            await hurried.count()
    finally:
        chroma.go_on()
    assert await store.count() == 1


async def test_a_collection_that_vanished_is_made_anew(
    chroma: ChromaServer, store: ChromaKnowledgeStore, minilm: SentenceTransformerEmbedder
) -> None:
    await ingest_document(REFUNDS, store, minilm)
    await store._client.delete_collection(store._name)
    assert await store.count() == 0
    await ingest_document(REFUNDS, store, minilm)
    assert await store.count() == 1
