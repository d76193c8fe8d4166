"""Where instants come from unless a caller supplies another source."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

#: The current instant, aware.
WallClock = Callable[[], datetime]


def utc_now() -> datetime:
    """The current instant in UTC."""
    return datetime.now(UTC)
