"""From a chat request to what an engine is asked: everything that does not fit is a typed error naming the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deployments.ingress.errors import UnsupportedParameter
from deployments.ingress.http.openai.chat_request import (
    ChatMessageBody,
    ChatRequest,
    Part,
    ToolBody,
)
from deployments.ingress.http.openai.json_schema import SentSchema
from models.errors import FieldError, InvalidRequest, RapportError
from models.llm.types import ChatMessage, LanguageModelRequest, Role, ToolCall, ToolChoice, ToolMode, ToolSpec

#: Fields that no engine honours, and the values at which they ask for nothing.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": (),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "moderation": (),
    "prediction": (),
    "presence_penalty": (0,),
    "reasoning_effort": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
_INSTEAD = {"functions": "; use tools", "function_call": "; use tool_choice"}
_NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


def generation_of(body: ChatRequest, *, default_max_tokens: int) -> LanguageModelRequest:
    """The request for an engine, its schemas yet to be checked.

    Raises `InvalidRequest` or a kind of it, naming the field.
    """
    check_supported(body)
    tools = tuple(_tool(tool, index) for index, tool in enumerate(body.tools or ()))
    if len({tool.name for tool in tools}) < len(tools):
        raise _invalid("/tools", "has two functions of one name")
    return LanguageModelRequest(
        messages=messages_of(body),
        model=body.model,
        max_tokens=body.max_completion_tokens or body.max_tokens or default_max_tokens,
        temperature=body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        stop=tuple(body.stop or ()),
        seed=body.seed,
        tools=tools,
        tool_choice=_tool_choice(body, tools),
        response_schema=_response_schema(body),
        strict=bool(
            body.response_format and body.response_format.json_schema and body.response_format.json_schema.strict
        ),
    )


def schemas_of(body: ChatRequest) -> list[SentSchema]:
    """Every JSON schema in the request, where it stands."""
    functions = [(index, tool.function) for index, tool in enumerate(body.tools or ())]
    sent = [
        SentSchema(function.parameters, f"/tools/{index}/function/parameters", bool(function.strict))
        for index, function in functions
        if function.parameters
    ]
    wanted = body.response_format.json_schema if body.response_format is not None else None
    if wanted is not None and wanted.schema_ is not None:
        sent.append(SentSchema(wanted.schema_, "/response_format/json_schema/schema", bool(wanted.strict)))
    return sent


def check_supported(body: ChatRequest) -> None:
    """Raises `UnsupportedParameter` for what nothing here honours, `InvalidRequest` for fields that contradict."""
    for name, harmless in NEUTRAL.items():
        value = getattr(body, name)
        if value is not None and value not in harmless:
            raise _unsupported(f"/{name}", f"is not supported here; leave it out{_INSTEAD.get(name, '')}")
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        raise _invalid("/max_tokens", "must not be sent together with max_completion_tokens")
    if body.stream_options is not None and not body.stream:
        raise _invalid("/stream_options", "is only allowed when stream is true")


def messages_of(body: ChatRequest) -> tuple[ChatMessage, ...]:
    """The conversation, each tool result behind the call that it answers. Raises `InvalidRequest` naming the place."""
    messages: list[ChatMessage] = []
    awaited: list[str] = []
    for index, sent in enumerate(body.messages):
        at = f"/messages/{index}"
        if sent.role == "tool":
            if sent.tool_call_id is None:
                raise _invalid(f"{at}/tool_call_id", "is required in a tool message")
            if sent.tool_call_id not in awaited:
                raise _invalid(f"{at}/tool_call_id", "answers no open tool call of the assistant message before it")
            awaited.remove(sent.tool_call_id)
        elif awaited:
            raise _invalid(at, "comes before every tool call of the assistant message has its tool message")
        message = _message(sent, at)
        awaited = awaited or [call.id for call in message.tool_calls]
        messages.append(message)
    if awaited:
        raise _invalid(f"/messages/{len(messages) - 1}", "leaves tool calls without their tool messages")
    return tuple(messages)


def _message(sent: ChatMessageBody, at: str) -> ChatMessage:
    role = Role.SYSTEM if sent.role == "developer" else Role(sent.role)
    if role is not Role.ASSISTANT:
        for name in ("tool_calls", "refusal", "annotations"):
            if getattr(sent, name) is not None:
                raise _invalid(f"{at}/{name}", "belongs into an assistant message")
    if role is not Role.TOOL and sent.tool_call_id is not None:
        raise _invalid(f"{at}/tool_call_id", "belongs into a tool message")
    calls = tuple(
        ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
        for call in sent.tool_calls or ()
    )
    content = "".join(_text(part, f"{at}/content/{place}") for place, part in enumerate(sent.content or ()))
    content = content or (sent.refusal or "")
    # A tool may well have nothing to say; a person or a system without words is a mistake.
    if not content.strip() and role is not Role.TOOL and not calls:
        raise _invalid(f"{at}/content", "must not be empty")
    return ChatMessage(role=role, content=content, tool_calls=calls, tool_call_id=sent.tool_call_id)


def _text(part: Part, at: str) -> str:
    extra = part.model_extra or {}
    if part.type == "refusal" and isinstance(extra.get("refusal"), str) and len(extra) == 1:
        return str(extra["refusal"])
    if part.type != "text":
        raise _unsupported(f"{at}/type", "must be 'text': images, audio and files are not supported here")
    if part.text is None:
        raise _invalid(f"{at}/text", "is required; add it")
    if extra:
        raise _unsupported(f"{at}/{next(iter(extra))[:64]}", "is not supported here; leave it out")
    return part.text


def _tool(tool: ToolBody, index: int) -> ToolSpec:
    function = tool.function
    if function.parameters and function.parameters.get("type") != "object":
        raise _invalid(f"/tools/{index}/function/parameters/type", "must be 'object'")
    return ToolSpec(
        name=function.name, description=function.description or "", parameters=function.parameters or _NO_ARGUMENTS
    )


def _tool_choice(body: ChatRequest, tools: Sequence[ToolSpec]) -> ToolChoice:
    chosen = body.tool_choice
    if chosen is None:
        return ToolChoice()
    if chosen.type != "function":
        if chosen.function is not None:
            raise _invalid("/tool_choice/function", "goes with type 'function' only")
        if not tools and chosen.type == "required":
            raise _invalid("/tool_choice", "is only allowed together with tools")
        return ToolChoice(mode=ToolMode(chosen.type))
    if chosen.function is None:
        raise _invalid("/tool_choice/function", "is required; add it")
    if chosen.function.name not in {tool.name for tool in tools}:
        raise _invalid("/tool_choice/function/name", "is none of the tools")
    return ToolChoice(mode=ToolMode.REQUIRED, name=chosen.function.name)


def _response_schema(body: ChatRequest) -> Mapping[str, Any] | None:
    wanted = body.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return _ANY_OBJECT
    at = "/response_format/json_schema"
    if wanted.json_schema is None:
        raise _invalid(at, "is required; add it")
    if wanted.json_schema.schema_ is None:
        raise _invalid(f"{at}/schema", "is required; add it")
    return wanted.json_schema.schema_


def _invalid(pointer: str, detail: str) -> RapportError:
    return InvalidRequest("the request is not valid").with_fields(FieldError(pointer, detail))


def _unsupported(pointer: str, detail: str) -> RapportError:
    return UnsupportedParameter("this is not supported here").with_fields(FieldError(pointer, detail))
