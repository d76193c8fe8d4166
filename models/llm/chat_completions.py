"""The wire format of chat completions, shared by every engine that speaks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.errors import InvalidRequest, ModelReplyBroken
from models.llm.completion import CallPiece, Piece, encodable
from models.llm.prompt import GroundedPrompt
from models.llm.types import ChatMessage, FinishReason, LanguageModelRequest, Role, ToolChoice, Usage

_FINISH = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}
#: How vLLM ends a generation that it gave up.
_BROKEN_OFF = frozenset({"abort", "error"})


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
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    # Only what was asked for: some compatible endpoints refuse fields they do not know.
    if request.temperature is not None:
        body["temperature"] = request.temperature
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
        body["response_format"] = _response_format(request.response_schema, strict=request.strict)
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


def _response_format(schema: Mapping[str, Any], *, strict: bool) -> dict[str, Any]:
    if dict(schema) == {"type": "object"}:  # "some JSON object" is a format of its own; strict schemas name every field
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": dict(schema), "strict": strict}}


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
