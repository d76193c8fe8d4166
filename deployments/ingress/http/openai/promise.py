"""Whether a finished reply is what its request was promised: JSON that fits, arguments that parse."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from deployments.ingress.http.openai.chat_request import ChatRequest
from deployments.ingress.http.openai.json_schema import fits
from models.errors import ModelReplyBroken
from models.llm.types import FinishReason, LanguageModelReply, LanguageModelRequest
from models.resilience.deadline import Deadline


async def check_reply(
    reply: LanguageModelReply, body: ChatRequest, request: LanguageModelRequest, deadline: Deadline
) -> None:
    """Raises `ModelReplyBroken` when a reply is not what was asked for, and `DeadlineExceeded`.

    A reply that was cut off at `max_tokens` says so by itself and passes.
    """
    if reply.finish_reason is FinishReason.LENGTH:
        return
    strict: Mapping[str, bool] = {tool.function.name: bool(tool.function.strict) for tool in body.tools or ()}
    schemas = {tool.name: tool.parameters for tool in request.tools}
    for call in reply.tool_calls:
        if not _is_object(call.arguments):
            raise ModelReplyBroken("the arguments of a tool call are no JSON object")
        if strict.get(call.name) and not await fits(call.arguments, schemas[call.name], deadline):
            raise ModelReplyBroken("the arguments of a tool call do not fit their schema")
    wanted = body.response_format
    if reply.tool_calls or wanted is None or request.response_schema is None:
        return
    if wanted.type == "json_object" and not _is_object(reply.text):
        raise ModelReplyBroken("the reply is no JSON object")
    if request.strict and not await fits(reply.text, request.response_schema, deadline):
        raise ModelReplyBroken("the reply does not fit the schema")


def _is_object(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False
