"""The Idempotency-Key header: what was done once is answered again, not done again."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from deployments.ingress.background import Background
from deployments.ingress.errors import MissingIdempotencyKey, log_failure
from deployments.ingress.services import IdempotencyStore
from models.errors import FieldError, InvalidRequest, RapportError
from providers.systems.idempotency import Replay

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
_KEY = re.compile(r"[\x21-\x7e]{1,128}")

#: Gives a status and a body, which may be JSON already.
Work = Callable[[], Coroutine[Any, Any, tuple[int, BaseModel | bytes]]]


def documented(*, required: bool) -> dict[str, Any]:
    """The header in the OpenAPI document of a route."""
    parameter = {
        "name": HEADER,
        "in": "header",
        "required": required,
        "description": "A value new for each thing to be done, such as a UUID; the same key again repeats the answer.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 128},
        "example": "5f0c3a9b-e1d2-4c7e-9a56-0d3b8f1c2e44",
    }
    return {"parameters": [parameter]}


async def once(
    request: Request,
    store: IdempotencyStore,
    background: Background,
    body: BaseModel,
    work: Work,
    *,
    required: bool = False,
) -> Response:
    """Do `work` and answer with its status and body; under the same key, principal and route answer as the first time.

    A failure is not remembered, so the same key may be tried again. The work goes on when the client goes away: half
    done, it could be done twice, and a safety report on its way must not be lost. Raises `MissingIdempotencyKey`,
    `InProgress`, `IdempotencyMismatch`, `Overloaded`, and whatever `work` raises.
    """
    key = request.headers.get(HEADER)
    if key is None:
        if required:
            raise MissingIdempotencyKey(f"send an {HEADER} header, such as a UUID, new for each thing to be done")
        status, answer = await background.run(work())
        return _response(status, _encoded(answer))
    if not _KEY.fullmatch(key):
        error = InvalidRequest(f"the {HEADER} header is malformed")
        raise error.with_fields(FieldError(f"/header/{HEADER}", "must be 1 to 128 visible ASCII characters"))
    return await background.run(_claimed(request, store, key, body, work))


async def _claimed(
    request: Request,
    store: IdempotencyStore,
    key: str,
    body: BaseModel,
    work: Work,
) -> Response:
    claim = await store.begin(request.state.principal.id, _route(request), key, _hash(body))
    if isinstance(claim, Replay):
        return _response(claim.status, claim.body, {REPLAYED: "true"})
    try:
        status, answer = await work()
    except BaseException:
        await asyncio.shield(_quietly(store.abandon(claim)))
        raise
    content = _encoded(answer)
    # The work is done and is what the client asked about; a key that cannot be kept must not hide that.
    await _quietly(store.finish(claim, status=status, body=content))
    return _response(status, content)


def _encoded(answer: BaseModel | bytes) -> bytes:
    return answer if isinstance(answer, bytes) else answer.model_dump_json().encode()


async def _quietly(change: Awaitable[None]) -> None:
    try:
        await change
    except RapportError as error:
        log_failure(error)


def _hash(body: BaseModel) -> str:
    """Equal for equal meaning: the order of keys and spelled-out defaults do not count."""
    return hashlib.sha256(orjson.dumps(body.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)).hexdigest()


def _route(request: Request) -> str:
    return f"{request.method} {request.scope['route'].path}"


def _response(status: int, body: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, headers, "application/json")
