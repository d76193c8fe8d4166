"""How a route reaches the objects of its replica: through the application it runs in, never through a module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path, Request

from deployments.ingress.auth import Principal
from deployments.ingress.background import Background
from deployments.ingress.errors import UnknownParameter
from deployments.ingress.services import ApiServices
from models.errors import FieldError
from models.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """What the routes of one replica share; `openapi` makes the encoded document when first asked for it."""

    services: ApiServices
    settings: Settings
    background: Background
    openapi: Callable[[], bytes]


async def replica_of(request: Request) -> Replica:
    replica: Replica = request.app.state.replica
    return replica


async def principal_of(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


async def refuse_query(request: Request) -> None:
    """For routes without query parameters: one that asks for something must not be passed over in silence.

    Raises `UnknownParameter` naming the first of them.
    """
    for name in request.query_params:
        detail = "is not a query parameter of this route; remove it"
        raise UnknownParameter("the query is not valid").with_fields(FieldError(f"/query/{name[:64]}", detail))


Here = Annotated[Replica, Depends(replica_of)]
Caller = Annotated[Principal, Depends(principal_of)]
SessionId = Annotated[str, Path(pattern=r"^ses_[A-Za-z0-9]{1,64}$", examples=["ses_01jd4kz3v8h2m6t9q0xw5y7abc"])]
CampaignId = Annotated[str, Path(pattern=r"^[a-z]{3}_[A-Za-z0-9]{1,64}$", examples=["cpn_5f0c3a9be1d2"])]
