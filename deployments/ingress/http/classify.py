"""`POST /api/v1/classify`: what a message is about, and what happens next."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request, Response

from deployments.ingress.http.injection import Caller, Here
from deployments.ingress.http.problems import problems
from deployments.ingress.idempotency import documented, once
from deployments.ingress.schemas import ClassifyRequest, ClassifyResponse
from models.errors import (
    DatabaseUnavailable,
    DeadlineExceeded,
    IdempotencyMismatch,
    InProgress,
    ModelUnavailable,
)
from models.resilience.deadline import Deadline
from models.telemetry import request_id
from models.workflows.types import InboundMessage

router = APIRouter(tags=["Classification"])


@router.post(
    "/api/v1/classify",
    summary="Classify a message and run its workflow",
    response_model=ClassifyResponse,
    responses=problems(
        DatabaseUnavailable, ModelUnavailable, DeadlineExceeded, InProgress, IdempotencyMismatch, body=True
    ),
    openapi_extra=documented(required=False),
)
async def classify(body: ClassifyRequest, request: Request, here: Here, caller: Caller) -> Response:
    """Informational messages are answered with citations, service actions are prepared but not executed, and safety
    reports are recorded before the reply, also when the client goes away. An `Idempotency-Key` is optional."""

    async def work() -> tuple[int, ClassifyResponse]:
        return 200, await _classify(body, here)

    return await once(request, here.services.idempotency, here.background, body, work)


async def _classify(body: ClassifyRequest, here: Here) -> ClassifyResponse:
    message = InboundMessage(
        text=body.message,
        channel=body.channel,
        customer_id=body.customer_id,
        request_id=request_id.get(),
        metadata=body.metadata,
    )
    started = time.perf_counter()
    deadline = Deadline.after(here.settings.ingress.request_timeout_s)
    result = await here.services.router.route(message, deadline=deadline)
    elapsed_ms = (time.perf_counter() - started) * 1000
    return ClassifyResponse.of(result, processing_time_ms=elapsed_ms, request_id=message.request_id)
