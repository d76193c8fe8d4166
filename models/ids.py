"""Ids of everything Rapport names: a type prefix, then letters that sort by the time of creation."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"

NewId = Callable[[str], str]


def new_id(
    prefix: str,
    *,
    clock: Callable[[], float] = time.time,
    entropy: Callable[[int], bytes] = secrets.token_bytes,
) -> str:
    """`prefix_` and 26 characters of Crockford base32: 48 bits of milliseconds, then 80 random bits (ULID layout)."""
    number = int(clock() * 1000) << 80 | int.from_bytes(entropy(10), "big")
    return f"{prefix}_" + "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
