"""The model `rapport`: the whole assistant behind a chat completion, without a session of its own.

The last user message is the turn, what came before it the history, system messages are the caller's instructions.
Context, knowledge and safety are those of a conversation. Sampling parameters have no say in that and are passed over.
A turn has effects: it is done once for each `Idempotency-Key`, and its failure asks no client to repeat it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator

from fastapi import Request, Response

from deployments.ingress.auth import Principal
from deployments.ingress.errors import UnsupportedParameter
from deployments.ingress.http.injection import Replica
from deployments.ingress.http.openai.chat_reply import (
    ChatCompletion,
    Heading,
)
from deployments.ingress.http.openai.chat_request import ChatRequest
from deployments.ingress.http.openai.chunks import DONE, ChunkEncoder
from deployments.ingress.http.openai.generation import check_supported, messages_of
from deployments.ingress.http.openai.streaming import EventStream
from deployments.ingress.idempotency import REPLAYED, once
from deployments.ingress.schemas import CUSTOMER_ID_PATTERN
from models.errors import FieldError, InvalidRequest
from models.llm.types import Usage
from models.resilience.deadline import Deadline

_CUSTOMER_ID = re.compile(CUSTOMER_ID_PATTERN.rstrip("$") + r"\Z")
_SENTENCE = re.compile(r".+?(?:[.!?…]\s+|\n+|\Z)", re.DOTALL)


async def complete(body: ChatRequest, heading: Heading, request: Request, here: Replica, caller: Principal) -> Response:
    """Raises `InvalidRequest`, `Forbidden` (agent type), as a turn does, and as `once`."""
    _check(body)
    agent_type = agent_type_of(body, caller)
    messages = messages_of(body)

    async def work() -> tuple[int, bytes]:
        request.state.has_begun = True
        turn = await here.services.conversation.complete(
            messages,
            customer_id=body.user,
            agent_type=agent_type,
            principal=caller.id,
            request_id=heading.request_id,
            deadline=Deadline.after(here.settings.sessions.turn_timeout_s),
        )
        return 200, ChatCompletion.of_turn(heading, turn).encoded()

    response = await once(request, here.services.idempotency, here.background, body, work)
    if not body.stream:
        return response
    # What is remembered is the whole reply, so a stream is made of that, the first time too.
    completion = ChatCompletion.model_validate_json(bytes(response.body))
    stream = EventStream(_events(completion, include_usage=body.wants_usage_chunk))
    if (replayed := response.headers.get(REPLAYED)) is not None:
        stream.headers[REPLAYED] = replayed
    return stream


def agent_type_of(body: ChatRequest, caller: Principal) -> str | None:
    """Whose view of the customer is taken: the one named, else the credential's only one, else the most masked.

    Raises `Forbidden` for one outside the credential.
    """
    named = (body.metadata or {}).get("agent_type")
    if named is not None:
        caller.require(named)
        return named
    own = caller.agent_types or frozenset()
    return next(iter(own)) if len(own) == 1 else None


def _check(body: ChatRequest) -> None:
    check_supported(body)
    unsupported = {
        "tools": bool(body.tools),
        "tool_choice": body.tool_choice is not None and body.tool_choice.type != "none",
        "response_format": body.response_format is not None and body.response_format.type != "text",
        "n": body.choices > 1,
        "stop": bool(body.stop),
    }
    for name, is_asked in unsupported.items():
        if is_asked:
            error = UnsupportedParameter("the model rapport does not support this")
            raise error.with_fields(FieldError(f"/{name}", "is not supported by the model rapport; ask an engine"))
    for index, message in enumerate(body.messages):
        if message.role == "tool" or message.tool_calls:
            error = UnsupportedParameter("the model rapport does not support this")
            raise error.with_fields(FieldError(f"/messages/{index}", "is about tools, which rapport does not take"))
    if body.messages[-1].role != "user":
        place = f"/messages/{len(body.messages) - 1}/role"
        raise InvalidRequest("").with_fields(FieldError(place, "must be 'user': the last message is what is answered"))
    if body.user is not None and not _CUSTOMER_ID.match(body.user):
        detail = f"names the customer and must match {CUSTOMER_ID_PATTERN}"
        raise InvalidRequest("").with_fields(FieldError("/user", detail))


async def _events(completion: ChatCompletion, *, include_usage: bool) -> AsyncGenerator[bytes, None]:
    """The checked reply in sentences: nothing leaves before the whole of it has passed moderation."""
    details, (choice,) = completion.rapport, completion.choices
    heading = Heading(
        id=completion.id, created=completion.created, model=completion.model, request_id=details.request_id
    )
    encoder = ChunkEncoder(heading, include_usage=include_usage)
    for sentence in _SENTENCE.findall(choice.message.content or ""):
        yield encoder.text(0, sentence)
    delta = {"annotations": [annotation.model_dump() for annotation in choice.message.annotations or ()]}
    yield encoder.end(0, delta, choice.finish_reason, details)
    used = completion.usage
    usage = Usage(prompt_tokens=used.prompt_tokens, completion_tokens=used.completion_tokens)
    yield encoder.usage([usage]) + DONE
