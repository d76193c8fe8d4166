"""What every embedder promises, on the real models."""

from __future__ import annotations

import asyncio
import pickle
import socket
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from models.embedding.engines import build_embedder, engines
from models.embedding.precision import MIN_COSINE, PROBE_TEXTS, Precision
from models.embedding.protocol import Vectors
from models.embedding.sentence_transformers import SentenceTransformerEmbedder
from models.embedding.sentence_transformers_encoder import SentenceTransformerEncoder
from models.errors import ConfigurationError, ContextLengthExceeded, DeadlineExceeded, ModelUnavailable
from models.resilience.deadline import Deadline
from models.settings import EmbeddingSettings
from tests.fakes import sentence_models


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


MIXED = [
    *PROBE_TEXTS,
    *(f"message {n} " + "about the invoice of my clinic " * (n % 7) for n in range(40)),
    "",
    "word " * 400,
    " " * 20_000 + "after many spaces",
    "x" * 20_000,
]


def cosines(left: Vectors, right: Any) -> Vectors:
    found: Vectors = (left * right).sum(axis=1)
    return found


async def test_vectors_equal_those_of_the_library(embedder: SentenceTransformerEmbedder) -> None:
    exact = embedder.encoder.model.encode(MIXED, normalize_embeddings=True, show_progress_bar=False)
    assert cosines(await embedder.embed(MIXED), exact).min() > 0.99999


@pytest.mark.parametrize("kind", sentence_models.KINDS)
async def test_any_sentence_transformers_model_is_loaded_from_its_folder(kind: str, tmp_path: Path) -> None:
    folder = sentence_models.make(kind, tmp_path)
    embedder = SentenceTransformerEmbedder(str(folder), device="cpu", threads=1)
    texts = [text for text in MIXED if text]
    vectors, tokens = await embedder.embed_strict([text for text in texts if len(text) < 100])
    assert all(tokens)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    exact = SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(
        texts, normalize_embeddings=True, show_progress_bar=False
    )
    assert cosines(await embedder.embed(texts), exact).min() > 0.99999
    assert embedder.window == (None if kind == "static" else sentence_models.WINDOW)
    assert embedder.dimension == exact.shape[1]
    await embedder.close()


async def test_tokens_are_counted_as_the_model_reads_them(embedder: SentenceTransformerEmbedder) -> None:
    texts = ["hello", "hello there", "", "word " * 254]
    vectors, tokens = await embedder.embed_strict(texts)
    assert tokens == [3, 4, 2, 256]
    assert await embedder.count_tokens([*texts, "word " * 5000]) == [*tokens, 5002]
    np.testing.assert_array_equal(vectors, await embedder.embed(texts))


async def test_strict_refuses_what_would_be_cut_and_points_at_it(embedder: SentenceTransformerEmbedder) -> None:
    assert embedder.window == 256
    texts = ["fits", "word " * 255, "fits too", "word " * 5000]
    for _ in range(2):  # the second time from the cache
        with pytest.raises(ContextLengthExceeded, match=r"/input/1 .* 256 tokens") as caught:
            await embedder.embed_strict(texts)
        sent: ContextLengthExceeded = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  # as a handle does
        assert [field.pointer for field in sent.fields] == ["/input/1", "/input/3"]
    assert (await embedder.embed(texts)).shape == (4, 384)


async def test_tokens_are_known_from_the_one_tokenisation(
    embedder: SentenceTransformerEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = embedder.encoder.model
    tokenised: list[int] = []
    preprocess = model.preprocess

    def counted(texts: Sequence[str], *args: Any, **kwargs: Any) -> Any:
        tokenised.append(len(texts))
        return preprocess(list(texts), *args, **kwargs)

    monkeypatch.setattr(model, "preprocess", counted)
    await embedder.embed_strict([f"tokenised but once {n}" for n in range(20)])
    assert tokenised == [20]


async def test_two_models_never_share_a_remembered_vector(tmp_path: Path) -> None:
    first = SentenceTransformerEmbedder(str(sentence_models.make("static", tmp_path / "a")), threads=1)
    second = SentenceTransformerEmbedder(str(sentence_models.make("cls_and_dense", tmp_path / "b")), threads=1)
    second._cache = first._cache  # as a cache outside the process would be
    assert (await first.embed(["same text"])).shape == (1, 32)
    assert (await second.embed(["same text"])).shape == (1, 24)
    await first.close()
    await second.close()


async def test_one_long_call_leaves_room_for_a_short_one() -> None:
    embedder = SentenceTransformerEmbedder(threads=1)
    await embedder.load()
    finished: list[str] = []

    async def ask(name: str, texts: list[str]) -> None:
        await embedder.embed(texts)
        finished.append(name)

    await asyncio.gather(ask("long", [f"{n} " + "word " * 250 for n in range(12)]), ask("short", ["a question"]))
    assert finished == ["short", "long"]
    await embedder.close()


class Counts:
    """Metrics kept in memory."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self.observed: dict[str, list[float]] = {}

    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        self.totals[" ".join([name, *labels.values()])] += int(value)

    def observe(self, name: str, value: float, **labels: str) -> None:
        self.observed.setdefault(name, []).append(value)


async def test_batches_tokens_and_cache_hits_are_measured() -> None:
    counts = Counts()
    embedder = build_embedder(EmbeddingSettings(), threads=1, metrics=counts)
    await embedder.embed(["hello", "hello there"])
    await embedder.embed(["hello", "hello"])
    assert counts.totals["embedding_texts_total model"] == 2
    assert counts.totals["embedding_texts_total cache"] == 1
    assert counts.totals["embedding_tokens_total text"] == 3 + 4
    assert counts.totals["embedding_tokens_total padding"] == 1
    assert counts.observed == {"embedding_batch_texts": [2]}
    await embedder.close()


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "abacus"])
def test_a_device_that_is_not_there_is_named(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigurationError, match=device):
        build_embedder(EmbeddingSettings(device=device))


@pytest.mark.parametrize(("found", "device"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_a_gpu_where_there_is_one(found: bool, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found)
    assert SentenceTransformerEncoder().device == device


def encoder(precision: Precision, **capabilities: bool) -> SentenceTransformerEncoder:
    made = SentenceTransformerEncoder(device="cpu", precision=precision, threads=1, capabilities=lambda: capabilities)
    made.load()
    return made


def test_without_fast_bf16_auto_stays_with_fp32() -> None:
    plain = encoder(Precision.AUTO, avx512_f=True, avx512_bf16=False, amx_bf16=False)
    assert plain.precision is Precision.FP32
    assert plain.model.dtype == torch.float32


def test_with_fast_bf16_auto_takes_it_and_the_vectors_hold(embedder: SentenceTransformerEmbedder) -> None:
    rounded = encoder(Precision.AUTO, amx_bf16=True)
    assert rounded.precision is Precision.BF16
    assert rounded.model.dtype == torch.bfloat16
    vectors = rounded.encode(MIXED).vectors
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert cosines(vectors, embedder.encoder.encode(MIXED).vectors).min() >= MIN_COSINE


def test_bf16_that_bends_the_vectors_is_not_kept(
    embedder: SentenceTransformerEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bent(model: SentenceTransformer) -> SentenceTransformer:
        for weights in model.parameters():
            weights.data.add_(torch.randn_like(weights) * 0.05)
        return model

    monkeypatch.setattr(SentenceTransformer, "bfloat16", bent)
    kept = encoder(Precision.BF16, amx_bf16=True)
    assert kept.precision is Precision.FP32
    np.testing.assert_allclose(kept.encode(["intact"]).vectors, embedder.encoder.encode(["intact"]).vectors, atol=1e-5)
