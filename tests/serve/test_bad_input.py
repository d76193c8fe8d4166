"""Whatever is sent, the answer is a problem document that names the field and the fix, or an honest degraded reply."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.timeout(400)

JSON = {"Content-Type": "application/json"}
CLASSIFY = "/api/v1/classify"
CONTEXT = "/api/v1/customers/customer_123/context"


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    body: dict[str, Any] = answer.json()
    assert body["code"] == code, body
    assert body["status"] == status
    assert body["instance"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    return body


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"message": "", "channel": "chat"}, "/message"),
        ({"message": "   ", "channel": "chat"}, "/message"),
        ({"message": "x" * 5001, "channel": "chat"}, "/message"),
        ({"message": 5, "channel": "chat"}, "/message"),
        ({"channel": "chat"}, "/message"),
        ({"message": "hello", "channel": "fax"}, "/channel"),
        ({"message": "hello", "channel": "chat", "colour": "red"}, "/colour"),
        ({"message": "hello", "channel": "chat", "customer_id": "no spaces!"}, "/customer_id"),
    ],
)
def test_a_field_out_of_bounds_is_named(api: httpx.Client, body: dict[str, Any], pointer: str) -> None:
    refused = problem(api.post(CLASSIFY, json=body), 422, "INVALID_REQUEST")
    assert [error["pointer"] for error in refused["errors"]] == [pointer]
    assert all(error["detail"] for error in refused["errors"])


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe{}", b'{"message": "a", "channel": "chat"', b""])
def test_what_is_not_json_is_400(api: httpx.Client, body: bytes) -> None:
    problem(api.post(CLASSIFY, content=body, headers=JSON), 400, "MALFORMED_BODY")


def test_a_megabyte_is_413(api: httpx.Client) -> None:
    answer = api.post(CLASSIFY, content=b'{"message": "' + b"x" * 1_000_000 + b'"}', headers=JSON)
    problem(answer, 413, "BODY_TOO_LARGE")


def test_another_media_type_is_415(api: httpx.Client) -> None:
    answer = api.post(CLASSIFY, content=b"message=hi", headers={"Content-Type": "text/plain"})
    problem(answer, 415, "UNSUPPORTED_MEDIA_TYPE")


def test_an_unknown_route_is_404_and_a_wrong_method_405(api: httpx.Client) -> None:
    problem(api.get("/api/v1/nothing"), 404, "NO_SUCH_ROUTE")
    problem(api.get("/api/v1/customers/customer_1/nothing"), 404, "NO_SUCH_ROUTE")
    wrong = api.delete(CLASSIFY)
    problem(wrong, 405, "METHOD_NOT_ALLOWED")
    assert wrong.headers["allow"] == "POST"


def test_customers_that_cannot_be(api: httpx.Client) -> None:
    problem(api.get("/api/v1/customers/customer_999999/context"), 404, "UNKNOWN_CUSTOMER")
    problem(api.get("/api/v1/customers/bad%20id/context"), 422, "INVALID_REQUEST")
    problem(api.get(f"/api/v1/customers/{'x' * 65}/context"), 422, "INVALID_REQUEST")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("agent_type=astronaut", "UNKNOWN_AGENT_TYPE"),
        ("deadline_ms=0", "INVALID_REQUEST"),
        ("deadline_ms=5001", "INVALID_REQUEST"),
        ("deadline_ms=soon", "INVALID_REQUEST"),
        ("format=xml", "INVALID_REQUEST"),
        ("colour=red", "INVALID_REQUEST"),
    ],
)
def test_context_parameters_are_checked(api: httpx.Client, query: str, code: str) -> None:
    problem(api.get(f"{CONTEXT}?{query}"), 422, code)


def test_sessions_that_are_not_there(api: httpx.Client) -> None:
    missing = "/api/v1/sessions/ses_01hzzzzzzzzzzzzzzzzzzzzzzz"
    problem(api.get(missing), 404, "NOT_FOUND")
    problem(api.post(f"{missing}/messages", params={"wait": "true"}, json={"text": "hello"}), 404, "NOT_FOUND")


def test_a_session_with_an_unknown_agent_type_is_not_opened(api: httpx.Client) -> None:
    refused = problem(api.post("/api/v1/sessions", json={"agent_type": "astronaut"}), 422, "UNKNOWN_AGENT_TYPE")
    assert [error["pointer"] for error in refused["errors"]] == ["/agent_type"]


def test_a_campaign_needs_an_idempotency_key(api: httpx.Client) -> None:
    problem(api.post("/api/v1/campaigns", json={"customers": 100}), 400, "MISSING_IDEMPOTENCY_KEY")


def test_an_idempotency_key_belongs_to_one_body(api: httpx.Client) -> None:
    key = {"Idempotency-Key": "one-body"}
    first = api.post("/api/v1/sessions", json={"customer_id": "customer_1"}, headers=key)
    again = api.post("/api/v1/sessions", json={"customer_id": "customer_1"}, headers=key)
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    other = api.post("/api/v1/sessions", json={"customer_id": "customer_2"}, headers=key)
    problem(other, 422, "IDEMPOTENCY_MISMATCH")


@pytest.fixture
def client_without_keepalive(system: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=system.url, timeout=30, headers={"Connection": "close"}, trust_env=False) as client:
        yield client


def test_a_foreign_host_name_is_no_local_caller(client_without_keepalive: httpx.Client) -> None:
    """A web page that resolves its own name to 127.0.0.1 must not reach the API without a key."""
    answer = client_without_keepalive.post(
        CLASSIFY, json={"message": "hello", "channel": "chat"}, headers={"Host": "evil.example.com"}
    )
    problem(answer, 401, "UNAUTHORIZED")
