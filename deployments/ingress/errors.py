"""What can go wrong before and around a route, and what a client may read of any failure: decided here alone.

A message is shown only where its class marks it as public. Anything without a class of its own is `INTERNAL`, and its
cause goes to the log. How a failure looks on the wire is the business of `failures.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from models.enrichment.events import EventType
from models.errors import FieldError, InvalidRequest, NotFound, RapportError

logger = logging.getLogger("rapport.ingress")

#: What a client reads when the message itself must stay in the log.
INTERNAL_DETAIL = "Something failed on our side. The request id leads us to the cause."
UNAVAILABLE_DETAIL = "Something this request needs does not answer. Try again later."
TIMEOUT_DETAIL = "The answer was not ready within the time budget."
_EVENT_TYPES = frozenset(EventType)


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


class UnknownParameter(InvalidRequest):
    """The body has a field that the OpenAI-compatible surface does not know; used under `/v1` only."""

    code, status, title = "UNKNOWN_PARAMETER", 400, "The request has an unknown field"


class MissingParameter(InvalidRequest):
    """The body lacks a field that the OpenAI-compatible surface needs; used under `/v1` only."""

    code, status, title = "MISSING_REQUIRED_PARAMETER", 400, "A field is missing"


class UnsupportedParameter(InvalidRequest):
    """OpenAI's API has this field or value, and we cannot honour it; used under `/v1` only."""

    code, status, title = "UNSUPPORTED_PARAMETER", 400, "This is not supported here"


def log_failure(error: BaseException) -> None:
    """Write down what the client is not told: defects with their trace, lost dependencies with their message."""
    if isinstance(error, RapportError) and error.status < 500:
        return
    if isinstance(error, RapportError) and error.code != "INTERNAL":
        logger.warning("request failed", extra={"code": error.code, "cause": str(error)})
        return
    logger.error("request failed", extra={"code": "INTERNAL"}, exc_info=error)


def invalid(errors: Sequence[Any], *, root: str = "", kind: type[InvalidRequest] = InvalidRequest) -> InvalidRequest:
    """Pydantic's findings as one error: pointers and mends, never the offending values."""
    fields = tuple(FieldError(pointer=root + _pointer(found), detail=_mend(found)) for found in errors)
    error = kind("the request does not fit the schema; `errors` names each field and how to mend it")
    error.with_fields(*fields)
    return error


def _pointer(found: Any) -> str:
    """RFC 6901 into the body; parameters outside it are prefixed with where they stand."""
    place, *path = found["loc"] or ("body",)
    if place != "body":
        path = [place, *path]
    # Behind the index of an event stands the type that was chosen for it, which is no place in the body.
    path = [part for before, part in zip([None, *path], path, strict=False) if not _is_event_type(before, part)]
    if found["type"] == "union_tag_invalid":
        path.append(found["ctx"]["discriminator"].strip("'"))
    return "".join("/" + str(part)[:64].replace("~", "~0").replace("/", "~1") for part in path)


def _is_event_type(before: Any, part: Any) -> bool:
    return isinstance(before, int) and part in _EVENT_TYPES


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
        case "union_tag_invalid":
            return f"must be one of: {context['expected_tags']}"
        case "union_tag_not_found":
            return f"needs the field {context['discriminator']}"
        case "value_error":
            return str(context["error"])
        case "model_attributes_type" | "dict_type":
            return "must be a JSON object"
        case _:
            return str(found["msg"])


def detail_of(error: RapportError) -> str:
    """The sentence a client may read of this failure."""
    message = str(error)
    if error.public and message:
        return message
    if error.detail:
        return error.detail
    if error.status == 504:
        return TIMEOUT_DETAIL
    if error.status == 502:
        return f"{error.title}."
    return UNAVAILABLE_DETAIL if error.status == 503 else INTERNAL_DETAIL
