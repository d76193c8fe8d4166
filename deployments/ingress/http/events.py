"""`POST /api/v1/events`: what happened to customers elsewhere."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from deployments.ingress.event_schemas import EventsAccepted, EventsRequest
from deployments.ingress.http.injection import Caller, Here
from deployments.ingress.http.problems import problems
from deployments.ingress.idempotency import documented, once
from models.clock import utc_now
from models.errors import DatabaseUnavailable, IdempotencyMismatch, InProgress

router = APIRouter(tags=["Context"])


@router.post(
    "/api/v1/events",
    summary="Tell what happened to customers",
    status_code=202,
    response_model=EventsAccepted,
    responses=problems(DatabaseUnavailable, InProgress, IdempotencyMismatch, body=True),
    openapi_extra=documented(required=False),
)
async def post_events(body: EventsRequest, request: Request, here: Here, caller: Caller) -> Response:
    """For any credential that covers at least one agent type; 1 to 500 events, all accepted or none. What they report
    is kept before the answer, and within a second no read shows what they have made outdated. An event whose
    `event_id` was received within the last week changes nothing and counts as a duplicate.
    """
    caller.require_any()

    async def work() -> tuple[int, EventsAccepted]:
        now = utc_now()
        accepted = await here.services.context.accept([event.event(now) for event in body.events])
        return 202, EventsAccepted.of(accepted)

    return await once(request, here.services.idempotency, here.background, body, work)
