"""The five paths of the README, over HTTP on the running system."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from models.enrichment.selection import AgentViews

pytestmark = pytest.mark.timeout(400)


def classify(api: httpx.Client, message: str, **more: Any) -> dict[str, Any]:
    answer = api.post("/api/v1/classify", json={"message": message, "channel": "chat", **more})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_a_question_is_answered_from_an_article_with_a_citation(api: httpx.Client) -> None:
    body = classify(api, "How do I invite a colleague to our workspace?")
    assert body["category"] == "informational"
    assert body["next_step"] == "answered"
    assert body["citations"], body
    for citation in body["citations"]:
        assert citation["quote"] in body["reply"]


def test_an_order_question_is_answered_for_its_owner_only(api: httpx.Client) -> None:
    mine = classify(api, "Where is my order ORD-10123?", customer_id="customer_123")
    assert mine["category"] == "service_action"
    assert mine["intent"] == "track_order"
    assert mine["entities"]["order_reference"] == "ORD-10123"
    foreign = classify(api, "Where is my order ORD-10123?", customer_id="customer_7")
    assert foreign["category"] == "service_action"
    assert "shipped" not in (foreign["reply"] or "").lower()


def test_a_refund_is_prepared_and_not_executed(api: httpx.Client) -> None:
    body = classify(api, "Please refund my order ORD-10124, it arrived broken", customer_id="customer_123")
    assert body["category"] == "service_action"
    assert body["intent"] == "refund"
    assert body["next_step"] == "confirm_action"


def test_a_safety_report_is_recorded_before_the_reply(api: httpx.Client, system: Any) -> None:
    body = classify(api, "I cannot breathe and my face is swelling after taking your tablets")
    assert body["category"] == "safety_compliance"
    assert body["entities"]["severity"] == "urgent"
    assert body["next_step"] == "pharmacist_within_15_minutes"
    import sqlite3

    with sqlite3.connect(f"file:{system.state}/rapport.db?mode=ro", uri=True) as database:
        rows = database.execute(
            "SELECT severity FROM compliance_records WHERE record_id = ?", (body["entities"]["compliance_record_id"],)
        ).fetchall()
    assert rows == [("urgent",)]


def test_an_unknown_customer_never_stops_a_safety_report(api: httpx.Client) -> None:
    body = classify(api, "I got a rash all over my arms after the new cream", customer_id="customer_999999")
    assert body["category"] == "safety_compliance"
    assert body["entities"]["compliance_record_id"].startswith("cmp_")


def test_context_comes_from_every_provider_of_the_agent_type_and_then_from_l1(api: httpx.Client) -> None:
    path = "/api/v1/customers/customer_123/context"
    first = api.get(path, params={"agent_type": "support", "deadline_ms": 5000, "force_refresh": "true"})
    assert first.status_code == 200, first.text
    body = first.json()
    assert body["complete"] is True
    assert {one["state"] for one in body["providers"].values()} == {"fresh"}
    assert set(body["providers"]) == set(AgentViews.load().view("support").providers)
    assert body["customer_intelligence"]["company_name"] == "Acme Corp"
    second = api.get(path, params={"agent_type": "support"})
    assert second.json()["cache_hit"] is True
    assert "rapport-l1; hit" in second.headers["cache-status"]
    assert second.json()["context_version"] == body["context_version"]


def test_the_prompt_is_the_documented_one(api: httpx.Client) -> None:
    answer = api.get("/api/v1/customers/customer_123/context", params={"agent_type": "support", "format": "prompt"})
    text = answer.text
    for line in (
        "<customer_context>",
        "Company: Acme Corp",
        "Industry: Technology",
        "Plan: PREMIUM",
        "MRR: $250.00",
        "Health Score: 85/100 (Good)",
        "Churn Risk: Low (15%)",
        "- Login frequency: 45 times (last 30 days)",
        "- Most used features: Projects, Tasks, Reports",
        "- Total conversations: 12",
        "- Average CSAT: 4.5/5",
        "- Seats: 8/10",
        "- Renewal: 28 days",
        "- High engagement - upsell opportunity",
        "- High CSAT scores - ask for referral",
        "</customer_context>",
    ):
        assert line in text.splitlines(), f"{line!r} is missing from\n{text}"


def test_the_summary_is_the_documented_one(api: httpx.Client) -> None:
    summary = api.get("/api/v1/customers/customer_123/context/summary", params={"agent_type": "support"}).json()
    expected = {
        "company_name": "Acme Corp",
        "plan": "premium",
        "health_score": 85,
        "churn_risk": 0.15,
        "churn_risk_level": "low",
        "login_count_30d": 45,
        "open_tickets": 1,
        "days_to_renewal": 28,
        "has_critical_issues": False,
        "has_opportunities": True,
    }
    assert {key: summary[key] for key in expected} == expected


def open_session(api: httpx.Client) -> str:
    answer = api.post("/api/v1/sessions", json={"customer_id": "customer_123"})
    assert answer.status_code == 201, answer.text
    session: str = answer.json()["session_id"]
    return session


def say(api: httpx.Client, session: str, text: str, **more: str) -> dict[str, Any]:
    answer = api.post(f"/api/v1/sessions/{session}/messages", params={"wait": "true"}, json={"text": text, **more})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_a_conversation_answers_keeps_history_and_hands_over(api: httpx.Client) -> None:
    session = open_session(api)
    answered = say(api, session, "How long do I have to return a product?")
    assert answered["outcome"] == "answered", answered
    assert answered["citations"]
    assert all(citation["quote"] in answered["reply"] for citation in answered["citations"])
    lost = say(api, session, "Which football team won the cup in 1987?")
    assert lost["outcome"] == "no_answer"
    handed = say(api, session, "I want to speak to a human")
    assert handed["outcome"] == "handed_off"
    history = api.get(f"/api/v1/sessions/{session}").json()
    assert [turn["outcome"] for turn in history["turns"]] == ["answered", "no_answer", "handed_off"]


def test_the_same_client_message_id_is_answered_once(api: httpx.Client) -> None:
    session = open_session(api)
    first = say(api, session, "How do refunds work?", client_message_id="m-1")
    again = say(api, session, "How do refunds work?", client_message_id="m-1")
    assert again["turn_id"] == first["turn_id"]
    assert len(api.get(f"/api/v1/sessions/{session}").json()["turns"]) == 1


def test_an_idempotency_key_makes_a_message_one_turn(api: httpx.Client) -> None:
    session = open_session(api)
    turns = [
        api.post(
            f"/api/v1/sessions/{session}/messages",
            params={"wait": "true"},
            json={"text": "How do refunds work?"},
            headers={"Idempotency-Key": "k-1"},
        ).json()["turn_id"]
        for _ in range(2)
    ]
    assert turns[0] == turns[1]


def test_offers_do_not_answer_questions(api: httpx.Client) -> None:
    body = classify(api, "What is the difference between the Standard and the Premium plan?")
    assert all(not citation["document_id"].startswith("offer-") for citation in body["citations"])


def test_metrics_carry_the_documented_names(api: httpx.Client) -> None:
    classify(api, "How do I export my invoices?")
    names = (
        "classification_requests_total",
        "classification_latency_seconds",
        "classification_confidence",
        "classification_by_category",
        "llm_errors_total",
    )
    end = time.monotonic() + 60
    while time.monotonic() < end:
        page = api.get("/metrics").text
        if 'classification_by_category{category="informational"}' in page:
            break
    for name in names:
        assert f"# TYPE {name} " in page, name


def test_every_dependency_is_named_by_ready(api: httpx.Client) -> None:
    answer = api.get("/ready")
    assert answer.status_code == 200
    named = {name: one["state"] for name, one in answer.json()["dependencies"].items()}
    assert set(named) >= {"database", "redis", "knowledge", "embedder", "language_model", "safety", "conversation"}
    assert set(named.values()) == {"up"}


def test_a_campaign_runs_on_the_serving_cluster(api: httpx.Client, system: Any) -> None:
    started = api.post("/api/v1/campaigns", json={"customers": 200}, headers={"Idempotency-Key": "test-campaign"})
    assert started.status_code == 202, started.text
    campaign = started.json()["campaign_id"]
    again = api.post("/api/v1/campaigns", json={"customers": 200}, headers={"Idempotency-Key": "test-campaign"})
    assert again.json()["campaign_id"] == campaign
    assert again.headers["idempotent-replayed"] == "true"
    end = time.monotonic() + 300
    while time.monotonic() < end:
        state = api.get(f"/api/v1/campaigns/{campaign}").json()
        if state["status"] in ("succeeded", "failed"):
            break
    assert state["status"] == "succeeded", state
    report = api.get(f"/api/v1/campaigns/{campaign}/report", headers={"Accept": "application/json"})
    assert report.status_code == 200
    found = report.json()
    assert {stage["state"] for stage in found["stages"]} == {"completed"}, found["stages"]
    assert (found["campaign"]["campaign_id"], found["engagement"]) == (campaign, "simulated")
    folder = system.state / "reports" / campaign
    assert (folder / "safety_audit.csv").is_file()
    assert "Simulated engagement." in (folder / "report.html").read_text(encoding="utf-8")
