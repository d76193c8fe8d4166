"""The wire models of reading and invalidating the context of many customers."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from deployments.ingress.parameters import NAME_PATTERN
from deployments.ingress.schemas import CustomerId, Wire
from models.enrichment.types import ContextRequest
from models.resilience.deadline import Deadline

MAX_CUSTOMERS = 1000
BULK_DEADLINE_MS = 2000

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Tag = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$", examples=["support_history"])]
CustomerIds = Annotated[list[CustomerId], Field(max_length=MAX_CUSTOMERS)]


class ContextReadRequest(Wire):
    """Whose context to read, and how; the fields mean what the parameters of one customer's context mean."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"customer_ids": ["customer_123", "customer_1"], "agent_type": "support", "deadline_ms": 1000}]
        }
    )

    customer_ids: Annotated[CustomerIds, Field(min_length=1)]
    """1 to 1,000; one that is named twice is answered once, where it stands first."""
    agent_type: Name | None = None
    deadline_ms: Annotated[int, Field(ge=1, le=5000, strict=True)] = BULK_DEADLINE_MS
    max_age_ms: Annotated[int, Field(ge=0, le=86_400_000, strict=True)] | None = None
    force_refresh: Annotated[bool, Field(strict=True)] = False
    required: Annotated[list[Name], Field(max_length=64)] = Field(default_factory=list)
    """Providers without which, for any of the customers, the answer is 504."""

    def request(self) -> ContextRequest:
        """The read this asks for; its time runs from now."""
        return ContextRequest(
            deadline=Deadline.after(self.deadline_ms / 1000),
            agent_type=self.agent_type or "",
            required=tuple(self.required),
            max_age_ms=self.max_age_ms,
            force_refresh=self.force_refresh,
        )

    def unique_ids(self) -> list[str]:
        return list(dict.fromkeys(self.customer_ids))


class InvalidateRequest(Wire):
    """Whose data, or which kind of data, changed; at least one of both."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"customer_ids": ["customer_123"]}]})

    customer_ids: CustomerIds = Field(default_factory=list)
    tags: Annotated[list[Tag], Field(max_length=64)] = Field(default_factory=list)
    """Names and sources of providers, and tags they declare; one that nobody declares changes nothing. Beside
    `customer_ids` they narrow what is forgotten to these sections, alone they mean everybody's."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.customer_ids or self.tags):
            raise ValueError("name customer_ids, tags or both")
        return self


class Invalidated(Wire):
    """How many customers and tags every cache was told of."""

    customers: int
    tags: int


class InvalidateResponse(Wire):
    """What no read will be answered with any more."""

    invalidated: Invalidated
