"""Real parts that contract suites share: MiniLM and a Chroma server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from models.embedding.sentence_transformers import SentenceTransformerEmbedder
from tests.fakes.chroma_server import ChromaServer


@pytest.fixture(scope="session")
def minilm() -> Iterator[SentenceTransformerEmbedder]:
    """The shipped model, loaded once."""
    embedder = SentenceTransformerEmbedder(threads=1)
    asyncio.run(embedder.load())
    yield embedder
    asyncio.run(embedder.close())


@pytest.fixture(scope="session")
def chroma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChromaServer]:
    """A running Chroma server with empty data."""
    server = ChromaServer(tmp_path_factory.mktemp("chroma"))
    server.start()
    yield server
    server.stop()
