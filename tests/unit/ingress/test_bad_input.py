"""What strangers and mistakes send: each answer names the field and the mend, and nothing of what was sent."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from models.errors import DatabaseUnavailable, DeadlineExceeded, ModelUnavailable
from tests.fakes.ingress import World
from tests.unit.ingress.problem import problem

GOOD = {"message": "Where is my order?", "channel": "chat"}
JSON = {"Content-Type": "application/json"}
CONTEXT = "/api/v1/customers/customer_123/context"


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"message": ""}, "/message"),
        ({"message": " \n\t "}, "/message"),
        ({"message": "x" * 5001}, "/message"),
        ({"message": 7}, "/message"),
        ({"message": None}, "/message"),
        ({"channel": "pigeon"}, "/channel"),
        ({"customer_id": "../etc"}, "/customer_id"),
        ({"customer_id": "c" * 65}, "/customer_id"),
        ({"customer_id": "customer_1\n"}, "/customer_id"),
        ({"metadata": ["a"]}, "/metadata"),
        ({"metadata": {"a": 1}}, "/metadata/a"),
        ({"urgent": True}, "/urgent"),
        ({"a/b~c": 1}, "/a~1b~0c"),
    ],
)
async def test_a_field_that_does_not_fit_is_named(
    client: httpx.AsyncClient, world: World, change: dict[str, object], pointer: str
) -> None:
    problem(await client.post("/api/v1/classify", json=GOOD | change), 422, "INVALID_REQUEST", pointer)
    assert world.router.seen == []


async def test_a_missing_field_is_named(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/v1/classify", json={})
    problem(response, 422, "INVALID_REQUEST", "/message", "/channel")


@pytest.mark.parametrize("length", [1, 5000])
async def test_the_longest_and_shortest_message_pass(client: httpx.AsyncClient, length: int) -> None:
    assert (await client.post("/api/v1/classify", json=GOOD | {"message": "é" * length})).status_code == 200


async def test_an_answer_never_repeats_what_was_sent(client: httpx.AsyncClient) -> None:
    secret = "ann@example.org"
    for body in ({"message": secret, "channel": secret}, {"message": secret * 400, "channel": "chat"}):
        response = await client.post("/api/v1/classify", json=body)
        assert response.status_code == 422
        assert secret not in response.text


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b'{"message": NaN}',
        b"\xff\xfe{}",
        '{"message":"\ud800"}'.encode("utf-8", "surrogatepass"),
        b"[" * 5000,
    ],
)
async def test_what_is_not_json_in_utf8_is_400(client: httpx.AsyncClient, body: bytes) -> None:
    problem(await client.post("/api/v1/classify", content=body, headers=JSON), 400, "MALFORMED_BODY")


@pytest.mark.parametrize("body", [b"[]", b"3", b'"text"', b"null"])
async def test_json_that_is_no_object_is_422(client: httpx.AsyncClient, body: bytes) -> None:
    response = await client.post("/api/v1/classify", content=body, headers=JSON)
    assert response.status_code == 422
    assert response.json()["code"] == "INVALID_REQUEST"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
async def test_another_media_type_is_415(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    response = await client.post("/api/v1/classify", content=b"{}", headers=headers)
    problem(response, 415, "UNSUPPORTED_MEDIA_TYPE")


async def test_a_large_body_is_413_announced_or_not(client: httpx.AsyncClient, world: World) -> None:
    problem(await client.post("/api/v1/classify", content=b" " * 1_000_000, headers=JSON), 413, "BODY_TOO_LARGE")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 10_000

    problem(await client.post("/api/v1/classify", content=chunks(), headers=JSON), 413, "BODY_TOO_LARGE")
    assert world.router.seen == []


async def test_a_lying_content_length_is_400(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/v1/classify", content=b"{}", headers=JSON | {"Content-Length": "-1"})
    problem(response, 400, "MALFORMED_BODY")


@pytest.mark.parametrize("path", ["/nope", "/api/v1/nope", "/health/", "/api/v1/customers/customer_123/nope"])
async def test_an_unknown_route_is_404(client: httpx.AsyncClient, path: str) -> None:
    problem(await client.get(path), 404, "NO_SUCH_ROUTE")
    problem(await client.post(path, content=b"x"), 404, "NO_SUCH_ROUTE")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/v1/classify", {"POST"}),
        ("PUT", "/api/v1/classify", {"POST"}),
        ("PUT", "/api/v1/sessions", {"GET", "POST"}),
        ("POST", "/api/v1/sessions/ses_1", {"GET", "DELETE"}),
        ("POST", CONTEXT, {"GET", "HEAD"}),
        ("DELETE", "/health", {"GET"}),
    ],
)
async def test_a_wrong_method_is_405_with_all_that_are_allowed(
    client: httpx.AsyncClient, method: str, path: str, allowed: set[str]
) -> None:
    response = await client.request(method, path)
    problem(response, 405, "METHOD_NOT_ALLOWED")
    assert {each.strip() for each in response.headers["allow"].split(",")} == allowed


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("deadline_ms=0", "/query/deadline_ms"),
        ("deadline_ms=5001", "/query/deadline_ms"),
        ("deadline_ms=%F0%9F%91%8B", "/query/deadline_ms"),
        ("deadline_ms=" + "9" * 5000, "/query/deadline_ms"),
        ("max_age_ms=-1", "/query/max_age_ms"),
        ("force_refresh=perhaps", "/query/force_refresh"),
        ("format=xml", "/query/format"),
        ("required=a,,b", "/query/required"),
        ("agent_type=", "/query/agent_type"),
        ("agent_type=a&agent_type=b", "/query/agent_type"),
        ("message=%20", "/query/message"),
        ("colour=blue", "/query/colour"),
        ("message=%ff", "/query"),
    ],
)
async def test_a_context_parameter_that_does_not_fit_is_named(
    client: httpx.AsyncClient, query: str, pointer: str
) -> None:
    problem(await client.get(f"{CONTEXT}?{query}"), 422, "INVALID_REQUEST", pointer)


async def test_context_of_unknown_or_malformed_customers(client: httpx.AsyncClient) -> None:
    problem(await client.get("/api/v1/customers/customer_9/context"), 404, "UNKNOWN_CUSTOMER")
    malformed = await client.get("/api/v1/customers/a%20b/context")
    problem(malformed, 422, "INVALID_REQUEST", "/path/customer_id")
    too_long = await client.get(f"/api/v1/customers/{'c' * 65}/context/summary")
    problem(too_long, 422, "INVALID_REQUEST", "/path/customer_id")


async def test_an_unknown_agent_type_is_422(client: httpx.AsyncClient) -> None:
    problem(await client.get(f"{CONTEXT}?agent_type=astrologer"), 422, "UNKNOWN_AGENT_TYPE")
    problem(await client.post("/api/v1/sessions", json={"agent_type": "astrologer"}), 422, "UNKNOWN_AGENT_TYPE")


async def test_session_ids_and_lists(client: httpx.AsyncClient) -> None:
    problem(await client.get("/api/v1/sessions/nonsense"), 422, "INVALID_REQUEST", "/path/session_id")
    problem(await client.get("/api/v1/sessions/ses_unknown"), 404, "NOT_FOUND")
    problem(await client.delete("/api/v1/sessions/ses_unknown"), 404, "NOT_FOUND")
    problem(await client.get("/api/v1/sessions"), 422, "INVALID_REQUEST", "/query/customer_id")
    unknown = await client.get("/api/v1/sessions?customer_id=c&colour=blue")
    problem(unknown, 422, "INVALID_REQUEST", "/query/colour")
    lost = await client.get("/api/v1/sessions?customer_id=c&cursor=ses_gone")
    problem(lost, 422, "INVALID_REQUEST", "/query/cursor")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (DatabaseUnavailable("postgres://user:hunter2@db"), 503, "DATABASE_UNAVAILABLE"),
        (ModelUnavailable("hunter2"), 503, "MODEL_UNAVAILABLE"),
        (DeadlineExceeded("hunter2"), 504, "DEADLINE_EXCEEDED"),
        (RuntimeError("hunter2"), 500, "INTERNAL"),
        (KeyError("hunter2"), 500, "INTERNAL"),
    ],
)
async def test_no_exception_text_ever_reaches_a_client(
    client: httpx.AsyncClient, world: World, error: Exception, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.router.fails = world.reader.fails = error
    for response in (await client.post("/api/v1/classify", json=GOOD), await client.get(CONTEXT)):
        document = problem(response, status, code)
        assert "hunter2" not in response.text
        assert document["detail"]
        assert ("retry-after" in response.headers) == (status == 503)
    assert len([record for record in caplog.records if record.message == "request failed"]) == 2


async def test_a_defect_is_logged_once_with_its_trace(
    client: httpx.AsyncClient, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.router.fails = RuntimeError("boom")
    await client.post("/api/v1/classify", json=GOOD)
    (record,) = [record for record in caplog.records if record.name == "rapport.ingress"]
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "boom"
