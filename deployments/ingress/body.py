"""What a request body must be before any route looks at it: small enough, and JSON in UTF-8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from email.message import Message as MimeHeader

import orjson
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.ingress.errors import BodyTooLarge, MalformedBody, UnsupportedMediaType

_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class BodyGuard:
    """Reads the whole body, at most `limit_of(path)` bytes, checks it, and hands it on.

    Counting what arrives, not what `Content-Length` promises, holds for chunked bodies too. A request that no route
    takes passes unread, so that it is told about its path or method, not about its body.
    """

    def __init__(self, app: ASGIApp, *, routes: Sequence[BaseRoute], limit_of: Callable[[str], int]) -> None:
        self._app = app
        self._routes = routes
        self._limit_of = limit_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in _WITH_BODY or not self._is_routed(scope):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        max_bytes = self._limit_of(scope["path"])
        _check_length(headers.get(b"content-length"), max_bytes)
        _check_media_type(headers)
        body = await _read(receive, max_bytes)
        _check_json(body)
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        await self._app(scope, replay, send)

    def _is_routed(self, scope: Scope) -> bool:
        return any(route.matches(scope)[0] is Match.FULL for route in self._routes)


def _check_length(announced: bytes | None, max_bytes: int) -> None:
    if announced is None:
        return
    if not announced.isdigit():
        raise MalformedBody("the Content-Length header is malformed")
    # The digits are bounded before they become a number: parsing a huge one is work a stranger could order.
    if len(announced) > 18 or int(announced) > max_bytes:
        raise _too_large(max_bytes)


async def _read(receive: Receive, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > max_bytes:
            raise _too_large(max_bytes)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"send at most {max_bytes} bytes")


def _check_media_type(headers: dict[bytes, bytes]) -> None:
    header = MimeHeader()
    header["content-type"] = headers.get(b"content-type", b"application/octet-stream").decode("latin-1")
    is_json = header.get_content_type() == "application/json" or (
        header.get_content_maintype() == "application" and header.get_content_subtype().endswith("+json")
    )
    if not is_json:
        raise UnsupportedMediaType("send the header 'Content-Type: application/json'")
    if str(header.get_content_charset("utf-8")).lower() not in ("utf-8", "utf8"):
        raise UnsupportedMediaType("send JSON in UTF-8")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType("send the body without Content-Encoding")


def _check_json(body: bytes) -> None:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise MalformedBody(f"the body is not UTF-8: byte {exc.start} does not fit") from None
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        if not body.strip():
            raise MalformedBody("the body is empty; send a JSON object") from None
        raise MalformedBody(f"the body is not JSON: see line {exc.lineno}, column {exc.colno}") from None
