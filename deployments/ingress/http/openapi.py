"""The OpenAPI document of both applications in one, complete enough to generate a client from."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from deployments.ingress.http import openapi_context
from deployments.ingress.http.openai.chunks import ChatCompletionChunk
from deployments.ingress.http.openai.documented import OpenAIErrorBody
from deployments.ingress.http.openapi_context import REFERENCE
from deployments.ingress.http.problems import catalogue
from deployments.ingress.schemas import ProblemBody
from models.settings import Settings

OPEN_TAG = "Operations"
OPENAI_TAG = "OpenAI"
TAGS = ("Classification", "Context", "Conversation", "Campaigns", OPENAI_TAG, OPEN_TAG)

DESCRIPTION = """\
Answers customers with everything known about them. Failures are `application/problem+json` with a stable `code`;
`instance` is the request id, which every answer also carries as `X-Request-Id`. Under `/v1` requests, replies and
failures are those of OpenAI's API. Unknown fields and parameters are refused. Credentials go into
`Authorization: Bearer KEY`; while no key is configured, callers on the same machine need none."""


def describe(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """The document for the routes of the main application and those of the context application."""
    document = get_openapi(
        title="Rapport",
        version=_version(),
        summary="Contact centre, customer context, support chat and campaigns on one Ray cluster",
        description=DESCRIPTION,
        routes=app.routes,
        servers=[{"url": f"http://{settings.ingress.host}:{settings.ingress.port}"}],
        tags=[{"name": name} for name in TAGS],
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for model in (ProblemBody, OpenAIErrorBody, ChatCompletionChunk):
        schemas[model.__name__] = model.model_json_schema(ref_template=REFERENCE)
        schemas.update(schemas[model.__name__].pop("$defs", {}))
    schemas.update(openapi_context.schemas())
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["paths"].update(openapi_context.paths())
    for operations in document["paths"].values():
        for operation in operations.values():
            # An empty requirement beside the key: anonymous calls are possible while no key is configured.
            operation["security"] = [] if OPEN_TAG in operation["tags"] else [{"key": []}, {}]
            if OPENAI_TAG in operation["tags"]:
                operation["responses"].pop("422", None)  # FastAPI's own; OpenAI's clients know only 400
            for status, response in operation["responses"].items():
                headers = response.setdefault("headers", {})
                headers["X-Request-Id"] = {"schema": {"type": "string"}, "description": "As sent, or made by us."}
                if status in ("429", "503"):
                    headers["Retry-After"] = {"schema": {"type": "integer"}, "description": "Seconds."}
    document["x-problems"] = catalogue()
    return document


def _version() -> str:
    try:
        return version("rapport")
    except PackageNotFoundError:
        return "0.1.0"
