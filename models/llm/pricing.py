"""What a call costs: the price table, and tokens where no engine has counted them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from models.errors import ConfigurationError
from models.llm.types import LanguageModelRequest, Usage

ROOT = Path(__file__).parents[2]

#: Tokens that a chat format puts around a message, and that our instructions put around passages; both generous.
_AROUND_MESSAGE = 8
_AROUND_PASSAGES = 1000
#: Characters of a token in common languages; only for what no engine counted.
_CHARS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """USD per million tokens; `cached` is for the part of the prompt that the endpoint had already read."""

    prompt: float
    cached: float
    completion: float

    def of(self, usage: Usage) -> float:
        """USD for these tokens."""
        fresh = max(0, usage.prompt_tokens - usage.cached_tokens)
        cost = fresh * self.prompt + usage.cached_tokens * self.cached + usage.completion_tokens * self.completion
        return cost / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRow:
    """The price of the models of some engines whose name fits the shell pattern `model`."""

    engines: tuple[str, ...]
    model: str
    price: Price


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTable:
    """Prices as listed on the day `as_of`; the first row that fits counts."""

    version: str
    as_of: str
    rows: tuple[PriceRow, ...]

    def price(self, engine: str, *models: str) -> Price | None:
        """Of the first of these names for one model that the table knows; `None` if it knows none."""
        for model in models:
            for row in self.rows:
                if engine in row.engines and fnmatchcase(model, row.model):
                    return row.price
        return None

    def cost(self, engine: str, model: str, usage: Usage) -> float | None:
        """USD for these tokens, or `None` for a model that the table does not know."""
        price = self.price(engine, model)
        return None if price is None else price.of(usage)


def load_prices(path: Path) -> PriceTable:
    """Read the table; a relative path starts at the project's root. Raises `ConfigurationError` with the reason."""
    path = ROOT / path
    try:
        loaded: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise ConfigurationError(f"{path}: not a readable YAML file") from exc
    try:
        return PriceTable(
            version=str(loaded["version"]),
            as_of=str(loaded["as_of"]),
            rows=tuple(_row(row, f"{path}: price {number}") for number, row in enumerate(loaded["prices"], start=1)),
        )
    except (KeyError, TypeError) as exc:
        raise ConfigurationError(f"{path}: needs version, as_of and a list of prices") from exc


def _row(row: Any, where: str) -> PriceRow:
    names = {"engines", "model", "prompt", "cached", "completion"}
    if not isinstance(row, Mapping) or set(row) != names:
        raise ConfigurationError(f"{where}: needs exactly {', '.join(sorted(names))}")
    amounts = {name: row[name] for name in ("prompt", "cached", "completion")}
    for name, amount in amounts.items():
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < float("inf"):
            raise ConfigurationError(f"{where}: {name} is not an amount of USD per million tokens")
    engines = row["engines"]
    if not isinstance(engines, list) or not engines or not all(isinstance(engine, str) for engine in engines):
        raise ConfigurationError(f"{where}: engines is not a list of names")
    return PriceRow(
        engines=tuple(engines),
        model=str(row["model"]),
        price=Price(**{name: float(amount) for name, amount in amounts.items()}),
    )


def at_most(request: LanguageModelRequest) -> Usage:
    """More tokens than the request can use: every token of a byte-level vocabulary is at least one byte of UTF-8."""
    size = sum(len(text.encode("utf-8", "replace")) for text in _texts(request))
    around = _AROUND_MESSAGE * (len(request.messages) + 1) + (_AROUND_PASSAGES if request.passages else 0)
    return Usage(prompt_tokens=size + around, completion_tokens=request.max_tokens)


def about(request: LanguageModelRequest, written_chars: int) -> Usage:
    """Roughly the tokens of a call that ended uncounted, after `written_chars` of its reply."""
    size = sum(len(text) for text in _texts(request))
    return Usage(
        prompt_tokens=size // _CHARS_PER_TOKEN + len(request.messages),
        completion_tokens=-(-written_chars // _CHARS_PER_TOKEN),
    )


def _texts(request: LanguageModelRequest) -> Iterator[str]:
    for message in request.messages:
        yield message.content
        for call in message.tool_calls:
            yield from (call.id, call.name, call.arguments)
    for passage in request.passages:
        yield from (passage.title, passage.text)
    for tool in request.tools:
        yield from (tool.name, tool.description, json.dumps(dict(tool.parameters)))
    if request.response_schema is not None:
        yield json.dumps(dict(request.response_schema))
