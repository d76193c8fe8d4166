"""The query of a context read: one table that parses by hand, since the hot path stands here, and documents itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from models.enrichment.types import ReadFormat
from models.errors import FieldError, InvalidRequest

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
NAME_PATTERN = f"^{_NAME.pattern}$"
_CURSOR = re.compile(r"[A-Za-z0-9_=.:-]{1,200}")
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One query parameter: `parse` returns its value or raises `ValueError` saying how to mend it."""

    name: str
    description: str
    schema: dict[str, Any]
    parse: Callable[[str], Any]


class Parameters:
    """The query parameters of one route; iterates over them in the order of its documentation."""

    def __init__(self, *parameters: Parameter) -> None:
        self._by_name = {parameter.name: parameter for parameter in parameters}

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self._by_name.values())

    def parse(self, query: bytes) -> dict[str, Any]:
        """The given parameters by name. Raises `InvalidRequest` naming every unknown, repeated or malformed one."""
        if not query:
            return {}
        values: dict[str, Any] = {}
        wrong: list[FieldError] = []
        seen: set[str] = set()
        try:
            pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="strict", max_num_fields=64)
        except ValueError:
            error = InvalidRequest("the query is not URL-encoded UTF-8 of at most 64 parameters")
            raise error.with_fields(FieldError("/query", "encode every value as UTF-8, percent-encoded")) from None
        for name, raw in pairs:
            parameter = self._by_name.get(name)
            pointer = "/query/" + name[:64].replace("~", "~0").replace("/", "~1")
            if parameter is None:
                known = ", ".join(self._by_name)
                wrong.append(FieldError(pointer, f"is not a parameter of this route; known: {known}"))
            elif name in seen:
                wrong.append(FieldError(pointer, "is given twice; send it once"))
            else:
                seen.add(name)
                try:
                    values[name] = parameter.parse(raw)
                except ValueError as exc:
                    wrong.append(FieldError(pointer, str(exc)))
        if wrong:
            raise InvalidRequest("the query is not valid; `errors` names each parameter").with_fields(*wrong)
        return values


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(raw: str) -> int:
        # Length first: turning a very long text of digits into a number is expensive.
        if not (raw.isascii() and raw.isdigit() and len(raw) <= 12 and low <= int(raw) <= high):
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(raw)

    return parse


def _name(raw: str) -> str:
    if not _NAME.fullmatch(raw):
        raise ValueError("must be 1 to 64 letters, digits, '_' or '-'")
    return raw


def _names(raw: str) -> tuple[str, ...]:
    return tuple(_name(part) for part in raw.split(","))


def _flag(raw: str) -> bool:
    if raw.lower() not in _FLAGS:
        raise ValueError("must be true or false")
    return _FLAGS[raw.lower()]


def _text(raw: str) -> str:
    if not raw.strip() or len(raw) > 5000:
        raise ValueError("must be 1 to 5000 characters and not blank")
    return raw


def _format(raw: str) -> ReadFormat:
    if raw not in ("json", "prompt"):
        raise ValueError("must be json or prompt")
    return ReadFormat(raw)


def _cursor(raw: str) -> str:
    if not _CURSOR.fullmatch(raw):
        raise ValueError("must be the `next_cursor` of the page before")
    return raw


def _whole(low: int, high: int, **more: Any) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high, **more}


AGENT_TYPE = Parameter(
    "agent_type",
    "The agent that asks; decides which providers are read and what is masked. Without it: the most masked view.",
    {"type": "string", "pattern": NAME_PATTERN, "examples": ["support"]},
    _name,
)
DEADLINE = Parameter(
    "deadline_ms",
    "Time budget of the read; what is not there by then is reported as `timeout` and fills the cache later.",
    _whole(1, 5000, default=250),
    _integer(1, 5000),
)
READ = Parameters(
    AGENT_TYPE,
    Parameter(
        "message",
        "What the customer wrote: the sections that bear on it come first, and are kept longest under `max_tokens`.",
        {"type": "string", "minLength": 1, "maxLength": 5000},
        _text,
    ),
    DEADLINE,
    Parameter("max_age_ms", "Oldest cached data that is good enough.", _whole(0, 86_400_000), _integer(0, 86_400_000)),
    Parameter("force_refresh", "Read every provider anew.", {"type": "boolean", "default": False}, _flag),
    Parameter(
        "required",
        "Providers, separated by commas, without which the answer is 504 and not a partial context.",
        {"type": "string", "examples": ["account_health"]},
        _names,
    ),
    Parameter(
        "max_tokens", "Budget of the prompt form; what matters least is left out.", _whole(16, 8192), _integer(16, 8192)
    ),
    Parameter(
        "format",
        "`json`, or `prompt`: text to put in front of a language model.",
        {"type": "string", "enum": ["json", "prompt"], "default": "json"},
        _format,
    ),
)
SUMMARY = Parameters(AGENT_TYPE, DEADLINE)
HISTORY = Parameters(
    AGENT_TYPE,
    Parameter("limit", "Versions on a page.", _whole(1, 100, default=20), _integer(1, 100)),
    Parameter("cursor", "`next_cursor` of the page before.", {"type": "string"}, _cursor),
    Parameter(
        "from",
        "With `to`: the `context_version` to compare from, instead of a list of versions.",
        {"type": "string", "pattern": NAME_PATTERN},
        _name,
    ),
    Parameter(
        "to", "With `from`: the `context_version` to compare with.", {"type": "string", "pattern": NAME_PATTERN}, _name
    ),
)
