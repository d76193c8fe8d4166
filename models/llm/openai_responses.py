"""The wire format of OpenAI's Responses API; its events become the same pieces as those of a chat completion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.errors import (
    InvalidRequest,
    ModelAccessDenied,
    ModelRateLimited,
    ModelRefused,
    ModelReplyBroken,
    UnsupportedByModel,
)
from models.llm.chat_completions import usage_of
from models.llm.completion import CallPiece, Piece, encodable
from models.llm.prompt import GroundedPrompt
from models.llm.types import ChatMessage, FinishReason, LanguageModelRequest, Role, ToolChoice, Usage


def arguments(request: LanguageModelRequest, *, model: str, prompt: GroundedPrompt) -> dict[str, Any]:
    """The body of a streamed response that the endpoint must not keep; every text can be encoded as UTF-8.

    The API knows no seed, so a request's is left out: it is a wish everywhere. Raises `UnsupportedByModel` for stop
    sequences, which it does not know either, and `InvalidRequest` if there is no message.
    """
    if not request.messages:
        raise InvalidRequest("a request to a language model needs at least one message")
    if request.stop:
        raise UnsupportedByModel("the Responses API takes no stop sequences")
    body: dict[str, Any] = {
        "model": model,
        "input": [item for message in request.messages for item in _items(message)],
        "max_output_tokens": request.max_tokens,
        "stream": True,
        "store": False,
    }
    if request.passages:
        body["instructions"] = prompt.render(request.passages)
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.top_p != 1.0:
        body["top_p"] = request.top_p
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": dict(tool.parameters),
                "strict": False,
            }
            for tool in request.tools
        ]
        body["tool_choice"] = _tool_choice(request.tool_choice)
    if request.response_schema is not None:
        body["text"] = {"format": _text_format(request.response_schema, strict=request.strict)}
    cleaned: dict[str, Any] = encodable(body)
    return cleaned


def piece_of(event: Mapping[str, Any]) -> Piece:
    """One decoded event; what adds nothing to a reply is an empty piece.

    Raises `ModelReplyBroken` (or what the endpoint's code stands for) when the event says that the reply failed, and
    for anything unreadable.
    """
    match event:
        case {"type": "response.output_text.delta", "delta": str(text)}:
            return Piece(text=text)
        case {"type": "response.refusal.delta", "delta": str(text)}:
            return Piece(refusal=text)
        case {
            "type": "response.output_item.added",
            "output_index": int(index),
            "item": {"type": "function_call", "call_id": str(call), "name": str(name)},
        }:
            return Piece(calls=(CallPiece(index=index, id=call, name=name),))
        case {"type": "response.function_call_arguments.delta", "output_index": int(index), "delta": str(text)}:
            return Piece(calls=(CallPiece(index=index, arguments=text),))
        case {"type": "response.completed" | "response.incomplete" as kind, "response": {**response}}:
            return _last(response, finish=FinishReason.STOP if kind == "response.completed" else _cut(response))
        case {"type": "response.failed", "response": {"error": {"code": code}, **response}}:
            raise _with_usage(_failure(code), response)
        case {"type": "error", "code": code}:
            raise _failure(code)
        case {"type": "response.failed" | "error"}:
            raise _failure(None)
        case {"type": str(kind)} if kind not in _READ:
            return Piece()
        case _:
            raise ModelReplyBroken("the endpoint's reply holds something that is not an event of a response")


#: Events that carry the reply: in another shape than above they are garbage, not something new to pass over.
_READ = frozenset(
    {
        "response.output_text.delta",
        "response.refusal.delta",
        "response.function_call_arguments.delta",
        "response.completed",
        "response.incomplete",
    }
)


def _items(message: ChatMessage) -> list[dict[str, Any]]:
    if message.role is Role.TOOL:
        return [{"type": "function_call_output", "call_id": message.tool_call_id, "output": message.content}]
    calls = [
        {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}
        for call in message.tool_calls
    ]
    if calls and not message.content:
        return calls
    return [{"role": str(message.role), "content": message.content}, *calls]


def _tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    return str(choice.mode) if choice.name is None else {"type": "function", "name": choice.name}


def _text_format(schema: Mapping[str, Any], *, strict: bool) -> dict[str, Any]:
    if dict(schema) == {"type": "object"}:  # "some JSON object" is a format of its own; strict schemas name every field
        return {"type": "json_object"}
    return {"type": "json_schema", "name": "reply", "schema": dict(schema), "strict": strict}


def _last(response: Mapping[Any, Any], *, finish: FinishReason) -> Piece:
    model = response.get("model")
    return Piece(
        finish=finish,
        usage=_usage(response),
        model=model if isinstance(model, str) else "",
    )


def _usage(response: Mapping[Any, Any]) -> Usage | None:
    usage = response.get("usage")
    return None if usage is None else usage_of(usage, "input_tokens", "output_tokens", "input_tokens_details")


def _cut(response: Mapping[Any, Any]) -> FinishReason:
    match response:
        case {"incomplete_details": {"reason": "content_filter"}}:
            return FinishReason.CONTENT_FILTER
        case _:
            return FinishReason.LENGTH


def _with_usage(failure: Exception, response: Mapping[Any, Any]) -> Exception:
    if isinstance(failure, ModelRefused | ModelReplyBroken):
        failure.usage = _usage(response)
    return failure


def _failure(code: Any) -> Exception:
    match code:
        case "rate_limit_exceeded":
            return ModelRateLimited("the endpoint broke its reply off: rate limited")
        case "insufficient_quota" | "data_residency_mismatch":
            return ModelAccessDenied("the endpoint broke its reply off: it refuses our account")
        case "invalid_prompt" | "bio_policy" | "misalignment_policy_violation":
            return ModelRefused("the endpoint's policy refused the request")
        case _:
            return ModelReplyBroken("the endpoint broke its reply off with an error")
