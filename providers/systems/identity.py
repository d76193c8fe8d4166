"""Where instants and new ids come from unless a caller supplies other sources."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime

#: The current instant, aware.
WallClock = Callable[[], datetime]
#: A new id with the given prefix.
NewId = Callable[[str], str]


def utc_now() -> datetime:
    """The current instant in UTC."""
    return datetime.now(UTC)


def random_id(prefix: str) -> str:
    """An unguessable id such as `tck_5f0c...`, 96 random bits."""
    return f"{prefix}_{secrets.token_hex(12)}"
