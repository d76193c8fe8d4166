"""Reading an HTTP answer that nobody vouches for."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """A whole answer; `body` is its JSON, or `None` where there is none."""

    status: int
    headers: Mapping[str, str]
    body: Any


async def read_at_most(chunks: AsyncIterator[bytes], *, encoding: str, limit: int) -> bytes:
    """The whole body, decompressed as it comes, never holding more than `limit` bytes of it.

    Raises `ValueError`, whose text quotes nothing, for a longer one, a broken one, or an encoding other than gzip.
    """
    body = bytearray()
    if encoding == "identity":
        async for chunk in chunks:
            if len(body) + len(chunk) > limit:
                raise ValueError("its answer is too large")
            body += chunk
        return bytes(body)
    if encoding != "gzip":
        raise ValueError("its answer is encoded in a way we did not ask for")
    gzip = zlib.decompressobj(zlib.MAX_WBITS | 16)
    async for chunk in chunks:
        try:
            body += gzip.decompress(chunk, limit + 1 - len(body))
        except zlib.error as exc:
            raise ValueError("its answer is not the gzip it claims to be") from exc
        if len(body) > limit:
            raise ValueError("its answer is too large")
    if not gzip.eof:
        raise ValueError("its answer broke off")
    return bytes(body)


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """The `Retry-After` header (RFC 9110, 10.2.3) in seconds from now; `None` if absent, past or unreadable."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9]) or None
    try:
        seconds = (parsedate_to_datetime(value) - now).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return seconds if seconds > 0 else None


def json_of(raw: bytes, content_type: str) -> Any:
    """The JSON value of a body that says it is JSON, and is; otherwise `None`."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        return None
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
