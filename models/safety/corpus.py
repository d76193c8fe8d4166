"""Labelled texts for training moderation: reading them, embedding their windows, and folds that do not leak."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
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
#: Prefix of the sources of `contact_centre.yaml`: `contact_benign`, `contact_self_harm`.
CONTACT = "contact"
#: Cosine from which two texts count as the same and never stand on both sides of a fold.
DUPLICATE = 0.85


class Part(StrEnum):
    """What a family of `contact_centre.yaml` is for; only `TRAIN` is learnt from, and nothing depends on `HELD_OUT`."""

    TRAIN = "train"
    DEV = "dev"
    HELD_OUT = "held_out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One labelled text; `labels` are in the order of `HARMS`, and a family's texts are ways of saying one thing."""

    text: str
    source: str
    labels: tuple[float, ...]
    family: str = ""


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


def load_examples(data: Path, own: Path) -> list[Example]:
    """The data set and the own-written examples."""
    examples = []
    with data.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            labels = tuple(float("nan") if row[harm.value] is None else float(row[harm.value]) for harm in HARMS)
            examples.append(Example(text=row["text"], source=row["source"], labels=labels))
    for kind, texts in yaml.safe_load(own.read_text(encoding="utf-8")).items():
        labels = _own_labels(kind)
        examples.extend(Example(text=text, source=f"{OWN}_{kind}", labels=labels) for text in texts)
    return examples


def load_families(path: Path, part: Part) -> list[Example]:
    """The own-written messages to a contact centre that belong to one part."""
    kinds: dict[str, dict[str, list[str]]] = yaml.safe_load(path.read_text(encoding="utf-8"))[part.value]
    return [
        Example(text=text, source=f"{CONTACT}_{kind}", labels=_own_labels(kind), family=f"{kind}: {family}")
        for kind, families in kinds.items()
        for family, texts in families.items()
        for text in texts
    ]


def _own_labels(kind: str) -> tuple[float, ...]:
    # Threats and hatred shade into each other: an example of one says nothing about the other.
    open_question = {Harm.HATE: Harm.VIOLENCE, Harm.VIOLENCE: Harm.HATE}
    return tuple(
        1.0 if harm.value == kind else float("nan") if open_question.get(harm, "") == kind else 0.0 for harm in HARMS
    )


async def embed_corpus(examples: Sequence[Example], embedder: Embedder) -> Corpus:
    pieces: list[str] = []
    owners: list[int] = []
    for index, example in enumerate(examples):
        windows = split_windows(example.text)
        pieces.extend(windows)
        owners.extend([index] * len(windows))
    vectors = await embedder.embed(pieces)
    first = np.searchsorted(owners, np.arange(len(examples)))
    return Corpus(
        sources=np.array([example.source for example in examples]),
        labels=np.array([example.labels for example in examples]),
        vectors=vectors,
        owners=np.array(owners, dtype=np.int64),
        groups=_group(vectors[first], [example.family for example in examples]),
    )


def _group(vectors: Vectors, families: Sequence[str]) -> Ints:
    """Ids of the connected components of near-duplicates and of texts of one family."""
    groups = np.arange(len(vectors), dtype=np.int64)
    first_of: dict[str, int] = {}
    kin = [(first_of.setdefault(family, index), index) for index, family in enumerate(families) if family]
    close = np.argwhere(np.triu(vectors @ vectors.T > DUPLICATE, 1))
    for a, b in (*kin, *close):
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
