"""`/api/v1/campaigns`: start a batch job, see how far it is, read its report."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from deployments.ingress.auth import Principal
from deployments.ingress.errors import MissingIdempotencyKey
from deployments.ingress.http.injection import Caller, CampaignId, Here
from deployments.ingress.http.problems import problems
from deployments.ingress.idempotency import documented, once
from deployments.ingress.schemas import CampaignBody, CampaignRequest, Wire
from models.errors import (
    Conflict,
    DatabaseUnavailable,
    Forbidden,
    IdempotencyMismatch,
    InProgress,
    InvalidRequest,
    NotFound,
)
from models.telemetry import request_id
from providers.systems.campaigns import CampaignRun

router = APIRouter(tags=["Campaigns"])

#: A report may show its own plots and styles, and nothing else: no script, no other host.
_REPORT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'"


class ReportForm(Wire):
    format: Literal["json", "html"] | None = None
    """Without it the `Accept` header decides, and JSON is the default."""


@router.post(
    "/api/v1/campaigns",
    summary="Start a campaign",
    status_code=202,
    response_model=CampaignBody,
    responses=problems(MissingIdempotencyKey, InProgress, IdempotencyMismatch, DatabaseUnavailable, body=True),
    openapi_extra=documented(required=True),
)
async def start_campaign(body: CampaignRequest, request: Request, here: Here, caller: Caller) -> Response:
    """Runs on the same cluster as a batch job; engagement is simulated and marked so."""

    async def work() -> tuple[int, CampaignBody]:
        run = await here.services.campaigns.start(body.model_dump(), owner=caller.id, request_id=request_id.get())
        return 202, CampaignBody.of(run)

    return await once(request, here.services.idempotency, here.background, body, work, required=True)


@router.get(
    "/api/v1/campaigns/{campaign_id}",
    summary="See how far a campaign is",
    response_model=CampaignBody,
    responses=problems(NotFound, InvalidRequest, DatabaseUnavailable),
)
async def get_campaign(campaign_id: CampaignId, here: Here, caller: Caller) -> CampaignBody:
    """A failed campaign says why in `error`."""
    return CampaignBody.of(_owned(await here.services.campaigns.get(campaign_id), caller))


@router.get(
    "/api/v1/campaigns/{campaign_id}/report",
    summary="Read a campaign's report",
    response_class=Response,
    responses={
        200: {
            "description": "The report",
            "content": {
                "application/json": {"schema": {"type": "object"}},
                "text/html": {"schema": {"type": "string"}},
            },
        },
        **problems(NotFound, Conflict, InvalidRequest, DatabaseUnavailable),
    },
)
async def get_report(
    campaign_id: CampaignId, query: Annotated[ReportForm, Query()], request: Request, here: Here, caller: Caller
) -> Response:
    """JSON, or HTML with plots. 409 while the campaign still runs."""
    _owned(await here.services.campaigns.get(campaign_id), caller)
    report = await here.services.campaigns.report(campaign_id)
    wanted = query.format or ("html" if "text/html" in request.headers.get("accept", "") else "json")
    if wanted == "html":
        headers = {"Content-Security-Policy": _REPORT_POLICY, "Vary": "Accept"}
        return Response(report.html, headers=headers, media_type="text/html; charset=utf-8")
    return Response(report.json, headers={"Vary": "Accept"}, media_type="application/json")


def _owned(run: CampaignRun, caller: Principal) -> CampaignRun:
    if run.owner != caller.id:
        raise Forbidden("this campaign belongs to another credential")
    return run
