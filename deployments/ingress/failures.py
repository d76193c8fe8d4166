"""Every failure as an HTTP answer: a problem document (RFC 9457), or OpenAI's error object on the paths under `/v1`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from deployments.ingress.errors import (
    MalformedBody,
    MethodNotAllowed,
    MissingParameter,
    NoSuchRoute,
    UnknownParameter,
    detail_of,
    invalid,
    log_failure,
)
from models import errors
from models.errors import InvalidRequest, RapportError, Unauthorized
from models.telemetry import request_id

PROBLEM_TYPE = "application/problem+json"
OPENAI_TYPE = "application/json"

#: Codes that OpenAI's clients know under another name; every other code is ours in lower case.
OPENAI_CODES: Mapping[str, str] = {
    errors.Unauthorized.code: "invalid_api_key",
    errors.RateLimited.code: "rate_limit_exceeded",
    errors.BudgetExhausted.code: "insufficient_quota",
    errors.UnknownModel.code: "model_not_found",
    NoSuchRoute.code: "unknown_url",
    MethodNotAllowed.code: "method_not_supported",
}
_TYPES = {403: "request_forbidden", 429: "requests"}
_INDEX = re.compile(r"\.(\d+)(?=\.|$)")
_FIELDS_NAMED = 5


def speaks_openai(path: str) -> bool:
    """Whether a path belongs to the OpenAI-compatible surface."""
    return path == "/v1" or path.startswith("/v1/")


def problem_of(error: BaseException) -> dict[str, Any]:
    """The problem document of any failure; unknown exceptions read as `INTERNAL`."""
    known = _known(error)
    document: dict[str, Any] = {
        "type": f"/docs#problem-{known.code.lower().replace('_', '-')}",
        "title": known.title,
        "status": known.status,
        "detail": detail_of(known),
        "instance": request_id.get(),
        "code": known.code,
        "errors": [{"pointer": field.pointer, "detail": field.detail} for field in known.fields],
        "retryable": known.retryable,
    }
    if (wait_s := _retry_after_s(known)) is not None:
        document["retry_after_ms"] = round(wait_s * 1000)
    return document


def openai_error_of(error: BaseException) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}` of any failure; unknown exceptions read as `internal`."""
    known = _known(error)
    status = openai_status(known)
    message, param = detail_of(known), None
    if known.fields:
        param = _param(known.fields[0].pointer) or None
        named = ((_param(field.pointer), field.detail) for field in known.fields[:_FIELDS_NAMED])
        message = "; ".join(f"{name}: {detail}" if name else detail for name, detail in named)
    kind = "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")
    code = openai_code(known)
    if code == "insufficient_quota":
        kind = code
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _param(pointer: str) -> str:
    """`/messages/0/role` as `messages[0].role`."""
    return _INDEX.sub(r"[\1]", pointer.lstrip("/").replace("/", "."))


def openai_code(error: RapportError | type[RapportError]) -> str:
    """OpenAI's own code where it has one, else ours in lower case."""
    return OPENAI_CODES.get(error.code, error.code.lower())


def openai_status(error: RapportError | type[RapportError]) -> int:
    """OpenAI answers 400 to what we call unprocessable; its client knows no other class for it."""
    return 400 if error.status == 422 else error.status


def failure_response(error: BaseException, path: str, headers: Mapping[str, str] | None = None) -> Response:
    """The failure in the shape that callers of this path understand, with the headers its status asks for."""
    known = _known(error)
    sent = dict(headers or {})
    if (wait_s := _retry_after_s(known)) is not None:
        sent["Retry-After"] = str(max(1, math.ceil(wait_s)))
    if isinstance(error, Unauthorized):
        sent["WWW-Authenticate"] = 'Bearer realm="rapport"'
    if not speaks_openai(path):
        return Response(orjson.dumps(problem_of(error)), known.status, sent, PROBLEM_TYPE)
    # OpenAI's client repeats every 409, 429 and 5xx on its own unless it is told what is worth repeating.
    sent.setdefault("X-Should-Retry", "true" if known.retryable else "false")
    return Response(orjson.dumps(openai_error_of(error)), openai_status(known), sent, OPENAI_TYPE)


def _known(error: BaseException) -> RapportError:
    return error if isinstance(error, RapportError) else RapportError()


def _retry_after_s(error: RapportError) -> float | None:
    if error.retry_after_s is None and error.retryable and error.status in (429, 503):
        return 1.0
    return error.retry_after_s


def install(app: Starlette) -> None:
    """Answer every failure inside the application's routes in the shape of its path."""
    app.add_exception_handler(RapportError, _on_known)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_defect)


async def _on_known(request: Request, error: Exception) -> Response:
    log_failure(error)
    # A turn that had begun may have had its effects, whatever ended it.
    headers = {"X-Should-Retry": "false"} if getattr(request.state, "has_begun", False) else None
    return failure_response(error, request.scope["path"], headers)


async def _on_defect(request: Request, error: Exception) -> Response:
    # Starlette raises it again, and the envelope writes it down.
    return failure_response(error, request.scope["path"])


async def _on_validation(request: Request, error: Any) -> Response:
    path, found = request.scope["path"], error.errors()
    kind = InvalidRequest
    if speaks_openai(path):
        by_type = {"extra_forbidden": UnknownParameter, "missing": MissingParameter}
        kind = by_type.get(found[0]["type"], InvalidRequest)
    return failure_response(invalid(found, kind=kind), path)


async def _on_http(request: Request, error: Any) -> Response:
    path = request.scope["path"]
    if error.status_code == 404:
        return failure_response(NoSuchRoute("no route has this path; see /docs"), path)
    if error.status_code == 405:
        allowed = ", ".join(sorted(_methods_of(request)))
        return failure_response(MethodNotAllowed(f"use one of: {allowed}"), path, {"Allow": allowed})
    if error.status_code < 500:
        return failure_response(MalformedBody("the body could not be read as JSON"), path)
    log_failure(error)
    return failure_response(error, path)


def _methods_of(request: Request) -> Iterable[str]:
    """Methods of every route with this path; Starlette itself reports only those of the first."""
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            yield from getattr(route, "methods", None) or ()
