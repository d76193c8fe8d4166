"""Context of many customers in one call, and forgetting it.

These routes stand in the main application, whose prefix they share, and reach the caches over a handle.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from deployments.ingress.context_schemas import (
    ContextReadRequest,
    Invalidated,
    InvalidateRequest,
    InvalidateResponse,
)
from deployments.ingress.http.injection import Caller, Here
from deployments.ingress.http.problems import problems
from deployments.ingress.idempotency import documented, once
from models.errors import (
    CacheUnavailable,
    ContextEnrichmentError,
    DatabaseUnavailable,
    DeadlineExceeded,
    IdempotencyMismatch,
    InProgress,
    UnknownAgentType,
)

router = APIRouter(tags=["Context"])


@router.post(
    "/api/v1/context:read",
    summary="Read the context of many customers",
    response_class=Response,
    responses={
        200: {
            "description": "The contexts in the order asked for, and who is no customer",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ContextsBody"}}},
        },
        **problems(UnknownAgentType, DeadlineExceeded, ContextEnrichmentError, body=True),
    },
)
async def read_contexts(body: ContextReadRequest, here: Here, caller: Caller) -> Response:
    """Up to 1,000 customers within `deadline_ms`, 2,000 unless given and 5,000 at most. A partial answer is a 200 that
    says so: each context names its providers' states, and `complete` tells whether all of them answered for everyone.
    """
    caller.require(body.agent_type)
    contexts = await here.services.context.read_many(body.unique_ids(), body.request())
    return Response(contexts, media_type="application/json")


@router.post(
    "/api/v1/context:invalidate",
    summary="Forget cached context",
    response_model=InvalidateResponse,
    responses=problems(CacheUnavailable, DatabaseUnavailable, InProgress, IdempotencyMismatch, body=True),
    openapi_extra=documented(required=False),
)
async def invalidate_context(body: InvalidateRequest, request: Request, here: Here, caller: Caller) -> Response:
    """For any credential that covers at least one agent type. 200 once the shared cache has been told and every replica
    is being told, which takes less than a second. A 503 means that not every cache could be told yet; it is tried again
    until it succeeds, so that repeating the call is possible and not needed.
    """
    caller.require_any()

    async def work() -> tuple[int, InvalidateResponse]:
        customer_ids, tags = list(dict.fromkeys(body.customer_ids)), list(dict.fromkeys(body.tags))
        await here.services.context.invalidate(customer_ids, tags)
        told = Invalidated(customers=len(customer_ids), tags=len(tags))
        return 200, InvalidateResponse(invalidated=told)

    return await once(request, here.services.idempotency, here.background, body, work)
