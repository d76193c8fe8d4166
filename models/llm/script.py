"""The options of the scripted engine: how a name such as `scripted:ttft_ms=200,gap_ms=20,tokens=64` is read.

    ttft_ms=N     time to the first token; 0
    gap_ms=N      time between tokens; 0
    tokens=N      length of a reply without schema or tool call; 16, or what quoting the first passage takes
    text=T        the reply's words, instead of the usual ones
    fail=KIND     401, 404, 429, 500, 503, context, unsupported, refuse, cut (the reply breaks off),
                  timeout (silence until the deadline)
    fail_after=N  tokens that come before the failure; any status is a broken reply then; 0
    fail_calls=N  only the first N calls fail
    retry_after_ms=N  what the failure asks to wait
    tool=NAME     calls this tool, unless a tool's result is the last message
    args=JSON     with these arguments, instead of the smallest that fit the tool's schema
    malformed=W   json (text or arguments that do not parse), schema (they parse and do not fit),
                  garbage (odd characters)
    external=1    counts as an engine outside our walls

Options are separated by commas, values may be percent-encoded. `fail_calls` and `external` belong to an engine, so they
stand in the settings and not in a request's `model`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import unquote

from models.errors import ConfigurationError


class Failure(StrEnum):
    ACCESS_DENIED = "401"
    UNKNOWN_MODEL = "404"
    RATE_LIMITED = "429"
    SERVER_ERROR = "500"
    UNAVAILABLE = "503"
    TIMEOUT = "timeout"
    CONTEXT = "context"
    UNSUPPORTED = "unsupported"
    REFUSE = "refuse"
    CUT = "cut"


class Malformed(StrEnum):
    JSON = "json"
    SCHEMA = "schema"
    GARBAGE = "garbage"


#: What a request's `model` must not set.
OF_THE_ENGINE = frozenset({"external", "fail_calls"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What the scripted engine does; `None` means the usual."""

    ttft_ms: float = 0.0
    gap_ms: float = 0.0
    tokens: int | None = None
    text: str | None = None
    fail: Failure | None = None
    fail_after: int = 0
    fail_calls: int | None = None
    retry_after_ms: float | None = None
    tool: str | None = None
    args: str | None = None
    malformed: Malformed | None = None
    external: bool = False

    @classmethod
    def parse(cls, options: str) -> Script:
        """Raises `ConfigurationError` naming the option that is unknown, given twice, or has no such value."""
        values: dict[str, Any] = {}
        for option in filter(None, options.split(",")):
            name, _, text = option.partition("=")
            if name not in _READERS:
                raise ConfigurationError(f"scripted: there is no option {name!r}; choose from: {', '.join(_READERS)}")
            if name in values:
                raise ConfigurationError(f"scripted: the option {name} is given twice")
            try:
                values[name] = _READERS[name](unquote(text))
            except ValueError as exc:
                raise ConfigurationError(f"scripted: the option {name} cannot be {text!r}") from exc
        return cls(**values)


def _milliseconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 3_600_000:
        raise ValueError(text)
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 1_000_000:
        raise ValueError(text)
    return value


def _word(text: str) -> str:
    if not text:
        raise ValueError(text)
    return text


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(text)
    return text == "1"


_READERS: Mapping[str, Callable[[str], Any]] = {
    "ttft_ms": _milliseconds,
    "gap_ms": _milliseconds,
    "tokens": _count,
    "text": _word,
    "fail": Failure,
    "fail_after": _count,
    "fail_calls": _count,
    "retry_after_ms": _milliseconds,
    "tool": _word,
    "args": _word,
    "malformed": Malformed,
    "external": _switch,
}
