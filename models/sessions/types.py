"""Values of the session contract: Session > Turn > messages of both sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from models.llm.types import Citation


class Outcome(StrEnum):
    """How a turn ended; closed vocabulary of the API."""

    ANSWERED = "answered"
    CLARIFIED = "clarified"
    NO_ANSWER = "no_answer"
    ACTION_DONE = "action_done"
    AWAITING_CONFIRMATION = "awaiting_confirmation"
    HANDED_OFF = "handed_off"
    REFUSED = "refused"
    CANCELLED = "cancelled"


class HandoffReason(StrEnum):
    CUSTOMER_REQUEST = "customer_request"
    MISSING_KNOWLEDGE = "missing_knowledge"
    UNSUPPORTED_REQUEST = "unsupported_request"
    POLICY_RESTRICTION = "policy_restriction"
    TOOL_FAILURE = "tool_failure"
    LOW_CONFIDENCE = "low_confidence"
    SAFETY = "safety"
    SLA = "sla"


class SessionStatus(StrEnum):
    OPEN = "open"
    HANDED_OFF = "handed_off"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One customer message and our reply to it. `reply` and `outcome` are `None` until the turn has ended.

    `reason` says why a turn ended without an answer of ours, `record_id` names a compliance record, `action_id` an
    action that waits for confirmation. `cost_usd` is what language models cost, `None` when that is not known.
    """

    turn_id: str
    client_message_id: str | None
    text: str
    at: datetime
    outcome: Outcome | None = None
    reply: str | None = None
    citations: tuple[Citation, ...] = ()
    engine: str = ""
    degraded: tuple[str, ...] = ()
    reason: HandoffReason | None = None
    ticket_id: str | None = None
    record_id: str | None = None
    action_id: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    timings_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A conversation with one customer (or an anonymous visitor). `owner` is the principal that opened it."""

    session_id: str
    customer_id: str | None
    agent_type: str | None
    owner: str
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    status: SessionStatus = SessionStatus.OPEN
    metadata: Mapping[str, str] = field(default_factory=dict)
    turns: tuple[Turn, ...] = ()
