"""How the routes of this surface stand in the OpenAPI document."""

from __future__ import annotations

from typing import Any, Literal

from deployments.ingress.failures import OPENAI_TYPE, openai_code, openai_status
from deployments.ingress.http.problems import ALWAYS, WITH_BODY
from deployments.ingress.schemas import Wire
from models.errors import RapportError

SCHEMA = {"$ref": "#/components/schemas/OpenAIErrorBody"}


class OpenAIError(Wire):
    message: str
    type: Literal["invalid_request_error", "request_forbidden", "requests", "insufficient_quota", "server_error"]
    param: str | None
    """The first offending field, such as `messages[0].role`."""
    code: str
    """OpenAI's own where it has one, else ours in lower case."""


class OpenAIErrorBody(Wire):
    """The one shape of every failure under `/v1`; the request id is in the `X-Request-Id` header."""

    error: OpenAIError


def failures(*kinds: type[RapportError], body: bool = False) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may fail in these ways; `body` adds those of a malformed body."""
    by_status: dict[int, list[type[RapportError]]] = {}
    for kind in (*ALWAYS, *(WITH_BODY if body else ()), *kinds):
        listed = by_status.setdefault(openai_status(kind), [])
        if kind not in listed:
            listed.append(kind)
    return {
        status: {
            "description": "; ".join(f"`{openai_code(kind)}`: {kind.title}" for kind in by_status[status]),
            "content": {OPENAI_TYPE: {"schema": SCHEMA}},
        }
        for status in sorted(by_status)
    }
