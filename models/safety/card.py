"""Figures of a trained moderation probe, and the model card that states them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.safety.types import Harm

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

TEMPLATE = Path(__file__).parent / "card_template.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """`hits` of `total`."""

    hits: int
    total: int

    def __str__(self) -> str:
        if not self.total:
            return "–"
        low, high = wilson(self.hits, self.total)
        return f"{self.hits / self.total:.1%} [{low:.1%}, {high:.1%}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is known about one harm; all of it from models that did not see the texts judged."""

    harm: Harm
    threshold: float
    positives: int
    negatives: int
    average_precision: tuple[float, float, float]
    roc_auc: float
    recall: Share
    heard: Share
    precision: Share
    false_blocks: Share
    benign_blocked: Share
    own_found: Share
    own_found_unseen: Share
    xstest_blocked_unseen: Share
    calibration_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactRow:
    """One part of the contact centre's messages.

    Of the harmless ones: how many raise the alarm for self-harm, are answered as a crisis (severity 4), or are stopped
    for any harm. Of those in danger: how many are heard, and answered so.
    """

    alarmed: Share
    crises: Share
    blocked: Share
    found: Share
    found_crises: Share


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One row per harm; `heard_from` is the severity from which a customer's message is heard as self-harm.

    `contact` is by part and by whether the contact centre's examples were learnt from; `ordinary` holds the severities
    of each everyday source, shape (texts, H), and `ordinary_untaught` the same without those examples.
    """

    model_id: str
    heard_from: int
    harms: tuple[Row, ...]
    contact: Mapping[tuple[str, bool], ContactRow]
    ordinary: Mapping[str, Ints]
    ordinary_untaught: Mapping[str, Ints]


def share_of(hits: Bools) -> Share:
    return Share(hits=int(hits.sum()), total=len(hits))


def wilson(hits: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    p, n = hits / total, total
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def average_precision(labels: Floats, scores: Floats) -> float:
    """Area under the precision-recall curve as the sum of precision at each positive over the positives."""
    hits = labels[np.argsort(-scores, kind="stable")] == 1
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean()) if hits.any() else 0.0


def roc_auc(labels: Floats, scores: Floats) -> float:
    """Probability that a harmful text scores above a harmless one."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    return float((positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean())


def calibration_error(labels: Floats, scores: Floats, bins: int = 10) -> float:
    """Mean distance of stated probability and observed share over bins of equal size."""
    order = np.array_split(np.argsort(scores), bins)
    return float(sum(len(i) * abs(scores[i].mean() - labels[i].mean()) for i in order) / len(labels))


def recall_row(
    *,
    harm: Harm,
    threshold: float,
    heard_at: float,
    public: tuple[Floats, Floats],
    own_found: Bools,
    benign_blocked: Bools,
    own_found_unseen: Bools,
    xstest_blocked_unseen: Bools,
    calibration: tuple[Floats, Floats],
) -> Row:
    """Figures of one harm from out-of-fold probabilities; the interval of average precision is bootstrapped."""
    labels, scores = public
    above = scores >= threshold
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(labels), len(labels)) for _ in range(1000)]
    low, high = np.quantile([average_precision(labels[d], scores[d]) for d in draws], [0.025, 0.975])

    return Row(
        harm=harm,
        threshold=threshold,
        positives=int((labels == 1).sum()),
        negatives=int((labels == 0).sum()),
        average_precision=(average_precision(labels, scores), float(low), float(high)),
        roc_auc=roc_auc(labels, scores),
        recall=share_of(above[labels == 1]),
        heard=share_of(scores[labels == 1] >= heard_at),
        precision=share_of(labels[above] == 1),
        false_blocks=share_of(above[labels == 0]),
        benign_blocked=share_of(benign_blocked),
        own_found=share_of(own_found),
        own_found_unseen=share_of(own_found_unseen),
        xstest_blocked_unseen=share_of(xstest_blocked_unseen),
        calibration_error=calibration_error(*calibration),
    )


def render(report: Report) -> str:
    """The model card in Markdown."""
    quality = "\n".join(
        f"| {row.harm.value} | {row.positives} / {row.negatives} | {row.average_precision[0]:.3f}"
        f" [{row.average_precision[1]:.3f}, {row.average_precision[2]:.3f}] | {row.roc_auc:.3f} | {row.threshold:.3f}"
        f" | {row.recall} | {row.heard} | {row.precision} | {row.false_blocks} | {row.calibration_error:.3f} |"
        for row in report.harms
    )
    generality = "\n".join(
        f"| {row.harm.value} | {row.benign_blocked} | {row.xstest_blocked_unseen} | {row.own_found}"
        f" | {row.own_found_unseen} |"
        for row in report.harms
    )
    contact = "\n".join(
        f"| {part} | {'yes' if taught else 'no'} | {row.alarmed} | {row.crises} | {row.blocked} | {row.found} |"
        f" {row.found_crises} |"
        for (part, taught), row in report.contact.items()
    )
    ordinary = "\n".join(
        f"| {source} | {len(seen)} | {_alarmed(seen, report)} | {_alarmed(report.ordinary_untaught[source], report)} | "
        f"{share_of(np.asarray(seen.max(axis=1) >= 4))} | "
        + " | ".join(f"{share:.1%}" for share in (seen >= 4).mean(axis=0))
        + " |"
        for source, seen in report.ordinary.items()
    )
    names = " | ".join(row.harm.value for row in report.harms)
    return TEMPLATE.read_text(encoding="utf-8").format(
        model_id=report.model_id,
        quality=quality,
        generality=generality,
        heard_from=report.heard_from,
        contact=contact,
        ordinary=ordinary or "| none given | | | | |",
        names=names,
        rule="|---" * (5 + len(report.harms)) + "|",
    )


def _alarmed(severities: Ints, report: Report) -> Share:
    self_harm = [row.harm for row in report.harms].index(Harm.SELF_HARM)
    return share_of(severities[:, self_harm] >= report.heard_from)
