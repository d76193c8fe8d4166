from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from models.embedding.sentence_transformers import SentenceTransformerEmbedder
from models.safety.probe import ProbeModerator, ProbeWeights


@pytest.fixture(scope="session")
def minilm() -> Iterator[SentenceTransformerEmbedder]:
    """The real MiniLM, loaded once."""
    embedder = SentenceTransformerEmbedder(threads=1)
    asyncio.run(embedder.load())
    yield embedder
    asyncio.run(embedder.close())


@pytest.fixture
def moderator(minilm: SentenceTransformerEmbedder) -> ProbeModerator:
    """The shipped weights on the real MiniLM."""
    return ProbeModerator(minilm, ProbeWeights.load())
