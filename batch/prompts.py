"""The input of a batch generation: one JSON object a line, cut into shards that workers read by themselves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from batch.columns import KEY, Row, failed
from models.errors import ConfigurationError, InvalidRequest
from models.llm.types import ChatMessage, Role

_UTF8_BOM = b"\xef\xbb\xbf"
_ID: TypeAdapter[str | int] = TypeAdapter(Annotated[str, Field(strict=True)] | Annotated[int, Field(strict=True)])


class PromptMessage(BaseModel):
    """One message of a conversation so far."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str


class PromptRow(BaseModel):
    """One line: an id of the caller's choice, and either a prompt or the messages of a conversation."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str | int
    prompt: Annotated[str, Field(min_length=1)] | None = None
    messages: Annotated[list[PromptMessage], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either `prompt` or `messages`")
        return self

    def conversation(self) -> list[PromptMessage]:
        if self.messages is not None:
            return self.messages
        return [PromptMessage(role="user", content=self.prompt or "")]


_MESSAGES: TypeAdapter[list[PromptMessage]] = TypeAdapter(list[PromptMessage])


def shards_of(path: Path, *, lines: int) -> list[Row]:
    """Where every `lines` lines of the file lie; reads it once. Raises `ConfigurationError` naming the file."""
    shards: list[Row] = []
    try:
        with path.open("rb") as file:
            offset = 0
            for number, line in enumerate(file):
                if number % lines == 0:
                    shards.append({"offset": offset, "size": 0, "line": number + 1, "lines": 0})
                shards[-1]["size"] += len(line)
                shards[-1]["lines"] += 1
                offset += len(line)
    except OSError as exc:
        raise ConfigurationError(f"{path}: cannot be read ({exc.strerror})") from exc
    return shards


def rows_of(path: Path, shard: Row) -> list[Row]:
    """A row for every line of the shard but blank ones; a line that is no prompt carries the error that names it."""
    try:
        with path.open("rb") as file:
            file.seek(shard["offset"])
            lines = file.read(shard["size"]).split(b"\n")[: shard["lines"]]
    except OSError as exc:
        numbers = range(shard["line"], shard["line"] + shard["lines"])
        return [_bad(number, b"", f"{path.name} cannot be read any more ({exc.strerror})") for number in numbers]
    numbered = enumerate(lines, shard["line"])
    return [
        _row(number, line.removeprefix(_UTF8_BOM) if number == 1 else line) for number, line in numbered if line.strip()
    ]


def messages_of(row: Row) -> tuple[ChatMessage, ...]:
    """The conversation that a row of this module carries."""
    messages = _MESSAGES.validate_json(row["messages"])
    return tuple(ChatMessage(role=Role(one.role), content=one.content) for one in messages)


def _row(number: int, line: bytes) -> Row:
    try:
        prompt = PromptRow.model_validate_json(line)
    except ValidationError as exc:
        return _bad(number, line, "; ".join(_problem(error["loc"], error["msg"]) for error in exc.errors()))
    messages = _MESSAGES.dump_json(prompt.conversation()).decode()
    return {KEY: json.dumps(prompt.id), "line": number, "messages": messages}


def _bad(number: int, line: bytes, problem: str) -> Row:
    try:
        key = json.dumps(_ID.validate_python(json.loads(line)["id"]))
    except (ValueError, TypeError, KeyError):
        key = json.dumps(None)
    return failed({KEY: key, "line": number}, InvalidRequest.code, f"line {number}: {problem}")


def _problem(location: tuple[int | str, ...], message: str) -> str:
    message = re.sub(r" at line 1 column (\d+)$", r" at column \1", message).removeprefix("Value error, ")
    return f"{'.'.join(str(part) for part in location)}: {message}" if location else message
