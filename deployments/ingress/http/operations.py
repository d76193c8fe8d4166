"""Operations: is the process alive, is the service ready, what does it measure, how is it used."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from deployments.ingress.http.injection import Here
from deployments.ingress.http.page import DOCS, LANDING
from deployments.ingress.schemas import HealthBody, ReadyBody

router = APIRouter(tags=["Operations"])

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LINKS = {"name": "Rapport", "docs": "/docs", "openapi": "/openapi.json", "ready": "/ready", "metrics": "/metrics"}


@router.get("/health", summary="Is this process alive?")
async def health() -> HealthBody:
    """Asks nothing else of anything."""
    return HealthBody(status="ok")


@router.get(
    "/ready",
    summary="Can this service do its work?",
    response_model=ReadyBody,
    responses={503: {"model": ReadyBody, "description": "A critical dependency is down"}},
)
async def ready(here: Here) -> Response:
    """Every dependency by name; 503 only when a critical one is down."""
    body = ReadyBody.of(list(await here.services.readiness.check()))
    return Response(body.model_dump_json(), 503 if body.status == "not_ready" else 200, media_type="application/json")


@router.get(
    "/metrics",
    summary="Metrics of all replicas and nodes",
    response_class=Response,
    responses={
        200: {"description": "Prometheus text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
)
async def metrics(here: Here) -> Response:
    """Totals never fall when a replica dies."""
    return Response(await here.services.metrics_page.render(), headers={"Content-Type": METRICS_TYPE})


@router.get("/openapi.json", include_in_schema=False)
async def openapi(here: Here) -> Response:
    return Response(here.openapi(), media_type="application/json")


@router.get("/docs", include_in_schema=False)
async def docs() -> Response:
    return DOCS.response()


@router.get("/", include_in_schema=False, response_model=None)
async def landing(request: Request) -> Response | dict[str, str]:
    return LANDING.response() if "text/html" in request.headers.get("accept", "") else _LINKS
