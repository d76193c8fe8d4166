"""Problem responses in the OpenAPI document: what each route may answer besides its own status."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deployments.ingress import errors as http_errors
from deployments.ingress.failures import PROBLEM_TYPE
from models import errors

SCHEMA = {"$ref": "#/components/schemas/ProblemBody"}

#: What the middleware may answer before any route is reached.
ALWAYS: tuple[type[errors.RapportError], ...] = (
    errors.Unauthorized,
    errors.Forbidden,
    errors.RateLimited,
    errors.Internal,
    errors.Overloaded,
)
WITH_BODY: tuple[type[errors.RapportError], ...] = (
    http_errors.MalformedBody,
    http_errors.BodyTooLarge,
    http_errors.UnsupportedMediaType,
    errors.InvalidRequest,
)


def problems(*kinds: type[errors.RapportError], body: bool = False) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may fail in these ways; `body` adds those of a malformed body."""
    by_status: dict[int, list[type[errors.RapportError]]] = {}
    for kind in (*ALWAYS, *(WITH_BODY if body else ()), *kinds):
        listed = by_status.setdefault(kind.status, [])
        if kind not in listed:
            listed.append(kind)
    return {
        status: {
            "description": "; ".join(f"`{kind.code}`: {kind.title}" for kind in by_status[status]),
            "content": {PROBLEM_TYPE: {"schema": SCHEMA}},
        }
        for status in sorted(by_status)
    }


def catalogue() -> list[dict[str, Any]]:
    """Every code a client can meet, with its status and title."""
    kinds = sorted({kind.code: kind for kind in _tree(errors.RapportError)}.values(), key=lambda kind: kind.code)
    return [
        {
            "code": kind.code,
            "status": kind.status,
            "title": kind.title,
            "retryable": kind.retryable,
            "meaning": (kind.__doc__ or "").strip().partition("\n")[0],
        }
        for kind in kinds
    ]


def _tree(kind: type[errors.RapportError]) -> Iterator[type[errors.RapportError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)
