"""`/api/v1/sessions`: conversations that any replica can continue."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from deployments.ingress.http.injection import Caller, Here, SessionId
from deployments.ingress.http.problems import problems
from deployments.ingress.idempotency import documented, once
from deployments.ingress.schemas import CustomerId, SessionBody, SessionList, SessionRequest, Wire
from models.errors import (
    CacheUnavailable,
    FieldError,
    IdempotencyMismatch,
    InProgress,
    InvalidRequest,
    NotFound,
    UnknownAgentType,
)

router = APIRouter(tags=["Conversation"])


class SessionsOf(Wire):
    customer_id: CustomerId
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    cursor: Annotated[str, Field(pattern=r"^ses_[A-Za-z0-9]{1,64}$")] | None = None
    """`next_cursor` of the page before."""


@router.post(
    "/api/v1/sessions",
    summary="Open a session",
    status_code=201,
    response_model=SessionBody,
    responses=problems(UnknownAgentType, CacheUnavailable, InProgress, IdempotencyMismatch, body=True),
    openapi_extra=documented(required=False),
)
async def open_session(body: SessionRequest, request: Request, here: Here, caller: Caller) -> Response:
    """The session belongs to the credential that opens it. An `Idempotency-Key` is optional."""
    caller.require(body.agent_type)

    async def work() -> tuple[int, SessionBody]:
        session = await here.services.conversation.open(
            customer_id=body.customer_id, agent_type=body.agent_type, principal=caller.id, metadata=body.metadata
        )
        return 201, SessionBody.of(session)

    return await once(request, here.services.idempotency, here.background, body, work)


@router.get(
    "/api/v1/sessions",
    summary="List a customer's live sessions",
    response_model=SessionList,
    responses=problems(InvalidRequest, CacheUnavailable),
)
async def list_sessions(query: Annotated[SessionsOf, Query()], here: Here, caller: Caller) -> SessionList:
    """The caller's own sessions with that customer, newest first."""
    sessions = await here.services.conversation.of_customer(query.customer_id, principal=caller.id)
    start = 0
    if query.cursor is not None:
        ids = [session.session_id for session in sessions]
        if query.cursor not in ids:
            error = InvalidRequest("the cursor points to a session that is gone; start again without it")
            raise error.with_fields(FieldError("/query/cursor", "is not on the list any more; leave it out"))
        start = ids.index(query.cursor) + 1
    page = sessions[start : start + query.limit]
    more = start + query.limit < len(sessions)
    return SessionList(
        sessions=[SessionBody.of(session) for session in page], next_cursor=page[-1].session_id if more else None
    )


@router.get(
    "/api/v1/sessions/{session_id}",
    summary="Read a session with its turns",
    response_model=SessionBody,
    responses=problems(NotFound, InvalidRequest, CacheUnavailable),
)
async def get_session(session_id: SessionId, here: Here, caller: Caller) -> SessionBody:
    """A turn that still runs has no `outcome` yet."""
    return SessionBody.of(await here.services.conversation.get(session_id, principal=caller.id))


@router.delete(
    "/api/v1/sessions/{session_id}",
    summary="End a session",
    response_model=SessionBody,
    responses=problems(NotFound, InvalidRequest, InProgress, CacheUnavailable),
)
async def end_session(session_id: SessionId, here: Here, caller: Caller) -> SessionBody:
    """It takes no more messages and stays readable until it expires. Safe to repeat."""
    return SessionBody.of(await here.services.conversation.end(session_id, principal=caller.id))
