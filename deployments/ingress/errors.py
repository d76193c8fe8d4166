"""Every failure as a problem document (RFC 9457); the only place that decides what a client may read of it.

The document's `code`, `status` and `title` come from the error's class, its `detail` from the message only where that
class marks its messages as public. Anything without a class of its own is `INTERNAL`, and its cause goes to the log.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from models.errors import FieldError, InvalidRequest, NotFound, RapportError, Unauthorized
from models.telemetry import request_id

logger = logging.getLogger("rapport.ingress")

MEDIA_TYPE = "application/problem+json"

#: What a client reads when the message itself must stay in the log.
INTERNAL_DETAIL = "Something failed on our side. The request id leads us to the cause."
UNAVAILABLE_DETAIL = "Something this request needs does not answer. Try again later."
TIMEOUT_DETAIL = "The answer was not ready within the time budget."


class MalformedBody(InvalidRequest):
    """The body is not JSON in UTF-8."""

    code, status, title = "MALFORMED_BODY", 400, "The body is not valid JSON"


class MissingIdempotencyKey(InvalidRequest):
    """This route needs an Idempotency-Key header."""

    code, status, title = "MISSING_IDEMPOTENCY_KEY", 400, "An Idempotency-Key is required"


class BodyTooLarge(InvalidRequest):
    """The body is over the limit."""

    code, status, title = "BODY_TOO_LARGE", 413, "The body is too large"


class UnsupportedMediaType(InvalidRequest):
    """The body is announced as something other than JSON."""

    code, status, title = "UNSUPPORTED_MEDIA_TYPE", 415, "Send JSON"


class MethodNotAllowed(InvalidRequest):
    """The route exists, without this method."""

    code, status, title = "METHOD_NOT_ALLOWED", 405, "This method is not allowed here"


class NoSuchRoute(NotFound):
    """No route has this path."""

    code, title = "NO_SUCH_ROUTE", "There is no such route"


def problem_of(error: BaseException) -> dict[str, Any]:
    """The problem document of any failure; unknown exceptions read as `INTERNAL`."""
    known = error if isinstance(error, RapportError) else RapportError()
    document: dict[str, Any] = {
        "type": f"/docs#problem-{known.code.lower().replace('_', '-')}",
        "title": known.title,
        "status": known.status,
        "detail": _detail(known),
        "instance": request_id.get(),
        "code": known.code,
        "errors": [{"pointer": field.pointer, "detail": field.detail} for field in known.fields],
        "retryable": known.retryable,
    }
    if known.retry_after_s is not None:
        document["retry_after_ms"] = round(known.retry_after_s * 1000)
    return document


def problem_response(error: BaseException, headers: dict[str, str] | None = None) -> Response:
    """The problem as an HTTP answer, with the headers its status asks for."""
    document = problem_of(error)
    headers = dict(headers or {})
    if document["status"] in (429, 503) or "retry_after_ms" in document:
        retry_after_ms = document.setdefault("retry_after_ms", 1000)
        headers["Retry-After"] = str(max(1, math.ceil(retry_after_ms / 1000)))
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer realm="rapport"'
    return Response(orjson.dumps(document), document["status"], headers, MEDIA_TYPE)


def log_failure(error: BaseException) -> None:
    """Write down what the client is not told: defects with their trace, lost dependencies with their message."""
    if isinstance(error, RapportError) and error.status < 500:
        return
    if isinstance(error, RapportError) and error.code != "INTERNAL":
        logger.warning("request failed", extra={"code": error.code, "cause": str(error)})
        return
    logger.error("request failed", extra={"code": "INTERNAL"}, exc_info=error)


def install(app: Starlette) -> None:
    """Answer every failure inside the application's routes with a problem document."""
    app.add_exception_handler(RapportError, _on_known)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_defect)


async def _on_known(_: Request, error: Exception) -> Response:
    log_failure(error)
    return problem_response(error)


async def _on_defect(_: Request, error: Exception) -> Response:
    return problem_response(error)  # Starlette raises it again, and the envelope writes it down


async def _on_validation(_: Request, error: Any) -> Response:
    return problem_response(invalid(error.errors()))


async def _on_http(request: Request, error: Any) -> Response:
    if error.status_code == 404:
        return problem_response(NoSuchRoute("no route has this path; see /docs"))
    if error.status_code == 405:
        allowed = ", ".join(sorted(_methods_of(request)))
        return problem_response(MethodNotAllowed(f"use one of: {allowed}"), {"Allow": allowed})
    if error.status_code < 500:
        return problem_response(MalformedBody("the body could not be read as JSON"))
    log_failure(error)
    return problem_response(error)


def _methods_of(request: Request) -> Iterable[str]:
    """Methods of every route with this path; Starlette itself reports only those of the first."""
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            yield from getattr(route, "methods", None) or ()


def invalid(errors: Sequence[Any], *, root: str = "") -> InvalidRequest:
    """Pydantic's findings as `InvalidRequest`: pointers and mends, never the offending values."""
    fields = tuple(FieldError(pointer=root + _pointer(found), detail=_mend(found)) for found in errors)
    error = InvalidRequest("the request does not fit the schema; `errors` names each field and how to mend it")
    error.with_fields(*fields)
    return error


def _pointer(found: Any) -> str:
    """RFC 6901 into the body; parameters outside it are prefixed with where they stand."""
    place, *path = found["loc"] or ("body",)
    if place != "body":
        path = [place, *path]
    return "".join("/" + str(part)[:64].replace("~", "~0").replace("/", "~1") for part in path)


def _mend(found: Any) -> str:
    context = found.get("ctx") or {}
    match found["type"]:
        case "missing":
            return "is required; add it"
        case "extra_forbidden":
            return "is not a field of this request; remove it"
        case "string_too_short":
            return f"is too short; send at least {context['min_length']} character(s)"
        case "string_too_long":
            return f"is too long; send at most {context['max_length']} characters"
        case "string_pattern_mismatch":
            return f"has the wrong form; it must match {context['pattern']}"
        case "value_error":
            return str(context["error"])
        case "model_attributes_type" | "dict_type":
            return "must be a JSON object"
        case _:
            return str(found["msg"])


def _detail(error: RapportError) -> str:
    message = str(error)
    if error.public and message:
        return message
    if error.status == 504:
        return TIMEOUT_DETAIL
    return UNAVAILABLE_DETAIL if error.status == 503 else INTERNAL_DETAIL
