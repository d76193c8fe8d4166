"""What every embedder promises, on the real models."""

from __future__ import annotations

import asyncio
import socket

import numpy as np
import pytest

from models.embedding.engines import engines
from models.embedding.sentence_transformers import SentenceTransformerEmbedder
from models.errors import DeadlineExceeded, ModelUnavailable
from models.resilience.deadline import Deadline


@pytest.fixture(params=["minilm"])
def embedder(request: pytest.FixtureRequest) -> SentenceTransformerEmbedder:
    found: SentenceTransformerEmbedder = request.getfixturevalue(request.param)
    return found


async def test_vectors_are_float32_of_unit_length_in_the_order_asked(embedder: SentenceTransformerEmbedder) -> None:
    texts = ["a refund", "a parcel", "a refund"]
    vectors = await embedder.embed(texts)
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, embedder.dimension)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    np.testing.assert_array_equal(vectors[0], vectors[2])
    alone = await embedder.embed([texts[1]])
    np.testing.assert_allclose(alone[0], vectors[1], atol=1e-5)


async def test_nearness_is_meaning(embedder: SentenceTransformerEmbedder) -> None:
    asked, near, far = await embedder.embed(
        ["How do I get my money back?", "Refunds are paid within five days.", "The calendar shows appointments."]
    )
    assert asked @ near > asked @ far + 0.1


@pytest.mark.parametrize("text", ["", " ", "\ud800 lone surrogate", "\x00", "word " * 5000, "🙂" * 300])
async def test_odd_text_is_embedded_like_any_other(embedder: SentenceTransformerEmbedder, text: str) -> None:
    vectors = await embedder.embed([text])
    assert np.linalg.norm(vectors[0]) == pytest.approx(1.0, abs=1e-5)


async def test_nothing_asked_is_nothing_answered(embedder: SentenceTransformerEmbedder) -> None:
    assert (await embedder.embed([])).shape == (0, embedder.dimension)


async def test_callers_cannot_change_each_other_s_vectors(embedder: SentenceTransformerEmbedder) -> None:
    first = await embedder.embed(["shared text"])
    kept = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(await embedder.embed(["shared text"]), kept)


async def test_a_spent_deadline_ends_the_call(embedder: SentenceTransformerEmbedder) -> None:
    with pytest.raises(DeadlineExceeded):
        await embedder.embed(["never seen before: spent"], deadline=Deadline.after(0))


async def test_concurrent_calls_are_merged(embedder: SentenceTransformerEmbedder) -> None:
    before = embedder.encode_calls
    results = await asyncio.gather(*(embedder.embed([f"merged question {n}"]) for n in range(40)))
    assert len(results) == 40
    assert embedder.encode_calls - before <= 3


async def test_what_is_remembered_is_not_encoded_again(embedder: SentenceTransformerEmbedder) -> None:
    await embedder.embed(["remember this", "and this"])
    before = embedder.encode_calls
    await embedder.embed(["and this", "remember this"])
    assert embedder.encode_calls == before


async def test_a_cancelled_caller_does_not_stop_the_others(embedder: SentenceTransformerEmbedder) -> None:
    calls = [asyncio.create_task(embedder.embed([f"cancelled or not {n}"])) for n in range(10)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
    assert all(isinstance(result, np.ndarray) for result in results[1::2])


async def test_the_event_loop_stays_free_while_the_model_works(embedder: SentenceTransformerEmbedder) -> None:
    work = asyncio.create_task(embedder.embed([f"{n} " + "long text " * 50 for n in range(16)]))
    turns = 0
    while not work.done():
        await asyncio.sleep(0.005)
        turns += 1
    await work
    assert turns > 10


async def test_the_cache_is_bounded(embedder: SentenceTransformerEmbedder) -> None:
    small = SentenceTransformerEmbedder(cache_entries=2, threads=1)
    await small.embed(["one", "two", "three"])
    before = small.encode_calls
    await small.embed(["one", "two", "three"])
    assert small.encode_calls == before + 1
    await small.close()


async def test_loading_opens_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("the embedder must not use the network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    fresh = engines.load("sentence_transformers")(threads=1)
    await fresh.load()
    assert (await fresh.embed(["offline"])).shape == (1, 384)
    await fresh.close()


async def test_an_unknown_model_is_named_and_nothing_is_downloaded() -> None:
    unknown = SentenceTransformerEmbedder("nobody/no-such-model")
    with pytest.raises(ModelUnavailable, match="nobody/no-such-model"):
        await unknown.load()
    with pytest.raises(ModelUnavailable, match="not loaded"):
        await unknown.check_health()
    await unknown.close()


async def test_a_closed_embedder_says_so() -> None:
    closed = SentenceTransformerEmbedder(threads=1)
    await closed.load()
    await closed.close()
    with pytest.raises(ModelUnavailable):
        await closed.embed(["too late"])
