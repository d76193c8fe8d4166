"""How a conversation is judged to have gone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from models.errors import FieldError, InvalidRequest


class Measure(StrEnum):
    """`resolved` is 0 or 1, `csat` a rating of 1 to 5, `handle_minutes` what a person spent on it."""

    RESOLVED = "resolved"
    CSAT = "csat"
    HANDLE_MINUTES = "handle_minutes"

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest possible value."""
        return _BOUNDS[self]

    @property
    def more_is_better(self) -> bool:
        return self is not Measure.HANDLE_MINUTES


_BOUNDS: Mapping[Measure, tuple[float, float]] = MappingProxyType(
    {Measure.RESOLVED: (0.0, 1.0), Measure.CSAT: (1.0, 5.0), Measure.HANDLE_MINUTES: (0.0, math.inf)}
)


def check_measures(values: Mapping[Measure, float]) -> None:
    """Raises `InvalidRequest` naming every value that its measure cannot take."""
    wrong = []
    for measure, value in values.items():
        low, high = measure.bounds
        if not (math.isfinite(value) and low <= value <= high) or (measure is Measure.RESOLVED and value not in (0, 1)):
            wrong.append(FieldError(f"/{measure.value}", _ALLOWED[measure]))
    if wrong:
        raise InvalidRequest("a measure is out of its range").with_fields(*wrong)


_ALLOWED: Mapping[Measure, str] = MappingProxyType(
    {
        Measure.RESOLVED: "must be 0 or 1",
        Measure.CSAT: "must be from 1 to 5",
        Measure.HANDLE_MINUTES: "must be finite and not negative",
    }
)
