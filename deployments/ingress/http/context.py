"""Customer context over HTTP: plain routes, because on an L1 hit everything else would cost more than the answer.

They run in the replica that owns the L1 cache; the body is the reader's bytes, untouched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deployments.ingress.auth import Principal
from deployments.ingress.parameters import READ, SUMMARY, Parameters
from deployments.ingress.schemas import CUSTOMER_ID_PATTERN
from models.enrichment.protocol import ContextReader
from models.enrichment.types import ContextReading, ContextRequest, ReadFormat, ServedFrom
from models.errors import FieldError, InvalidRequest
from models.resilience.deadline import Deadline

_CUSTOMER_ID = re.compile(CUSTOMER_ID_PATTERN)

#: RFC 9211: the first cache is the one closest to the origin; `{ttl}` seconds are left.
_CACHE_STATUS = {
    ServedFrom.L1: "rapport-l1; hit; ttl={ttl}",
    ServedFrom.L2: "rapport-l2; hit; ttl={ttl}, rapport-l1; fwd=miss",
    ServedFrom.ORIGIN: "rapport-l2; fwd=miss, rapport-l1; fwd=miss",
}
_CACHE_BYPASSED = "rapport-l2; fwd=request, rapport-l1; fwd=request"


@dataclass(frozen=True, slots=True)
class ContextRoutes:
    """The routes that read one customer's context; `deadline_ms` is the time budget of a caller that names none."""

    reader: ContextReader
    deadline_ms: int

    def routes(self) -> list[Route]:
        return [
            Route("/{customer_id}/context", self.read, methods=["GET"]),
            Route("/{customer_id}/context/summary", self.summary, methods=["GET"]),
        ]

    async def read(self, request: Request) -> Response:
        customer_id, values = understand(request, READ)
        return await self._answer(customer_id, values)

    async def summary(self, request: Request) -> Response:
        customer_id, values = understand(request, SUMMARY)
        return await self._answer(customer_id, {**values, "format": ReadFormat.SUMMARY})

    async def _answer(self, customer_id: str, values: dict[str, Any]) -> Response:
        deadline = Deadline.after(values.pop("deadline_ms", self.deadline_ms) / 1000)
        wanted = ContextRequest(deadline=deadline, **values)
        reading = await self.reader.read(customer_id, wanted)
        return Response(reading.body, headers=_headers(reading, wanted), media_type=reading.media_type)


def understand(request: Request, parameters: Parameters) -> tuple[str, dict[str, Any]]:
    """The customer's id and the query of a request. Raises `InvalidRequest`, and `Forbidden` for the agent type."""
    customer_id = request.path_params["customer_id"]
    if not _CUSTOMER_ID.fullmatch(customer_id):
        error = InvalidRequest("the customer id is malformed")
        raise error.with_fields(FieldError("/path/customer_id", f"must match {CUSTOMER_ID_PATTERN}"))
    values = parameters.parse(request.scope["query_string"])
    principal: Principal = request.state.principal
    principal.require(values.get("agent_type"))
    return customer_id, values


def _headers(reading: ContextReading, wanted: ContextRequest) -> dict[str, str]:
    headers = {
        "Cache-Status": _cache_status(reading, wanted),
        "Context-Complete": "true" if reading.complete else "false",
        "Context-Version": reading.context_version,
    }
    if reading.cache_hit:
        headers["Age"] = str(int(reading.age_ms / 1000))
    if reading.masked:
        headers["Context-Masked"] = "true"
    if reading.strategy:
        headers["Context-Strategy"] = reading.strategy
    return headers


def _cache_status(reading: ContextReading, wanted: ContextRequest) -> str:
    if wanted.force_refresh:
        return _CACHE_BYPASSED
    return _CACHE_STATUS[reading.served_from].format(ttl=int(reading.ttl_ms / 1000))
