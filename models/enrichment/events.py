"""What other systems tell of customers, and which sections of a context each such event outdates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from models.enrichment.selection import SECTION_OF


class EventType(StrEnum):
    CUSTOMER_CREATED = "customer.created"
    CUSTOMER_CHANGED = "customer.changed"
    ACCOUNT_CHANGED = "account.changed"
    SUBSCRIPTION_CHANGED = "subscription.changed"
    INVOICE_CHANGED = "invoice.changed"
    DEAL_CHANGED = "deal.changed"
    TICKET_CHANGED = "ticket.changed"
    CONVERSATION_CLOSED = "conversation.closed"
    PRODUCT_ACTIVITY = "product.activity"
    SECURITY_EVENT = "security.event"
    INCIDENT_CHANGED = "incident.changed"


#: The tags of what an event outdates; none means everything known of the customer. The first names the data, for any
#: provider that declares it, the others our own providers that read it. Who depends on one of them is outdated too.
OUTDATED: Mapping[EventType, tuple[str, ...]] = MappingProxyType(
    {
        EventType.CUSTOMER_CREATED: (),
        EventType.CUSTOMER_CHANGED: (),
        EventType.ACCOUNT_CHANGED: (),
        EventType.SUBSCRIPTION_CHANGED: (
            *("subscriptions", "subscription_details"),
            *("customer_intelligence", "account_health"),
        ),
        EventType.INVOICE_CHANGED: ("invoices", "subscription_details", "account_health"),
        EventType.DEAL_CHANGED: ("deals", "sales_pipeline"),
        EventType.TICKET_CHANGED: ("tickets", "support_history", "account_health"),
        # Not `agent_performance`: any talk of anybody changes it, and it is never older than its short time to live.
        EventType.CONVERSATION_CLOSED: ("conversations", "support_history", "account_health"),
        EventType.PRODUCT_ACTIVITY: (
            *("usage", "current_activity", "engagement_metrics"),
            *("feature_usage", "account_health"),
        ),
        EventType.SECURITY_EVENT: ("security", "security_context"),
        EventType.INCIDENT_CHANGED: ("incidents", "product_status"),
    }
)

#: Providers that are not called like the section they fill, by section.
_PROVIDER_OF: Mapping[str, str] = MappingProxyType({section: name for name, section in SECTION_OF.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductActivity:
    """A contact did something in the product, `quantity` times; `feature` is set when a feature was used."""

    contact_id: str
    name: str
    feature: str | None
    quantity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedConversation:
    """A conversation that has ended; `csat` 1 to 5, `None` when not rated."""

    conversation_id: str
    agent_id: str | None
    channel: str
    topic: str
    resolved: bool
    csat: int | None
    started_at: datetime
    ended_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityFinding:
    """A sign-in anomaly or the like, open until `resolved_at`."""

    finding_id: str
    kind: str
    severity: str
    detail: str
    resolved_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentReport:
    """A disturbance of the product as it stands."""

    incident_id: str
    component: str
    title: str
    severity: str
    status: str
    started_at: datetime
    resolved_at: datetime | None


Fact = ProductActivity | ClosedConversation | SecurityFinding | IncidentReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event; an empty `event_id` is replaced by a new one, and a known one counts once.

    `sections` narrows what `customer.changed` outdates. A `fact` is kept; an event without one only says that data
    kept elsewhere has changed.
    """

    type: EventType
    at: datetime
    event_id: str = ""
    customer_id: str | None = None
    account_id: str | None = None
    sections: tuple[str, ...] = ()
    fact: Fact | None = None

    @property
    def tags(self) -> tuple[str, ...]:
        """What is outdated: tags of these sections only, or everything when there are none."""
        if self.sections:
            return tuple(_PROVIDER_OF.get(section, section) for section in self.sections)
        return OUTDATED[self.type]
