"""The wire models of events: one class for each type, told apart by `type`, and how each becomes a domain event."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, ConfigDict, Field, model_validator

from deployments.ingress.schemas import CustomerId, Wire
from models.enrichment.events import (
    ClosedConversation,
    Event,
    EventType,
    Fact,
    IncidentReport,
    ProductActivity,
    SecurityFinding,
)
from models.enrichment.types import SECTIONS
from models.workflows.types import Channel
from providers.systems.events import Accepted
from providers.tables import EventName, IncidentSeverity

MAX_EVENTS = 500
_YEARS = range(2000, 2101)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]")


def _rfc3339(value: object) -> object:
    # Pydantic itself would take a number, or its digits, for a Unix time.
    if not (isinstance(value, str) and _DATE.match(value)):
        raise ValueError("must be an RFC 3339 time with its zone, such as 2026-11-21T09:30:00Z")
    return value


def _in_range(value: datetime) -> datetime:
    if value.year not in _YEARS:
        raise ValueError(f"must lie in the years {_YEARS[0]} to {_YEARS[-1]}")
    return value


def _known_section(name: str) -> str:
    if name not in SECTIONS:
        raise ValueError(f"is not a section of a context; choose from: {', '.join(SECTIONS)}")
    return name


Instant = Annotated[AwareDatetime, BeforeValidator(_rfc3339), AfterValidator(_in_range)]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9 ._-]{1,64}$")]
Line = Annotated[str, Field(min_length=1, max_length=300)]
SectionName = Annotated[str, AfterValidator(_known_section), Field(json_schema_extra={"enum": list(SECTIONS)})]


class EventBody(Wire):
    """What every event says."""

    event_id: Annotated[str, Field(pattern=r"^evt_[A-Za-z0-9_-]{1,60}$")] | None = None
    """Of the sender's making; the same id again within a week changes nothing. Without one the event always counts."""
    at: Instant | None = None
    """When it happened; the time of arrival unless given. At most five minutes ahead of our clock."""

    def event(self, now: datetime) -> Event:
        """The domain event; `now` stands in for a time that was not given."""
        at = (self.at or now).astimezone(UTC)
        return Event(
            type=EventType(getattr(self, "type")),  # noqa: B009  # every subclass has one, of a literal type of its own
            event_id=self.event_id or "",
            at=at,
            customer_id=getattr(self, "customer_id", None),
            account_id=getattr(self, "account_id", None),
            sections=tuple(getattr(self, "sections", None) or ()),
            fact=self.fact(at),
        )

    def fact(self, at: datetime) -> Fact | None:
        """What the event reports beyond the change itself."""
        return None


class CustomerCreated(EventBody):
    """A customer is new: whoever was told that there is no such customer asks again."""

    type: Literal["customer.created"]
    customer_id: CustomerId


class CustomerChanged(EventBody):
    """Data of a customer changed: everything, or these sections only."""

    type: Literal["customer.changed"]
    customer_id: CustomerId
    sections: Annotated[list[SectionName], Field(min_length=1, max_length=len(SECTIONS))] | None = None


class AccountChanged(EventBody):
    """Data of a company changed, and with it the context of all its customers."""

    type: Literal["account.changed"]
    account_id: Id


class RecordChanged(EventBody):
    """A record of a customer changed in the system that keeps it."""

    type: Literal["subscription.changed", "invoice.changed", "deal.changed", "ticket.changed"]
    customer_id: CustomerId


class ProductActivityHappened(EventBody):
    """Someone signed in, or used a feature; kept, and part of the usage figures from now on."""

    type: Literal["product.activity"]
    customer_id: CustomerId
    contact_id: Id
    name: EventName
    feature: Word | None = None
    """Required for `feature_used`, and only there."""
    quantity: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 1

    @model_validator(mode="after")
    def _feature_where_used(self) -> Self:
        if (self.name is EventName.FEATURE_USED) != (self.feature is not None):
            raise ValueError("feature_used needs the field feature, and login has none")
        return self

    def fact(self, at: datetime) -> Fact:
        return ProductActivity(
            contact_id=self.contact_id, name=self.name.value, feature=self.feature, quantity=self.quantity
        )


class ConversationClosed(EventBody):
    """A conversation ended; the same conversation again replaces what was kept of it, except a rating by none."""

    type: Literal["conversation.closed"]
    conversation_id: Id
    customer_id: CustomerId
    agent_id: Id | None = None
    channel: Channel
    topic: Word
    resolved: Annotated[bool, Field(strict=True)]
    csat: Annotated[int, Field(ge=1, le=5, strict=True)] | None = None
    started_at: Instant
    ended_at: Instant

    @model_validator(mode="after")
    def _ends_after_its_start(self) -> Self:
        if self.ended_at < self.started_at:
            raise ValueError("ended_at must not be before started_at")
        return self

    def fact(self, at: datetime) -> Fact:
        return ClosedConversation(
            conversation_id=self.conversation_id,
            agent_id=self.agent_id,
            channel=self.channel.value,
            topic=self.topic,
            resolved=self.resolved,
            csat=self.csat,
            started_at=self.started_at.astimezone(UTC),
            ended_at=self.ended_at.astimezone(UTC),
        )


class SecurityEventHappened(EventBody):
    """A sign-in anomaly, a permission change or the like; sent again with `resolved_at` once it is settled."""

    type: Literal["security.event"]
    finding_id: Id
    customer_id: CustomerId
    kind: Word
    severity: Literal["low", "medium", "high", "critical"]
    detail: Line
    resolved_at: Instant | None = None

    def fact(self, at: datetime) -> Fact:
        return SecurityFinding(
            finding_id=self.finding_id,
            kind=self.kind,
            severity=self.severity,
            detail=self.detail,
            resolved_at=self.resolved_at and self.resolved_at.astimezone(UTC),
        )


class IncidentChanged(EventBody):
    """A disturbance of the product as it stands now; `resolved` without a `resolved_at` was resolved at `at`."""

    type: Literal["incident.changed"]
    incident_id: Id
    component: Word
    title: Line
    severity: IncidentSeverity
    status: Literal["investigating", "identified", "monitoring", "resolved"]
    started_at: Instant
    resolved_at: Instant | None = None

    @model_validator(mode="after")
    def _resolved_once_it_is(self) -> Self:
        if self.resolved_at is not None and self.status != "resolved":
            raise ValueError("resolved_at goes with the status resolved")
        return self

    def fact(self, at: datetime) -> Fact:
        resolved_at = (self.resolved_at or at) if self.status == "resolved" else None
        return IncidentReport(
            incident_id=self.incident_id,
            component=self.component,
            title=self.title,
            severity=self.severity.value,
            status=self.status,
            started_at=self.started_at.astimezone(UTC),
            resolved_at=resolved_at and resolved_at.astimezone(UTC),
        )


AnyEvent = Annotated[
    CustomerCreated
    | CustomerChanged
    | AccountChanged
    | RecordChanged
    | ProductActivityHappened
    | ConversationClosed
    | SecurityEventHappened
    | IncidentChanged,
    Field(discriminator="type"),
]


class EventsRequest(Wire):
    """What happened, in any order; all of it is accepted, or nothing."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "events": [
                        {"type": "subscription.changed", "customer_id": "customer_123", "event_id": "evt_crm-4711"},
                        {
                            "type": "product.activity",
                            "customer_id": "customer_123",
                            "contact_id": "con_123_1",
                            "name": "feature_used",
                            "feature": "Reports",
                        },
                    ]
                }
            ]
        }
    )

    events: Annotated[list[AnyEvent], Field(min_length=1, max_length=MAX_EVENTS)]


class EventsAccepted(Wire):
    """How many events are new, how many were known, and the id of each in the order sent."""

    accepted: int
    duplicates: int
    event_ids: list[str]

    @classmethod
    def of(cls, accepted: Accepted) -> EventsAccepted:
        new, ids = len(accepted.new), list(accepted.event_ids)
        return cls(accepted=new, duplicates=len(ids) - new, event_ids=ids)
