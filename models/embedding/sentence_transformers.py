"""Embeddings from any sentence-transformers model; the default, MiniLM, comes from its own wheel."""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, ParamSpec, TypeVar

import cachetools
import numpy as np

from models.embedding.batcher import MicroBatcher
from models.embedding.precision import Precision
from models.embedding.protocol import Vectors
from models.embedding.sentence_transformers_encoder import BUNDLED, Encoded, SentenceTransformerEncoder
from models.errors import ContextLengthExceeded, DeadlineExceeded, FieldError, ModelUnavailable, RapportError
from models.resilience.deadline import Deadline
from models.telemetry import Metrics, NoMetrics

P = ParamSpec("P")
R = TypeVar("R")


class Row(NamedTuple):
    """One text's unit vector, read-only because callers share it, and its tokens (above the window: it was cut)."""

    vector: Vectors
    tokens: int


class SentenceTransformerEmbedder:
    """Unit vectors from a sentence-transformers model, encoded in one worker thread beside the event loop.

    `model` is `all-minilm-l6-v2`, a folder, or a name in the local Hugging Face cache: nothing is ever downloaded.
    `device` is `auto`, `cpu`, `cuda`, ...; `precision` is `auto`, `fp32` or `bf16` (see `models.embedding.precision`).
    `threads` limits the processor threads of one encode call (a process-wide setting of PyTorch, which otherwise
    follows `OMP_NUM_THREADS`). Concurrent calls are merged into batches of at most `max_batch` texts; `cache_entries`
    vectors are remembered (0 turns that off). Use from one event loop at a time. `encode_calls` counts the batches the
    model has run. Raises `ConfigurationError` for a device this machine lacks.
    """

    def __init__(
        self,
        model: str = BUNDLED,
        *,
        device: str = "auto",
        precision: str = Precision.AUTO,
        max_batch: int = 64,
        threads: int | None = None,
        cache_entries: int = 20_000,
        metrics: Metrics | None = None,
    ) -> None:
        self.encode_calls = 0
        self._name = model
        self.encoder = SentenceTransformerEncoder(model, device=device, precision=Precision(precision), threads=threads)
        self._metrics = metrics or NoMetrics()
        self._salt = f"{model}\0".encode()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedder")
        self._batcher: MicroBatcher[str, Row] = MicroBatcher(
            self._encode_beside_the_loop,
            max_batch=max_batch,
            max_weight=self.encoder.costs.batch_tokens,
            weigh=self._guess_tokens,
        )
        self._cache: cachetools.LRUCache[bytes, Row] = cachetools.LRUCache(maxsize=cache_entries)

    @property
    def model_id(self) -> str:
        """Public id of the vector space."""
        return self._name

    @property
    def dimension(self) -> int:
        """Length of a vector; known once `load` has returned. Raises `ModelUnavailable` before."""
        _ = self.encoder.model
        return self.encoder.dimension

    @property
    def window(self) -> int | None:
        """Tokens of the longest text that is not cut; None without a limit. Raises `ModelUnavailable` before `load`."""
        _ = self.encoder.model
        return self.encoder.window

    async def load(self) -> None:
        """Read the weights and run warm-up batches, so that the first request pays for neither; safe to call again.

        Raises `ModelUnavailable` naming the model.
        """
        await self._in_worker(self.encoder.load)

    async def embed(self, texts: Sequence[str], *, deadline: Deadline | None = None) -> Vectors:
        """Vectors in the order of `texts`, a fresh array of shape (texts, dimension); text beyond the window is cut.

        Raises `ModelUnavailable`, and `DeadlineExceeded` if a deadline is given and passes; abandoned texts that wait
        are never encoded.
        """
        return self._stack(await self._rows(texts, deadline))

    async def embed_strict(
        self, texts: Sequence[str], *, deadline: Deadline | None = None
    ) -> tuple[Vectors, list[int]]:
        """As `embed`, with the tokens of each text, special tokens included.

        Raises `ContextLengthExceeded` pointing at every text (`/input/3`) that `embed` would have cut.
        """
        rows = await self._rows(texts, deadline)
        window = self.encoder.window
        long = [index for index, row in enumerate(rows) if window is not None and row.tokens > window]
        if long:
            detail = f"is longer than the model's window of {window} tokens"
            fields = [FieldError(f"/input/{index}", f"{detail}; split or shorten it") for index in long]
            raise ContextLengthExceeded(f"the text at /input/{long[0]} {detail}").with_fields(*fields)
        return self._stack(rows), [row.tokens for row in rows]

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each whole text as the model counts them, special tokens included. Raises `ModelUnavailable`."""
        return await self._in_worker(self.encoder.count_tokens, [_clean(text)[0] for text in texts])

    async def check_health(self) -> None:
        """Return if the model is loaded; raise `ModelUnavailable` otherwise."""
        _ = self.encoder.model

    async def close(self) -> None:
        """Stop the worker thread; waiting calls fail with `ModelUnavailable`."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    async def _rows(self, texts: Sequence[str], deadline: Deadline | None) -> list[Row]:
        rows: dict[bytes, Row] = {}
        missing: dict[bytes, str] = {}
        keys = []
        for text in texts:
            clean, utf8 = _clean(text)
            # A digest of model and text, so that neither long nor personal text is kept.
            key = hashlib.blake2b(self._salt + utf8, digest_size=16).digest()
            keys.append(key)
            if (row := self._cache.get(key)) is not None:
                rows[key] = row
            else:
                missing[key] = clean
        self._metrics.count("embedding_texts_total", len(rows), source="cache")
        if missing:
            if deadline is not None and deadline.expired:
                raise DeadlineExceeded("embedding was asked for after its time budget had run out")
            rows.update(zip(missing, await self._submit(list(missing.values()), deadline), strict=True))
            if self._cache.maxsize:
                self._cache.update((key, rows[key]) for key in missing)
        return [rows[key] for key in keys]

    def _stack(self, rows: list[Row]) -> Vectors:
        if not rows:
            return np.empty((0, self.encoder.dimension), dtype=np.float32)
        return np.stack([row.vector for row in rows])

    async def _submit(self, texts: list[str], deadline: Deadline | None) -> list[Row]:
        if deadline is None:
            return await self._batcher.submit(texts)
        async with deadline.enforce("embedding"):
            return await self._batcher.submit(texts)

    def _guess_tokens(self, text: str) -> int:
        # Counting is the worker's; for the size of a batch a quarter of the characters is near enough.
        return min(len(text) // 4 + 2, self.encoder.window or self.encoder.costs.batch_tokens)

    async def _encode_beside_the_loop(self, texts: list[str]) -> list[Row]:
        # Two callers may ask the same question in the same batch.
        unique = list(dict.fromkeys(texts))
        encoded = await self._in_worker(self._load_and_encode, unique)
        self.encode_calls += 1
        self._metrics.count("embedding_texts_total", len(unique), source="model")
        self._metrics.observe("embedding_batch_texts", len(unique))
        self._metrics.count("embedding_tokens_total", encoded.computed - encoded.padding, kind="text")
        self._metrics.count("embedding_tokens_total", encoded.padding, kind="padding")
        rows = {}
        for text, vector, tokens in zip(unique, encoded.vectors, encoded.tokens, strict=True):
            own = vector.copy()  # a view would keep its whole batch alive in the cache
            own.flags.writeable = False
            rows[text] = Row(own, tokens)
        return [rows[text] for text in texts]

    def _load_and_encode(self, texts: list[str]) -> Encoded:
        self.encoder.load()
        return self.encoder.encode(texts)

    async def _in_worker(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            call = functools.partial(function, *args, **kwargs)
            return await asyncio.get_running_loop().run_in_executor(self._worker, call)
        except RapportError:
            raise
        except Exception as exc:
            raise ModelUnavailable(f"embedding model {self._name!r} failed: {type(exc).__name__}") from exc


def _clean(text: str) -> tuple[str, bytes]:
    """The text and its UTF-8. Lone surrogates reach us through JSON escapes, and no tokenizer takes them."""
    utf8 = text.encode("utf-8", "replace")
    return utf8.decode("utf-8"), utf8
