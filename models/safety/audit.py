"""Audit lines about safety decisions, and the hash that stands for a customer in them."""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime

from models.ids import NewId, new_id
from models.safety.types import AuditRecord, Purpose, Verdict


def hash_subject(salt: str, customer_id: str) -> str:
    """A stable pseudonym, `sub_` and 32 hex digits: HMAC-SHA-256 (RFC 2104), not reversible without the salt."""
    return "sub_" + hmac.new(salt.encode(), customer_id.encode(), hashlib.sha256).hexdigest()[:32]


def verdict_record(
    verdict: Verdict,
    *,
    purpose: Purpose,
    subject: str,
    actor: str,
    at: datetime,
    request_id: str = "",
    ids: NewId = new_id,
) -> AuditRecord:
    """The line that says how a text was judged: severities and policy version, never the text itself."""
    return AuditRecord(
        audit_id=ids("aud"),
        at=at,
        actor=actor,
        action="safety.check",
        subject=subject,
        outcome=verdict.decision.value,
        request_id=request_id,
        details={
            "purpose": purpose.value,
            "policy_version": verdict.policy_version,
            "available": verdict.available,
            **{f"severity_{finding.harm.value}": finding.severity for finding in verdict.findings},
        },
    )
