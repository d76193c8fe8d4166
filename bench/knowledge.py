"""How well questions find articles and sentences: `python -m bench.knowledge`.

Searches the demo articles exactly, without a server: the numbers judge chunking, embedding and sentence scoring alone.
The threshold it prints for the calibration part is where `models.llm.selection.Selection.min_score` comes from.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from models.embedding.protocol import Embedder, Vectors
from models.embedding.sentence_transformers import SentenceTransformerEmbedder
from models.knowledge.chunking import chunk_document, embedding_text
from models.knowledge.documents import load_documents
from models.knowledge.types import Chunk, Document, Passage
from models.llm.selection import Selection, find_candidates, rank

ROOT = Path(__file__).parents[1]
LIMIT = 5


async def nearest(
    question: str, chunks: list[tuple[Document, Chunk]], vectors: Vectors, embedder: Embedder
) -> list[Passage]:
    scores = vectors @ (await embedder.embed([question]))[0]
    best = np.argsort(-scores, kind="stable")[:LIMIT]
    return [
        Passage(
            chunk=chunks[i][1],
            title=chunks[i][0].title,
            version=chunks[i][0].version,
            kind=chunks[i][0].kind,
            score=float(scores[i]),
        )
        for i in best
    ]


async def best_score(question: str, passages: list[Passage], embedder: Embedder) -> float:
    candidates = find_candidates([passage.as_source() for passage in passages])
    asked = (await embedder.embed([question]))[0]
    sentences = await embedder.embed([candidate.sentence.plain for candidate in candidates])
    topics = await embedder.embed([candidate.topic for candidate in candidates])
    return max(one.score for one in rank(question, candidates, asked, sentences, topics, Selection()))


def youden(answerable: NDArray[np.float64], unanswerable: NDArray[np.float64]) -> float:
    """The score with the largest difference between the shares answered."""
    options = np.unique(np.concatenate([answerable, unanswerable]))
    return float(max(options, key=lambda t: (answerable >= t).mean() - (unanswerable >= t).mean()))


async def main() -> None:
    embedder = SentenceTransformerEmbedder()
    today = datetime.now(UTC).date()
    documents = [d for d in load_documents([ROOT / "demo" / "articles"]) if d.citable_on(today)]
    chunks = [(document, chunk) for document in documents for chunk in chunk_document(document)]
    vectors = await embedder.embed([embedding_text(*one) for one in chunks])
    questions = yaml.safe_load((ROOT / "bench" / "knowledge_questions.yaml").read_text(encoding="utf-8"))
    print(f"{len(documents)} documents, {len(chunks)} chunks")
    for part, lists in questions.items():
        ranks, good, bad = [], [], []
        for item in lists["answerable"]:
            passages = await nearest(item["question"], chunks, vectors, embedder)
            ids = [passage.chunk.document_id for passage in passages]
            ranks.append(ids.index(item["document"]) if item["document"] in ids else LIMIT)
            good.append(await best_score(item["question"], passages, embedder))
        for question in lists["unanswerable"]:
            passages = await nearest(question, chunks, vectors, embedder)
            bad.append(await best_score(question, passages, embedder))
        places, answered, tempted = np.array(ranks), np.array(good), np.array(bad)
        threshold = Selection().min_score
        print(
            f"{part}: right article first {np.mean(places < 1):.0%}, in three {np.mean(places < 3):.0%}, in five "
            f"{np.mean(places < 5):.0%}; at {threshold}: answers {np.mean(answered >= threshold):.0%} of answerable, "
            f"refuses {np.mean(tempted < threshold):.0%} of others; best threshold {youden(answered, tempted):.3f}"
        )
    await embedder.close()


if __name__ == "__main__":
    asyncio.run(main())
