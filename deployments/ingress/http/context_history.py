"""How a customer's context changed, over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deployments.ingress.http.context import understand
from deployments.ingress.parameters import HISTORY
from deployments.ingress.services import HistoryReader
from models.enrichment.history import changes_json, history_page_json
from models.errors import FieldError, InvalidRequest

DEFAULT_LIMIT = 20


@dataclass(frozen=True, slots=True)
class HistoryRoutes:
    """The route of one customer's versions."""

    history: HistoryReader

    def routes(self) -> list[Route]:
        return [Route("/{customer_id}/context/history", self.read, methods=["GET"])]

    async def read(self, request: Request) -> Response:
        customer_id, values = understand(request, HISTORY)
        agent_type = self.history.resolve(values.pop("agent_type", ""))
        if "from" in values or "to" in values:
            answer = await self._compared(customer_id, agent_type, values)
        else:
            answer = await self._listed(customer_id, agent_type, values)
        return Response(orjson.dumps(answer), media_type="application/json")

    async def _listed(self, customer_id: str, agent_type: str, values: dict[str, Any]) -> dict[str, Any]:
        page = await self.history.page(
            customer_id,
            agent_type=agent_type,
            limit=values.get("limit", DEFAULT_LIMIT),
            cursor=values.get("cursor"),
        )
        return {"customer_id": customer_id, "agent_type": agent_type, **history_page_json(page)}

    async def _compared(self, customer_id: str, agent_type: str, values: dict[str, Any]) -> dict[str, Any]:
        wrong = [FieldError(f"/query/{name}", "goes with the other one; send both") for name in _missing(values)]
        wrong += [
            FieldError(f"/query/{name}", "does not go with from and to; leave it out")
            for name in ("limit", "cursor")
            if name in values
        ]
        if wrong:
            raise InvalidRequest("two versions are compared whole").with_fields(*wrong)
        changes = await self.history.compare(
            customer_id, agent_type=agent_type, older=values["from"], newer=values["to"]
        )
        return {
            "customer_id": customer_id,
            "agent_type": agent_type,
            "from": values["from"],
            "to": values["to"],
            "changes": changes_json(changes),
        }


def _missing(values: dict[str, Any]) -> list[str]:
    return [name for name in ("from", "to") if name not in values]
