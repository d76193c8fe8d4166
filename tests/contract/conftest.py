"""Real parts that contract suites share: MiniLM, a Chroma server and a Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from models.embedding.sentence_transformers import SentenceTransformerEmbedder
from tests.fakes.chroma_server import ChromaServer
from tests.fakes.redis_server import RedisServer


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


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A running Redis; suites keep apart by prefixes of their own."""
    server = RedisServer()
    yield server
    server.stop()


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_server.url, socket_timeout=5)
    yield client
    await client.aclose()
