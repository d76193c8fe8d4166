"""Labelled texts for training moderation: reading them, embedding their windows, and folds that do not leak."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from models.embedding.protocol import Embedder, Vectors
from models.safety.probe import Floats
from models.safety.types import Harm
from models.safety.windows import split_windows

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

HARMS = tuple(Harm)
#: Prefix of the sources of own-written examples: `own_benign`, `own_hate`, ...
OWN = "own"
#: Cosine from which two texts count as the same and never stand on both sides of a fold.
DUPLICATE = 0.85


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """N labelled texts and the vectors of their windows.

    `labels` (N, H) holds 0, 1 or NaN for unlabelled; `owners` (W,) is the text each of the W windows belongs to.
    """

    sources: NDArray[np.str_]
    labels: Floats
    vectors: Vectors
    owners: Ints
    groups: Ints

    def is_source(self, *names: str) -> Bools:
        return np.asarray(np.isin(self.sources, names))


def load_examples(data: Path, own: Path) -> list[tuple[str, str, tuple[float, ...]]]:
    """(text, source, labels in the order of `HARMS`) of the data set and of the own-written examples."""
    examples = []
    with data.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            labels = tuple(float("nan") if row[harm.value] is None else float(row[harm.value]) for harm in HARMS)
            examples.append((row["text"], row["source"], labels))
    for kind, texts in yaml.safe_load(own.read_text(encoding="utf-8")).items():
        examples.extend((text, f"{OWN}_{kind}", _own_labels(kind)) for text in texts)
    return examples


def _own_labels(kind: str) -> tuple[float, ...]:
    # Threats and hatred shade into each other: an example of one says nothing about the other.
    open_question = {Harm.HATE: Harm.VIOLENCE, Harm.VIOLENCE: Harm.HATE}
    return tuple(
        1.0 if harm.value == kind else float("nan") if open_question.get(harm, "") == kind else 0.0 for harm in HARMS
    )


async def embed_corpus(examples: Sequence[tuple[str, str, tuple[float, ...]]], embedder: Embedder) -> Corpus:
    pieces: list[str] = []
    owners: list[int] = []
    for index, (text, _, _) in enumerate(examples):
        windows = split_windows(text)
        pieces.extend(windows)
        owners.extend([index] * len(windows))
    vectors = await embedder.embed(pieces)
    first = np.searchsorted(owners, np.arange(len(examples)))
    return Corpus(
        sources=np.array([source for _, source, _ in examples]),
        labels=np.array([labels for _, _, labels in examples]),
        vectors=vectors,
        owners=np.array(owners, dtype=np.int64),
        groups=_group(vectors[first]),
    )


def _group(vectors: Vectors) -> Ints:
    """Ids of the connected components of near-duplicates."""
    groups = np.arange(len(vectors), dtype=np.int64)
    close = np.triu(vectors @ vectors.T > DUPLICATE, 1)
    for a, b in np.argwhere(close):
        groups[groups == groups[b]] = groups[a]
    return groups


def assign_folds(groups: Ints, positive: Bools, count: int, seed: int) -> Ints:
    """A fold per text: groups stay whole, and positives are spread as evenly as the groups allow."""
    rng = np.random.default_rng(seed)
    names, position = np.unique(groups, return_inverse=True)
    sizes = np.bincount(position)
    positives = np.bincount(position, weights=positive)
    order = rng.permutation(len(names))
    of_group = np.zeros(len(names), dtype=np.int64)
    load = np.zeros((count, 2))
    for g in sorted(order, key=lambda g: -float(positives[g])):
        # Groups with positives even out the positives; the others then even out the sizes.
        fold = min(range(count), key=lambda f: load[f, 0] if positives[g] else load[f, 1])
        of_group[g] = fold
        load[fold] += positives[g], sizes[g]
    return of_group[position]
