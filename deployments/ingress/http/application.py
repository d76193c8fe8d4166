"""Builds the two applications, inside the replica that serves them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache

import orjson
from fastapi import FastAPI
from starlette.applications import Starlette

from deployments.ingress.background import Background
from deployments.ingress.failures import install
from deployments.ingress.http import campaigns, classify, context_bulk, events, messages, operations, sessions
from deployments.ingress.http.context import ContextRoutes
from deployments.ingress.http.context_history import HistoryRoutes
from deployments.ingress.http.injection import Replica
from deployments.ingress.http.openai import catalogue, chat, embeddings, moderations
from deployments.ingress.http.openapi import describe
from deployments.ingress.middleware import Envelope, stack
from deployments.ingress.services import ApiServices, ContextServices
from models.settings import Settings

ROUTERS = (
    classify.router,
    context_bulk.router,
    events.router,
    sessions.router,
    messages.router,
    campaigns.router,
    chat.router,
    embeddings.router,
    moderations.router,
    catalogue.router,
    operations.router,
)


def build_api(services: ApiServices, settings: Settings, *, echo_request_id: bool = True) -> Envelope:
    """The main application, for the route prefix `/`. At shutdown it lets running turns end."""
    background = Background(limit=settings.ingress.max_concurrent)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await background.drain(settings.sessions.turn_timeout_s)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    for router in ROUTERS:
        # Operation ids become method names in generated clients.
        app.include_router(router, generate_unique_id_function=lambda route: route.name)
    install(app)
    app.state.replica = Replica(
        services=services,
        settings=settings,
        background=background,
        openapi=cache(lambda: orjson.dumps(describe(app, settings))),
    )
    return stack(
        app,
        settings.ingress,
        rate_limiter=services.rate_limiter,
        metrics=services.metrics,
        echo_request_id=echo_request_id,
    )


def build_context_api(services: ContextServices, settings: Settings, *, echo_request_id: bool = True) -> Envelope:
    """The context application, for the route prefix `/api/v1/customers`; its document is part of the main one."""
    reads = ContextRoutes(services.reader, settings.context.deadline_ms)
    app = Starlette(routes=[*reads.routes(), *HistoryRoutes(services.history).routes()])
    app.router.redirect_slashes = False
    install(app)
    return stack(
        app,
        settings.ingress,
        rate_limiter=services.rate_limiter,
        metrics=services.metrics,
        echo_request_id=echo_request_id,
    )
