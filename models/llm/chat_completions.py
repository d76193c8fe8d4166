"""The chat-completions wire format, shared by every engine that speaks it, and how its pieces become one reply."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.errors import InvalidRequest, ModelRefused, ModelReplyBroken
from models.llm.citations import MarkFilter, cited, without_marks
from models.llm.prompt import GroundedPrompt
from models.llm.types import (
    ChatMessage,
    Delta,
    FinishReason,
    LanguageModelReply,
    LanguageModelRequest,
    Role,
    ToolCall,
    ToolChoice,
    Usage,
)

_FINISH = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}
#: How vLLM ends a generation that it gave up.
_BROKEN_OFF = frozenset({"abort", "error"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPiece:
    """A part of the tool call number `index`; the parts of `arguments` joined are its JSON text."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What one event of a streamed reply adds; `refusal` is the model's own words for not answering."""

    text: str = ""
    refusal: str = ""
    calls: tuple[CallPiece, ...] = ()
    finish: FinishReason | None = None
    usage: Usage | None = None
    model: str = ""


def arguments(
    request: LanguageModelRequest, *, model: str, prompt: GroundedPrompt, limit: str = "max_tokens"
) -> dict[str, Any]:
    """The body of a streamed completion; every text in it can be encoded as UTF-8.

    Passages become a system message of numbered sources before the others; without passages the messages travel as
    they are. `limit` names the field that holds the longest reply, which OpenAI's newer models call
    `max_completion_tokens`. Raises `InvalidRequest` if there is no message.
    """
    if not request.messages:
        raise InvalidRequest("a request to a language model needs at least one message")
    messages = [_wire(message) for message in request.messages]
    if request.passages:
        messages.insert(0, {"role": "system", "content": prompt.render(request.passages)})
    body: dict[str, Any] = {
        "model": model,
        "messages": messages,
        limit: request.max_tokens,
        "temperature": request.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    # Only what was asked for: some compatible endpoints refuse fields they do not know.
    if request.top_p != 1.0:
        body["top_p"] = request.top_p
    if request.stop:
        body["stop"] = list(request.stop)
    if request.seed is not None:
        body["seed"] = request.seed
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": t.name, "description": t.description, "parameters": dict(t.parameters)},
            }
            for t in request.tools
        ]
        body["tool_choice"] = _tool_choice(request.tool_choice)
    if request.response_schema is not None:
        body["response_format"] = _response_format(request.response_schema)
    cleaned: dict[str, Any] = encodable(body)
    return cleaned


def piece_of(chunk: Mapping[str, Any]) -> Piece:
    """One decoded `chat.completion.chunk`. Raises `ModelReplyBroken` for an error object or anything unreadable."""
    match chunk:
        case {"error": error} if error:
            raise ModelReplyBroken("the endpoint broke its reply off with an error")
        case {"choices": []}:
            choice: Mapping[Any, Any] = {}
        case {"choices": [{**first}, *_]}:
            choice = first
        case _:
            raise ModelReplyBroken("the endpoint's reply holds something that is not a completion chunk")
    delta = _mapping(choice, "delta")
    finish = _text(choice, "finish_reason")
    if finish in _BROKEN_OFF:
        raise ModelReplyBroken("the endpoint gave its reply up")
    usage = chunk.get("usage")
    return Piece(
        text=_text(delta, "content"),
        refusal=_text(delta, "refusal"),
        calls=tuple(_call(call, place) for place, call in enumerate(_list(delta, "tool_calls"))),
        finish=_FINISH.get(finish, FinishReason.STOP) if finish else None,
        usage=None if usage is None else usage_of(usage, "prompt_tokens", "completion_tokens", "prompt_tokens_details"),
        model=_text(chunk, "model"),
    )


def usage_of(usage: Any, prompt: str, completion: str, prompt_details: str) -> Usage:
    """The counts of a usage object under these names. Raises `ModelReplyBroken` if they are not numbers."""
    if not isinstance(usage, Mapping):
        raise ModelReplyBroken("the endpoint's reply holds a usage that is not an object")
    return Usage(
        prompt_tokens=_count(usage, prompt),
        completion_tokens=_count(usage, completion),
        cached_tokens=_count(_mapping(usage, prompt_details), "cached_tokens"),
    )


class Completion:
    """Puts the pieces of one streamed reply together.

    An answer from passages loses its citation marks and gains citations, and no word of a refusal reaches the caller. A
    reply that fills a schema, or rests on no passages, is left as the model wrote it.
    """

    def __init__(self, request: LanguageModelRequest, prompt: GroundedPrompt, *, engine: str, model: str) -> None:
        self._passages = request.passages if request.response_schema is None else ()
        self._no_answer = prompt.no_answer
        self._engine = engine
        self._model = model
        self._filter = MarkFilter()
        self._raw: list[str] = []
        self._half = ""
        self._head = ""
        self._head_passed = False
        self._finish: FinishReason | None = None
        self._refused = False
        self._usage = Usage()
        self._calls: dict[int, _Call] = {}

    def add(self, piece: Piece) -> str:
        """The text that this piece makes certain."""
        self._usage = piece.usage or self._usage
        self._model = piece.model or self._model
        self._finish = piece.finish or self._finish
        self._refused = self._refused or bool(piece.refusal)
        for part in piece.calls:
            self._calls.setdefault(part.index, _Call()).add(part)
        return self._certain(self._whole(piece.text)) if piece.text else ""

    def finish(self) -> str:
        """The last of the text.

        Raises `ModelReplyBroken` if the reply never said that it is finished, and `ModelRefused` if the model would not
        answer or said that the sources hold no answer.
        """
        if self._finish is None:
            raise ModelReplyBroken("the reply broke off")
        if self._refused:
            raise ModelRefused("the model would not answer")
        if any(not call.name for call in self._calls.values()):
            raise ModelReplyBroken("the reply holds a tool call without a name")
        rest = self._certain(encodable(self._half)) if self._half else ""
        self._half = ""
        if not self._passages:
            return rest
        if not self._head_passed:
            if self._head.strip().startswith(self._no_answer):
                raise ModelRefused("the model found no answer in the passages")
            self._head_passed = True
            rest = self._filter.feed(self._head)
        return rest + self._filter.close()

    def reply(self) -> LanguageModelReply:
        """The finished reply; its text is what `add` and `finish` returned, joined."""
        calls = tuple(self._calls[index].whole(index) for index in sorted(self._calls))
        finish = self._finish or FinishReason.STOP
        if calls and finish is FinishReason.STOP:  # what OpenAI and vLLM say when a tool was forced
            finish = FinishReason.TOOL_CALLS
        return LanguageModelReply(
            text=without_marks(self._filter.raw) if self._passages else "".join(self._raw),
            engine=self._engine,
            model=self._model,
            finish_reason=finish,
            citations=cited(self._filter.raw, self._passages),
            tool_calls=calls,
            usage=self._usage,
        )

    def _certain(self, text: str) -> str:
        if not self._passages:
            self._raw.append(text)
            return text
        if self._head_passed:
            return self._filter.feed(text)
        self._head += text
        start = self._head.lstrip()
        if self._no_answer.startswith(start[: len(self._no_answer)]):
            return ""  # may still be the refusal; not a word of it may reach the customer
        self._head_passed = True
        return self._filter.feed(start)

    def _whole(self, text: str) -> str:
        """The text, without a last half of a surrogate pair: its other half comes with the next piece."""
        text, self._half = self._half + text, ""
        if "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return str(encodable(text))


class _Call:
    """A tool call that comes in parts."""

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self._arguments: list[str] = []

    def add(self, part: CallPiece) -> None:
        # Some endpoints repeat id and name in every part.
        self.id = self.id or part.id
        self.name = self.name or part.name
        self._arguments.append(part.arguments)

    def whole(self, index: int) -> ToolCall:
        return ToolCall(
            id=self.id or f"call_{index}", name=self.name, arguments=str(encodable("".join(self._arguments)))
        )


async def reply_of(deltas: AsyncIterator[Delta]) -> LanguageModelReply:
    """The reply at the end of a stream. Raises `ModelReplyBroken` if there is none."""
    reply: LanguageModelReply | None = None
    async for delta in deltas:
        reply = delta.reply or reply
    if reply is None:
        raise ModelReplyBroken("the stream ended without a reply")
    return reply


def encodable(value: Any) -> Any:
    """The JSON value with lone surrogates as U+FFFD: they reach us through JSON escapes, and UTF-8 has none."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return value
    if isinstance(value, Mapping):
        return {encodable(key): encodable(inner) for key, inner in value.items()}
    if isinstance(value, Sequence):
        return [encodable(inner) for inner in value]
    return value


def _wire(message: ChatMessage) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": str(message.role), "content": message.content}
    if message.role is Role.TOOL:
        wire["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        wire["content"] = message.content or None
        wire["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return wire


def _tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    if choice.name is not None:
        return {"type": "function", "function": {"name": choice.name}}
    return str(choice.mode)


def _response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    if dict(schema) == {"type": "object"}:  # "some JSON object" is a format of its own; strict schemas name every field
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": dict(schema), "strict": True}}


def _call(call: Any, place: int) -> CallPiece:
    if not isinstance(call, Mapping):
        raise ModelReplyBroken("the endpoint's reply holds a tool call that is not an object")
    function = _mapping(call, "function")
    return CallPiece(
        # Some endpoints send whole calls and do not number them.
        index=place if call.get("index") is None else _count(call, "index"),
        id=_text(call, "id"),
        name=_text(function, "name"),
        arguments=_text(function, "arguments"),
    )


def _text(holder: Mapping[str, Any], name: str) -> str:
    value = holder.get(name)
    if value is not None and not isinstance(value, str):
        raise ModelReplyBroken(f"the endpoint's reply holds a {name} that is not a text")
    return value or ""


def _count(holder: Mapping[str, Any], name: str) -> int:
    value = holder.get(name)
    if value is not None and (not isinstance(value, int) or value < 0):
        raise ModelReplyBroken(f"the endpoint's reply holds {name} that is not a number of things")
    return value or 0


def _mapping(holder: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = holder.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise ModelReplyBroken(f"the endpoint's reply holds a {name} that is not an object")
    return value or {}


def _list(holder: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = holder.get(name)
    if value is not None and not isinstance(value, list):
        raise ModelReplyBroken(f"the endpoint's reply holds {name} that are not a list")
    return value or ()
