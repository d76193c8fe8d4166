"""`POST /v1/chat/completions`: one engine, or the whole assistant, in OpenAI's words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace

from fastapi import APIRouter, Depends, Request, Response

from deployments.ingress.errors import log_failure
from deployments.ingress.http.injection import Caller, Here, Replica, refuse_query
from deployments.ingress.http.openai import assistant
from deployments.ingress.http.openai.catalogue import ASSISTANT, check_engine
from deployments.ingress.http.openai.chat_reply import ChatCompletion, Heading, RapportDetails
from deployments.ingress.http.openai.chat_request import ChatRequest
from deployments.ingress.http.openai.chunks import DONE, ChatCompletionChunk, ChunkEncoder, failure_event
from deployments.ingress.http.openai.documented import failures
from deployments.ingress.http.openai.generation import generation_of, schemas_of
from deployments.ingress.http.openai.json_schema import InvalidSchema, check
from deployments.ingress.http.openai.promise import check_reply
from deployments.ingress.http.openai.streaming import EventStream, Generations, while_connected
from deployments.ingress.idempotency import documented
from models.errors import (
    BudgetExhausted,
    ContextLengthExceeded,
    DatabaseUnavailable,
    DeadlineExceeded,
    IdempotencyMismatch,
    InProgress,
    ModelAccessDenied,
    ModelRefused,
    ModelReplyBroken,
    ModelUnavailable,
    UnknownModel,
    UnsupportedByModel,
)
from models.ids import new_id
from models.llm.types import Delta, LanguageModelReply, LanguageModelRequest
from models.resilience.deadline import Deadline
from models.telemetry import request_id

router = APIRouter(tags=["OpenAI"], dependencies=[Depends(refuse_query)])

_CHUNK = {"$ref": f"#/components/schemas/{ChatCompletionChunk.__name__}"}


@router.post(
    "/v1/chat/completions",
    summary="Complete a chat",
    response_model=ChatCompletion,
    responses={
        200: {"description": "The completion, or its chunks", "content": {"text/event-stream": {"schema": _CHUNK}}},
        **failures(
            UnknownModel,
            InvalidSchema,
            ContextLengthExceeded,
            UnsupportedByModel,
            ModelRefused,
            BudgetExhausted,
            ModelUnavailable,
            ModelAccessDenied,
            ModelReplyBroken,
            DatabaseUnavailable,
            DeadlineExceeded,
            InProgress,
            IdempotencyMismatch,
            body=True,
        ),
    },
    openapi_extra=documented(required=False),
)
async def create_chat_completion(body: ChatRequest, request: Request, here: Here, caller: Caller) -> Response:
    """An engine answers alone, without fallbacks, and stops working when the client goes away. It has
    `language_model.timeout_s`, and `stream_timeout_s` for a whole stream, after which the stream ends with an error.

    The model `rapport` answers as in a conversation; its turn has effects, so it ends even when the client does not
    wait for it. An `Idempotency-Key` makes its repetition safe, streamed or not; an engine has no effects and needs
    none."""
    heading = Heading(id=new_id("chatcmpl"), created=int(time.time()), model=body.model, request_id=request_id.get())
    if body.model == ASSISTANT:
        return await assistant.complete(body, heading, request, here, caller)
    check_engine(body.model, here.settings)
    asked = generation_of(body, default_max_tokens=here.settings.language_model.max_tokens)
    asked = replace(asked, metadata={"request_id": heading.request_id})
    limits = here.settings.language_model
    deadline = Deadline.after(limits.stream_timeout_s if body.stream else limits.timeout_s)
    await check(schemas_of(body), deadline)
    choices = [_choice(asked, index) for index in range(body.choices)]
    if body.stream:
        return await _stream(body, heading, choices, here, request, deadline)
    replies = await while_connected(request.receive, _generate(choices, here, deadline))
    for reply in replies:
        await check_reply(reply, body, asked, deadline)
    if body.parallel_tool_calls is False:
        replies = [replace(reply, tool_calls=reply.tool_calls[:1]) for reply in replies]
    return Response(ChatCompletion.of(heading, replies).encoded(), media_type="application/json")


def _choice(asked: LanguageModelRequest, index: int) -> LanguageModelRequest:
    """The same request; a given seed moves on by one, so that the choices differ and still can be repeated."""
    return asked if asked.seed is None else replace(asked, seed=asked.seed + index)


async def _generate(choices: list[LanguageModelRequest], here: Replica, deadline: Deadline) -> list[LanguageModelReply]:
    """All choices side by side; the failure of one cancels the others."""
    model = here.services.language_model
    if len(choices) == 1:
        return [await model.generate(choices[0], deadline=deadline)]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(model.generate(choice, deadline=deadline)) for choice in choices]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


async def _stream(
    body: ChatRequest,
    heading: Heading,
    choices: list[LanguageModelRequest],
    here: Replica,
    request: Request,
    deadline: Deadline,
) -> Response:
    """The stream, once its first piece is there: what fails before is still an answer with a status of its own."""
    model = here.services.language_model
    generations = Generations([model.stream(choice, deadline=deadline) for choice in choices])
    try:
        first = await while_connected(request.receive, generations.next())
    except BaseException:
        await generations.aclose()
        raise
    events = _events(body, heading, first, generations, lambda reply: check_reply(reply, body, choices[0], deadline))
    return EventStream(events, close=generations.aclose)


async def _events(
    body: ChatRequest,
    heading: Heading,
    first: list[tuple[int, Delta]],
    generations: Generations,
    check_whole: Callable[[LanguageModelReply], Awaitable[None]],
) -> AsyncGenerator[bytes, None]:
    """Pieces that arrived together travel together. A failure half way is the last event, without `[DONE]`."""
    encoder = ChunkEncoder(heading, include_usage=body.wants_usage_chunk)
    replies: dict[int, LanguageModelReply] = {}
    arrived = first
    try:
        while arrived:
            events = []
            for index, delta in arrived:
                if delta.text:
                    events.append(encoder.text(index, delta.text))
                if delta.reply is not None:
                    await check_whole(delta.reply)
                    replies[index] = delta.reply
                    is_last = len(replies) == body.choices
                    details = RapportDetails.of(_in_order(replies), heading.request_id) if is_last else None
                    single_call = body.parallel_tool_calls is False
                    events.append(encoder.finish(index, delta.reply, single_call=single_call, details=details))
            yield b"".join(events)
            arrived = await generations.next()
    except Exception as error:
        log_failure(error)
        yield failure_event(error)
        return
    yield encoder.usage([reply.usage for reply in _in_order(replies)]) + DONE


def _in_order(replies: dict[int, LanguageModelReply]) -> list[LanguageModelReply]:
    return [replies[index] for index in sorted(replies)]
