"""The chunks of a streamed chat completion as server-sent events, encoded with as little work a piece as possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import orjson

from deployments.ingress.failures import openai_error_of
from deployments.ingress.http.openai.chat_reply import (
    CompletionUsage,
    FileCitation,
    Finish,
    Heading,
    RapportDetails,
    ToolCallBody,
)
from deployments.ingress.schemas import Wire
from models.llm.types import LanguageModelReply, Usage

DONE = b"data: [DONE]\n\n"


class ToolCallDelta(ToolCallBody):
    index: int


class ChunkDelta(Wire):
    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None
    annotations: list[FileCitation] | None = None


class ChunkChoice(Wire):
    index: int
    delta: ChunkDelta
    finish_reason: Finish | None


class ChatCompletionChunk(Wire):
    """One event of a stream. The last one with choices carries `rapport`; the one with `usage` has no choices."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | None = None
    rapport: RapportDetails | None = None


class ChunkEncoder:
    """Writes the events of one stream; what all of them share is encoded once."""

    def __init__(self, heading: Heading, *, include_usage: bool) -> None:
        shared = {
            "id": heading.id,
            "object": "chat.completion.chunk",
            "created": heading.created,
            "model": heading.model,
        }
        self._start = b"data: " + orjson.dumps(shared)[:-1] + b',"choices":'
        # With usage asked for, every chunk but the last says that it has none.
        self._end = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._include_usage = include_usage
        self._request_id = heading.request_id
        self._opened: set[int] = set()

    def text(self, index: int, text: str) -> bytes:
        """A piece of text; the first of a choice says whose it is."""
        role = b""
        if index not in self._opened:
            self._opened.add(index)
            role = b'"role":"assistant",'
        choice = b'[{"index":%d,"delta":{%b"content":%b},"finish_reason":null}]' % (index, role, _string(text))
        return self._start + choice + self._end

    def finish(
        self, index: int, reply: LanguageModelReply, *, single_call: bool, details: RapportDetails | None
    ) -> bytes:
        """The end of an engine's choice, with its tool calls and citations."""
        delta: dict[str, Any] = {}
        calls = reply.tool_calls[:1] if single_call else reply.tool_calls
        if calls:
            delta["tool_calls"] = [
                {"index": place, **ToolCallBody.of(call).model_dump()} for place, call in enumerate(calls)
            ]
        if reply.citations:
            delta["annotations"] = [FileCitation.of(cited, reply.text).model_dump() for cited in reply.citations]
        return self.end(index, delta, reply.finish_reason.value, details)

    def end(self, index: int, delta: dict[str, Any], finish_reason: Finish, details: RapportDetails | None) -> bytes:
        """The last chunk of a choice; `details` go with the last choice only."""
        if index not in self._opened:
            self._opened.add(index)
            delta = {"role": "assistant", "content": None, **delta}
        choices = orjson.dumps([{"index": index, "delta": delta, "finish_reason": finish_reason}])
        extension = b"" if details is None else b',"rapport":' + orjson.dumps(details.fields())
        return self._start + choices + extension + self._end

    def usage(self, usages: Sequence[Usage]) -> bytes:
        """What the whole stream used, if that was asked for."""
        if not self._include_usage:
            return b""
        return self._start + b'[],"usage":' + CompletionUsage.of(usages).model_dump_json().encode() + b"}\n\n"


def failure_event(error: BaseException) -> bytes:
    """The last event of a stream that broke off, in the shape that OpenAI's clients raise as an error."""
    return b"data: " + orjson.dumps(openai_error_of(error)) + b"\n\n"


def _string(text: str) -> bytes:
    try:
        return orjson.dumps(text)
    except TypeError:
        # Half a surrogate pair, as models cut them, is no text.
        return orjson.dumps(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
