"""What one provider said of one customer, as a value and as the compact bytes that replicas share.

Records hold the section as the provider gave it: masking happens when a context is assembled, so every agent type
shares them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

import orjson
from pydantic import TypeAdapter

from models.enrichment.types import SECTIONS, Section

_ADAPTERS: Mapping[str, TypeAdapter[Any]] = MappingProxyType(
    {name: TypeAdapter(section) for name, section in SECTIONS.items()}
)
_FORM = "2"
#: No section of ours comes near; a larger one would hold up every reader while it is checked.
_MAX_SECTION = 1024 * 1024
#: What each item of a collection counts for besides its text, so that many small ones are too much as well.
_PER_ITEM = 16
_SMALL = frozenset((bool, int, float, datetime, type(None)))

#: Changes by itself whenever a section's fields, nested ones too, or the packed form do: releases never misread each
#: other.
SCHEMA_VERSION = hashlib.blake2b(
    orjson.dumps([_FORM, {name: adapter.json_schema() for name, adapter in _ADAPTERS.items()}]), digest_size=4
).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionRecord:
    """One provider's answer; `section` is `None` when it has nothing on this customer.

    It was read at `as_of_ms` since the epoch, which was `read_at` on this process's monotonic clock, and is fresh for
    `fresh_ms` from then. Until `confirmed_until` on that clock it need not be looked up in the shared tier again.
    `order` counts the fetches of this process; 0 means that another one fetched it.
    """

    section: Section | None
    as_of_ms: int
    fresh_ms: int
    latency_ms: float
    read_at: float
    confirmed_until: float = math.inf
    order: int = 0


def checked(name: str, value: object) -> Section | None:
    """The value, if it is a well-formed section of this name or `None`. Raises `TypeError` or `ValueError`."""
    if value is None:
        return None
    if not isinstance(value, SECTIONS[name]):
        raise TypeError(f"a {type(value).__name__} is no {name}")
    if _too_large(value):
        raise ValueError(f"this {name} is larger than a section may be")
    section: Section = _ADAPTERS[name].validate_json(dump(value))
    return section


def pack(record: SectionRecord, stamp: str) -> bytes:
    """The record under the stamp of its generations."""
    head = f"{SCHEMA_VERSION} {stamp} {record.as_of_ms} {record.fresh_ms} {record.latency_ms:.3f}\n"
    return head.encode() + dump(record.section)


def unpack(
    name: str, data: bytes, *, stamp: str, now_ms: int, clock_s: float, confirm_s: float
) -> SectionRecord | None:
    """The record, or `None` if it is of another release or generation, or is damaged."""
    head, _, body = data.partition(b"\n")
    parts = head.decode(errors="replace").split(" ")
    if len(parts) != 5 or parts[0] != SCHEMA_VERSION or parts[1] != stamp:
        return None
    try:
        as_of_ms, fresh_ms, latency_ms = int(parts[2]), int(parts[3]), float(parts[4])
        section = None if body == b"null" else _ADAPTERS[name].validate_json(body)
    except ValueError:
        return None
    return SectionRecord(
        section=section,
        as_of_ms=as_of_ms,
        fresh_ms=fresh_ms,
        latency_ms=latency_ms,
        read_at=clock_s - max(0, now_ms - as_of_ms) / 1000,
        confirmed_until=clock_s + confirm_s,
    )


def _too_large(value: object) -> bool:
    """Told without a look at more of it than is allowed."""
    left = _MAX_SECTION
    waiting: list[Any] = [value]
    while waiting:
        item = waiting.pop()
        if type(item) in _SMALL:
            continue
        if isinstance(item, str):
            left -= len(item)
        elif isinstance(item, (list, tuple, dict)):  # thrice as fast as a union
            left -= _PER_ITEM * len(item)
            if left >= 0:
                waiting.extend(item if not isinstance(item, dict) else (*item.keys(), *item.values()))
        elif (names := getattr(type(item), "__dataclass_fields__", None)) is not None:
            left -= _PER_ITEM * len(names)
            waiting += [getattr(item, name, None) for name in names]
        if left < 0:
            return True
    return False


def dump(value: object) -> bytes:
    """JSON with UTC instants."""
    return orjson.dumps(value, option=orjson.OPT_UTC_Z)


def epoch_ms(instant: datetime) -> int:
    """Milliseconds since the epoch."""
    return int(instant.timestamp() * 1000)
