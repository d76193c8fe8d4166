from __future__ import annotations

from datetime import UTC, datetime

from models.safety.audit import hash_subject, verdict_record
from models.safety.types import Decision, Finding, Harm, Purpose, Verdict


def test_a_customer_is_a_stable_pseudonym_per_salt() -> None:
    assert hash_subject("salt", "customer_1") == hash_subject("salt", "customer_1")
    assert len({hash_subject(s, c) for s in ("salt", "other") for c in ("customer_1", "customer_2")}) == 4
    assert "customer_1" not in hash_subject("salt", "customer_1")


def test_the_line_says_how_a_text_was_judged() -> None:
    verdict = Verdict(
        decision=Decision.BLOCK,
        findings=(Finding(harm=Harm.HATE, severity=5, probability=0.9),),
        reasons=("hate severity 5 >= 4",),
        policy_version="policy_abc",
    )
    at = datetime(2026, 1, 2, tzinfo=UTC)
    record = verdict_record(
        verdict, purpose=Purpose.REPLY, subject="sub_1", actor="conversation", at=at, request_id="r"
    )
    assert record.audit_id.startswith("aud_")
    assert (record.at, record.subject, record.outcome, record.request_id) == (at, "sub_1", "block", "r")
    assert dict(record.details) == {
        "purpose": "reply",
        "policy_version": "policy_abc",
        "available": True,
        "severity_hate": 5,
    }
