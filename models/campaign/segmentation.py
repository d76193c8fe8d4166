"""Segments: RFM rules (recency, frequency, monetary value), first match wins, and what each segment is like."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.campaign.config import SegmentRule
from models.campaign.types import FEATURE_NAMES, CustomerFeatures, Segment
from models.errors import InvalidRequest

#: (feature, words when clearly above the audience, words when clearly below).
_TRAITS: tuple[tuple[str, str, str], ...] = (
    ("recency_days", "have not ordered for long", "ordered recently"),
    ("frequency", "order often", "order rarely"),
    ("monetary", "spend more than most", "spend less than most"),
    ("engagement", "sign in on many days", "sign in on few days"),
    ("tenure_days", "have been customers for long", "are new customers"),
    ("seat_use", "use nearly all their seats", "leave seats unused"),
    ("open_tickets", "have open support tickets", ""),
    ("churn_risk", "are at risk of leaving", "are unlikely to leave"),
)
_CLEARLY = 1.25


class Segmenter(Protocol):
    """Names the segment of one customer, from that customer's features alone."""

    @property
    def method(self) -> str: ...

    def label(self, customer: CustomerFeatures) -> str:
        """Raises `InvalidRequest` for features that are not finite or that cannot be."""
        ...


class RuleSegmenter:
    """The first matching rule; the last one matches everyone."""

    method = "rules"

    def __init__(self, rules: Sequence[SegmentRule]) -> None:
        self._rules = tuple(rules)

    def label(self, customer: CustomerFeatures) -> str:
        features = checked(customer)
        return next(rule.label for rule in self._rules if rule.matches(features))


def checked(customer: CustomerFeatures) -> dict[str, float]:
    """The features by name. Raises `InvalidRequest` naming the first that is not a finite number of at least 0."""
    features: dict[str, float] = {}
    for name in FEATURE_NAMES:
        value: float | None = getattr(customer, name)
        if value is None or not math.isfinite(value) or value < 0:
            raise InvalidRequest(f"feature {name} is missing, negative or not a number")
        features[name] = value
    return features


def summarise(
    labels: Sequence[str], features: NDArray[np.float64], *, descriptions: Mapping[str, str] | None = None
) -> tuple[Segment, ...]:
    """One `Segment` per label, largest first: size, share, mean features, and how it differs from the audience.

    `features` has one row per label and a column per name of `FEATURE_NAMES`.
    """
    names, member_of = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    overall = features.mean(axis=0) if len(features) else np.zeros(len(FEATURE_NAMES))
    segments = []
    for index, label in enumerate(names):
        group = features[member_of == index]
        means = group.mean(axis=0)
        traits = tuple(_traits(means, overall))
        segments.append(
            Segment(
                label=str(label),
                size=len(group),
                share=len(group) / len(features),
                characteristics=dict(zip(FEATURE_NAMES, (round(float(mean), 4) for mean in means), strict=True)),
                traits=traits,
                summary=_summary((descriptions or {}).get(str(label), ""), traits),
            )
        )
    return tuple(sorted(segments, key=lambda segment: (-segment.size, segment.label)))


def _traits(means: NDArray[np.float64], overall: NDArray[np.float64]) -> Iterable[str]:
    for (_, above, below), mean, typical in zip(_TRAITS, means, overall, strict=True):
        if above and mean > typical * _CLEARLY:
            yield above
        elif below and mean * _CLEARLY < typical:
            yield below


def _summary(description: str, traits: Sequence[str]) -> str:
    if not traits:
        return description or "Close to the average of the audience."
    told = traits[0] if len(traits) == 1 else f"{', '.join(traits[:-1])} and {traits[-1]}"
    return f"{description} Compared with the whole audience they {told}.".strip()
