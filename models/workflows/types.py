"""Values of the workflow contract: what was decided for one message, and what comes next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from models.classification.types import Classification, Intent
from models.llm.types import Citation


class Channel(StrEnum):
    CHAT = "chat"
    VOICE = "voice"
    MAIL = "mail"
    API = "api"


class Severity(StrEnum):
    URGENT = "urgent"
    HIGH = "high"
    STANDARD = "standard"


class NextStep(StrEnum):
    """What the caller should expect now."""

    ANSWERED = "answered"
    SUGGEST_CONTACT = "suggest_contact_options"
    HUMAN_REVIEW = "human_review"
    CONFIRM_ACTION = "confirm_action"
    PROVIDE_DETAILS = "provide_details"
    IDENTIFY_CUSTOMER = "identify_customer"
    PHARMACIST_15_MIN = "pharmacist_within_15_minutes"
    PHARMACIST_2_H = "pharmacist_within_2_hours"
    COMPLIANCE_24_H = "compliance_within_24_hours"


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundMessage:
    """A customer message on its way through a workflow."""

    text: str
    channel: Channel
    customer_id: str | None
    request_id: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderSummary:
    """An order as a workflow needs it; `total` in `currency`."""

    order_id: str
    status: str
    placed_at: datetime
    total: float
    currency: str
    tracking_number: str | None
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedAction:
    """A proposed side effect, complete enough to be confirmed; nothing has been executed."""

    action_id: str
    intent: Intent
    customer_id: str | None
    order_id: str | None
    summary: str
    ready: bool
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowResult:
    """The decision for one message. `entities` holds what was extracted (order reference, severity, record id...)."""

    classification: Classification
    decision_path: tuple[str, ...]
    next_step: NextStep
    reply: str | None = None
    citations: tuple[Citation, ...] = ()
    entities: Mapping[str, str | bool] = field(default_factory=dict)
    action: PreparedAction | None = None
    severity: Severity | None = None
    degraded: tuple[str, ...] = ()
