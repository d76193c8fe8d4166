"""`POST /api/v1/sessions/{id}/messages`: one turn, waited for or not."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from deployments.ingress.http.injection import Caller, Here, SessionId
from deployments.ingress.http.problems import problems
from deployments.ingress.idempotency import HEADER
from deployments.ingress.schemas import MessageAccepted, MessageReply, MessageRequest, Wire
from models.errors import (
    CacheUnavailable,
    Conflict,
    DeadlineExceeded,
    FieldError,
    IdempotencyMismatch,
    InProgress,
    ModelUnavailable,
    NotFound,
)
from models.ids import new_id
from models.resilience.deadline import Deadline
from models.sessions.types import Session, SessionStatus, Turn
from models.telemetry import request_id

router = APIRouter(tags=["Conversation"])


class Waiting(Wire):
    wait: bool = False
    """Answer with the whole reply instead of 202."""


@router.post(
    "/api/v1/sessions/{session_id}/messages",
    summary="Send a message",
    response_model=MessageReply,
    responses={
        202: {"model": MessageAccepted, "description": "Accepted; the turn runs and shows up in the session"},
        **problems(
            NotFound,
            Conflict,
            InProgress,
            IdempotencyMismatch,
            ModelUnavailable,
            CacheUnavailable,
            DeadlineExceeded,
            body=True,
        ),
    },
)
async def send_message(
    session_id: SessionId,
    body: MessageRequest,
    query: Annotated[Waiting, Query()],
    here: Here,
    caller: Caller,
    key: Annotated[str | None, Header(alias=HEADER, min_length=1, max_length=128)] = None,
) -> Response:
    """With `wait=true` the reply itself, otherwise 202 with the turn's id. A disconnect never cancels a turn; send the
    same `client_message_id` again to get its reply. An `Idempotency-Key` header stands in for a missing one."""
    body = body.model_copy(update={"client_message_id": body.client_message_id or key})

    async def turn(turn_id: str | None = None) -> Turn:
        return await here.services.conversation.turn(
            session_id,
            body.text,
            principal=caller.id,
            client_message_id=body.client_message_id,
            request_id=request_id.get(),
            deadline=Deadline.after(here.settings.sessions.turn_timeout_s),
            turn_id=turn_id,
        )

    if query.wait:
        finished = await here.background.run(turn())
        return Response(MessageReply.of(finished).model_dump_json(), media_type="application/json")

    # Read first: what cannot become a turn is refused now, while the client listens.
    session = await here.services.conversation.get(session_id, principal=caller.id)
    if session.status is SessionStatus.ENDED:
        raise Conflict("this session has ended; open a new one")
    earlier = _earlier(session, body)
    turn_id = earlier.turn_id if earlier else new_id("turn")
    if earlier is None or earlier.outcome is None:
        here.background.start(turn(turn_id))
    accepted = MessageAccepted(turn_id=turn_id, session_id=session_id)
    headers = {"Location": f"/api/v1/sessions/{session_id}"}
    return Response(accepted.model_dump_json(), 202, headers, "application/json")


def _earlier(session: Session, body: MessageRequest) -> Turn | None:
    """The turn that this message already has. Raises `IdempotencyMismatch` when its text was another one."""
    if body.client_message_id is None:
        return None
    for turn in session.turns:
        if turn.client_message_id == body.client_message_id:
            if turn.text != body.text:
                error = IdempotencyMismatch("this client_message_id was used before with another text")
                raise error.with_fields(FieldError("/client_message_id", "is taken; choose a new one"))
            return turn
    return None
