"""Who may come in now: a known caller, within its budget, while there is room."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.ingress.auth import Authenticator
from deployments.ingress.services import RateLimiter
from models import telemetry
from models.errors import Overloaded, RateLimited, Unauthorized

#: Served to anyone and at any load: what operates the service, and its documentation.
OPEN_PATHS = frozenset({"/", "/health", "/ready", "/metrics", "/docs", "/openapi.json"})


class Admission:
    """Authentication, rate limit and bounded concurrency; puts the `Principal` into `request.state.principal`.

    Beyond `max_concurrent` running requests of this process the answer is 503 at once: nothing queues here.
    """

    def __init__(
        self, app: ASGIApp, *, authenticator: Authenticator, rate_limiter: RateLimiter, max_concurrent: int
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._rate_limiter = rate_limiter
        self._max_concurrent = max_concurrent
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        sent: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in (b"authorization", b"host") and sent.setdefault(name, value) is not value:
                raise Unauthorized(f"send the {name.decode()} header once")
        principal = self._authenticator.authenticate(
            authorization=sent.get(b"authorization"),
            client_host=(scope.get("client") or ("", 0))[0],
            host=sent.get(b"host", b"").decode("latin-1"),
        )
        scope["state"]["principal"] = principal
        telemetry.principal.set(principal.id)
        if principal.requests_per_minute is not None:
            wait_s = await self._rate_limiter.try_take(principal.id, per_minute=principal.requests_per_minute)
            if wait_s > 0:
                limit = principal.requests_per_minute
                raise RateLimited(f"this credential may send {limit} requests a minute").with_retry_after(wait_s)
        if self._running >= self._max_concurrent:
            raise Overloaded("too many requests are running").with_retry_after(1.0)
        self._running += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._running -= 1
