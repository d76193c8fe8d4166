"""Sessions as bytes: the one place that knows the stored form, and where encryption takes its seat."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson

from models.errors import CacheUnavailable
from models.llm.types import Citation
from models.sessions.types import HandoffReason, Outcome, Session, SessionStatus, Turn

SCHEMA_VERSION = 1


class SessionCodec(Protocol):
    """Turns sessions into bytes and back; a wrapper may encrypt what an inner codec wrote."""

    def encode(self, session: Session) -> bytes: ...

    def decode(self, stored: bytes) -> Session:
        """Raises `CacheUnavailable` when these bytes cannot be read by this version of the program."""
        ...


class JsonSessionCodec:
    """JSON with a schema version; a field added later with a default needs no new version."""

    def encode(self, session: Session) -> bytes:
        return orjson.dumps({"schema": SCHEMA_VERSION, "session": session}, default=_plain)

    def decode(self, stored: bytes) -> Session:
        try:
            document = orjson.loads(stored)
            # Retryable on purpose: during a rolling update another replica can read what this one cannot.
            if document["schema"] != SCHEMA_VERSION:
                raise CacheUnavailable(f"a session is stored in schema {document['schema']}, not {SCHEMA_VERSION}")
            return _session(document["session"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as exc:
            raise CacheUnavailable("a stored session cannot be read") from exc


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no stored form")


def _session(raw: dict[str, Any]) -> Session:
    return Session(
        **{
            **raw,
            "status": SessionStatus(raw["status"]),
            "turns": tuple(_turn(turn) for turn in raw["turns"]),
            **{name: _instant(raw[name]) for name in ("created_at", "updated_at", "expires_at")},
        }
    )


def _turn(raw: dict[str, Any]) -> Turn:
    return Turn(
        **{
            **raw,
            "at": _instant(raw["at"]),
            "outcome": Outcome(raw["outcome"]) if raw.get("outcome") else None,
            "reason": HandoffReason(raw["reason"]) if raw.get("reason") else None,
            "citations": tuple(Citation(**citation) for citation in raw["citations"]),
            "degraded": tuple(raw["degraded"]),
        }
    )


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
