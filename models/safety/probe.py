"""Moderation by a linear probe on sentence embeddings: one calibrated logistic regression per harm, numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.embedding.protocol import Embedder, Vectors
from models.errors import ConfigurationError, SafetyUnavailable
from models.resilience.deadline import Deadline
from models.safety.types import Finding, Harm
from models.safety.windows import split_windows

#: The weights that ship with Rapport; `MODEL_CARD.md` beside them says what they were trained on and how well they do.
SHIPPED = Path(__file__).parent / "artifacts" / "moderation_probe.npz"

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProbeWeights:
    """Trained weights of one vector space, H harms and D dimensions.

    `coefficients` (H, D) and `intercepts` (H,) give calibrated log-odds. `severity_cuts` (H, 7) rise strictly within 0
    to 1: the severity of a probability is the number of cuts it has reached, so it is monotone; the fourth cut is the
    probability chosen in training as the point from which a text should be blocked.
    """

    model_id: str
    harms: tuple[Harm, ...]
    coefficients: Floats
    intercepts: Floats
    severity_cuts: Floats

    def __post_init__(self) -> None:
        harms, dimension = len(self.harms), self.coefficients.shape[-1]
        if self.coefficients.shape != (harms, dimension) or self.intercepts.shape != (harms,):
            raise ConfigurationError("moderation weights: coefficients and intercepts do not fit the harms")
        cuts = self.severity_cuts
        if cuts.shape != (harms, 7) or not (np.diff(cuts, axis=1) > 0).all() or cuts.min() <= 0 or cuts.max() >= 1:
            raise ConfigurationError("moderation weights: severity cuts must be seven rising probabilities per harm")
        if not (np.isfinite(self.coefficients).all() and np.isfinite(self.intercepts).all()):
            raise ConfigurationError("moderation weights: not all numbers are finite")

    @property
    def dimension(self) -> int:
        return int(self.coefficients.shape[1])

    @classmethod
    def load(cls, path: Path = SHIPPED) -> ProbeWeights:
        """Read weights written by `save`. Raises `ConfigurationError` naming the file."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(
                    model_id=str(stored["model_id"]),
                    harms=tuple(Harm(str(name)) for name in stored["harms"]),
                    coefficients=stored["coefficients"].astype(np.float64),
                    intercepts=stored["intercepts"].astype(np.float64),
                    severity_cuts=stored["severity_cuts"].astype(np.float64),
                )
        except (OSError, KeyError, ValueError) as exc:
            raise ConfigurationError(f"moderation weights cannot be read from {path.name}") from exc

    def save(self, path: Path) -> None:
        np.savez_compressed(
            path,
            model_id=np.array(self.model_id),
            harms=np.array([harm.value for harm in self.harms]),
            coefficients=self.coefficients.astype(np.float32),
            intercepts=self.intercepts.astype(np.float32),
            severity_cuts=self.severity_cuts,
        )

    def probabilities(self, vectors: Vectors) -> Floats:
        """Calibrated probability of each harm, shape (texts, H)."""
        logits = vectors.astype(np.float64) @ self.coefficients.T + self.intercepts
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))

    def severity(self, harm: Harm, probability: float) -> int:
        """0 to 7, never falling as the probability rises."""
        return int(np.searchsorted(self.severity_cuts[self.harms.index(harm)], probability, side="right"))


class ProbeModerator:
    """Scores texts with `ProbeWeights` on an embedder of the same vector space.

    Every sentence of a text is scored beside the whole, and each harm keeps its worst score. A vector handed in stands
    for the whole of a short text; sentences are embedded here, because the vector of the whole hides a single one.
    """

    def __init__(self, embedder: Embedder, weights: ProbeWeights) -> None:
        """Raises `ConfigurationError` if embedder and weights speak of different vector spaces."""
        if embedder.model_id != weights.model_id:
            raise ConfigurationError(
                f"moderation weights are trained on {weights.model_id!r}, the embedder serves {embedder.model_id!r}"
            )
        self._embedder = embedder
        self._weights = weights

    async def moderate(
        self, texts: Sequence[str], *, vectors: Vectors | None = None, deadline: Deadline | None = None
    ) -> list[tuple[Finding, ...]]:
        """One finding per harm and text; a blank text has none of any. Raises `SafetyUnavailable`."""
        if vectors is not None and vectors.shape != (len(texts), self._weights.dimension):
            raise SafetyUnavailable("the vectors handed to moderation do not fit the texts")
        pieces: list[str] = []
        owners: list[int] = []
        known: list[int] = []
        for index, text in enumerate(texts):
            windows = split_windows(text)
            if vectors is not None and windows and windows[0] == text:
                known.append(index)
                windows = windows[1:]
            pieces.extend(windows)
            owners.extend([index] * len(windows))
        worst = np.zeros((len(texts), len(self._weights.harms)))
        if vectors is not None and known:
            worst[known] = self._score(vectors[known])
        if pieces:
            np.maximum.at(worst, owners, self._score(await self._embed(pieces, deadline)))
        return [self._findings(row) for row in worst]

    async def _embed(self, pieces: list[str], deadline: Deadline | None) -> Vectors:
        try:
            vectors = await self._embedder.embed(pieces, deadline=deadline)
        except Exception as exc:
            raise SafetyUnavailable(f"moderation could not embed the text: {type(exc).__name__}") from exc
        if vectors.shape != (len(pieces), self._weights.dimension):
            raise SafetyUnavailable("the embedder returned vectors that do not fit the moderation weights")
        return vectors

    def _score(self, vectors: Vectors) -> Floats:
        probabilities = self._weights.probabilities(vectors)
        if not np.isfinite(probabilities).all():
            # NaN compares as "not above the threshold" and would let every text pass.
            raise SafetyUnavailable("moderation met a vector that is not finite")
        return probabilities

    def _findings(self, row: Floats) -> tuple[Finding, ...]:
        return tuple(
            Finding(harm=harm, severity=self._weights.severity(harm, float(p)), probability=float(p))
            for harm, p in zip(self._weights.harms, row, strict=True)
        )
