"""Values of the safety contract: Finding -> Verdict -> AuditRecord."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Harm(StrEnum):
    """Harm categories, with severities 0 to 7 as in Azure AI Content Safety."""

    HATE = "hate"
    VIOLENCE = "violence"
    SELF_HARM = "self_harm"
    SEXUAL = "sexual"


class PIIType(StrEnum):
    EMAIL = "email"
    PHONE = "phone"
    CREDIT_CARD = "credit_card"
    IBAN = "iban"
    SSN = "ssn"
    IP_ADDRESS = "ip_address"
    PERSON = "person"
    ADDRESS = "address"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One harm seen in a text: severity 0 (none) to 7 (worst), probability 0 to 1."""

    harm: Harm
    severity: int
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PIISpan:
    """Personal data in a text, as half-open character offsets."""

    type: PIIType
    start: int
    end: int


class Decision(StrEnum):
    ALLOW = "allow"
    BLOCK = "block"
    ESCALATE = "escalate"


class Purpose(StrEnum):
    """Why a text is checked; the policy may differ."""

    CUSTOMER_MESSAGE = "customer_message"
    REPLY = "reply"
    CAMPAIGN = "campaign"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the policy decided about one text, and why.

    `harms` are those over their threshold. `available` is false when moderation could not run: the decision is then
    never `allow` (fail closed).
    """

    decision: Decision
    findings: tuple[Finding, ...] = ()
    reasons: tuple[str, ...] = ()
    harms: tuple[Harm, ...] = ()
    policy_version: str = ""
    available: bool = True

    @property
    def allowed(self) -> bool:
        return self.decision is Decision.ALLOW

    @property
    def severity(self) -> int:
        """Worst severity over all findings, 0 when there is none."""
        return max((finding.severity for finding in self.findings), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One line of the audit trail.

    `subject` is an id or a salted hash, never personal data; `details` holds no text of a customer.
    """

    audit_id: str
    at: datetime
    actor: str
    action: str
    subject: str
    outcome: str
    request_id: str = ""
    details: Mapping[str, str | int | float | bool] = field(default_factory=dict)
