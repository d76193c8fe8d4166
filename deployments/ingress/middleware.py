"""The one middleware stack of every application, as pure ASGI: envelope, then admission, then body guard, then routes.

Each layer raises `RapportError`; the envelope, outermost, turns whatever reaches it into the answer of that failure.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.ingress.admission import Admission
from deployments.ingress.auth import Authenticator
from deployments.ingress.body import BodyGuard
from deployments.ingress.errors import log_failure
from deployments.ingress.failures import failure_response, speaks_openai
from deployments.ingress.services import RateLimiter
from models.ids import new_id
from models.settings import IngressSettings
from models.telemetry import Metrics, request_id

access_log = logging.getLogger("rapport.access")

#: With these a caller could lift the server's own limits on its request.
_STRIPPED = frozenset({b"x-request-timeout-seconds", b"x-request-disconnect-disabled"})
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CLIENT_GONE = 499

_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_UNLESS_SET = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


def stack(
    app: Starlette,
    settings: IngressSettings,
    *,
    rate_limiter: RateLimiter,
    metrics: Metrics,
    clock: Callable[[], float] = time.perf_counter,
    echo_request_id: bool = True,
) -> Envelope:
    """The application behind the whole stack; `settings` hold keys and limits.

    `echo_request_id` is false behind Ray Serve, whose own layer puts the `X-Request-ID` header on every answer.
    """

    def limit_of(path: str) -> int:
        return settings.max_model_body_bytes if speaks_openai(path) else settings.max_body_bytes

    guarded = BodyGuard(app, routes=app.routes, limit_of=limit_of)
    admitted = Admission(
        guarded,
        authenticator=Authenticator(settings.api_keys),
        rate_limiter=rate_limiter,
        max_concurrent=settings.max_concurrent,
    )
    return Envelope(admitted, routes=app.routes, metrics=metrics, clock=clock, echo_request_id=echo_request_id)


class Envelope:
    """Request id, security headers, access log, timing, and an answer for every failure.

    Neither the log nor a metric ever holds a query value or a path's ids: they name the route.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: list[BaseRoute],
        metrics: Metrics,
        clock: Callable[[], float],
        echo_request_id: bool,
    ) -> None:
        self._app = app
        self._echo_request_id = echo_request_id
        self._metrics = metrics
        self._clock = clock
        #: Serve reads the route patterns here, for its own metrics.
        self.routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = scope["headers"]
        given = next((value for name, value in headers if name == b"x-request-id"), b"")
        rid = given.decode() if _REQUEST_ID.fullmatch(given) else new_id("req")
        # Starlette's router writes the matched route into this very dict.
        scope = {
            **scope,
            "headers": [header for header in headers if header[0] not in _STRIPPED],
            "state": dict(scope.get("state") or {}),
        }
        answer = _Answer(send, rid.encode() if self._echo_request_id else b"")
        token = request_id.set(rid)
        started = self._clock()
        try:
            await self._app(scope, receive, answer.send)
        except asyncio.CancelledError:
            answer.status = _CLIENT_GONE
            raise
        except ClientDisconnect:
            answer.status = _CLIENT_GONE
        except Exception as error:
            log_failure(error)
            if not answer.status:
                response: Response = failure_response(error, scope["path"])
                await response(scope, receive, answer.send)
            elif not answer.ended:
                raise  # half an answer is out: only a cut connection tells the client
        finally:
            self._record(scope, answer.status or _CLIENT_GONE, self._clock() - started)
            request_id.reset(token)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        pattern = getattr(scope.get("route") or self._route_of(scope), "path", None)
        route = scope.get("root_path", "") + pattern if pattern else "unmatched"
        self._metrics.count("http_requests_total", route=route, method=method, status=str(status))
        self._metrics.observe("http_request_seconds", seconds, route=route, method=method)
        if access_log.isEnabledFor(logging.INFO):
            principal = scope["state"].get("principal")
            fields = {
                "method": method,
                "route": route,
                "status": status,
                "duration_ms": round(seconds * 1000, 3),
                "principal": principal.id if principal else "-",
            }
            access_log.info("request", extra=fields)

    def _route_of(self, scope: Scope) -> BaseRoute | None:
        """The route of a request that was refused before it got there."""
        return next((route for route in self.routes if route.matches(scope)[0] is Match.FULL), None)


class _Answer:
    """Passes an answer on, adds the headers that every answer carries, and remembers how far it came."""

    def __init__(self, send: Send, rid: bytes) -> None:
        self._send = send
        self._rid = rid
        self.status = 0
        self.ended = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            present = {name.lower() for name, _ in headers}
            headers += _ALWAYS
            headers += [header for header in _UNLESS_SET if header[0] not in present]
            if self._rid:
                headers.append((b"x-request-id", self._rid))
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body":
            self.ended = not message.get("more_body", False)
        await self._send(message)
