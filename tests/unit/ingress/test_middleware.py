"""What every request meets before its route, on both applications alike."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from deployments.ingress.middleware import stack
from models.settings import Credential, IngressSettings, Settings
from models.telemetry import JsonFormatter, NoMetrics
from tests.fakes.ingress import FakeRateLimiter, World
from tests.unit.ingress.problem import problem

CONTEXT = "/api/v1/customers/customer_123/context"
CLASSIFY = {"message": "hello", "channel": "chat"}
KEY = "k-support-0123456789"
PATHS = ("/api/v1/sessions?customer_id=customer_123", CONTEXT)
OPEN = ("/", "/health", "/ready", "/metrics", "/docs", "/openapi.json")


def _keyed(requests_per_minute: int = 60) -> World:
    support = Credential(name="support-desk", agent_types=("support",), requests_per_minute=requests_per_minute)
    other = Credential(name="sales-desk", agent_types=("sales",))
    return World(settings=Settings(ingress=IngressSettings(api_keys={KEY: support, "k-sales": other})))


@pytest.mark.parametrize("path", PATHS)
async def test_once_keys_are_set_every_route_wants_one(path: str) -> None:
    world = _keyed()
    async with world.client() as client:
        missing = await client.get(path)
        problem(missing, 401, "UNAUTHORIZED")
        assert missing.headers["www-authenticate"].startswith("Bearer")
        for wrong in ("Bearer wrong", f"Basic {KEY}", "Bearer", f"Bearer {KEY}x"):
            problem(await client.get(path, headers={"Authorization": wrong}), 401, "UNAUTHORIZED")
        twice = [("Authorization", f"Bearer {KEY}"), ("Authorization", "Bearer wrong")]
        problem(await client.get(path, headers=twice), 401, "UNAUTHORIZED")
        assert (await client.get(path, headers={"Authorization": f"Bearer {KEY}"})).status_code == 200


async def test_what_operates_the_service_needs_no_key() -> None:
    async with _keyed().client(host="203.0.113.9") as client:
        for path in OPEN:
            assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize(
    ("client_host", "host", "status"),
    [
        ("127.0.0.1", "127.0.0.1:8000", 200),
        ("::1", "[::1]:8000", 200),
        ("127.0.0.1", "localhost", 200),
        ("203.0.113.9", "127.0.0.1:8000", 401),
        ("127.0.0.1", "attacker.example", 401),
        ("127.0.0.1", "127.0.0.1.attacker.example", 401),
    ],
)
async def test_without_a_key_only_this_machine_is_served(
    world: World, client_host: str, host: str, status: int
) -> None:
    async with world.client(host=client_host) as client:
        for path in PATHS:
            assert (await client.get(path, headers={"Host": host})).status_code == status


async def test_an_agent_type_outside_the_credential_is_403() -> None:
    world = _keyed()
    async with world.client(key=KEY) as client:
        assert (await client.get(f"{CONTEXT}?agent_type=support")).status_code == 200
        assert (await client.get(CONTEXT)).status_code == 200
        problem(await client.get(f"{CONTEXT}?agent_type=sales"), 403, "FORBIDDEN")
        problem(await client.get(f"{CONTEXT}/summary?agent_type=sales"), 403, "FORBIDDEN")
        problem(await client.post("/api/v1/sessions", json={"agent_type": "sales"}), 403, "FORBIDDEN")
    assert world.conversation.sessions == {}


async def test_another_credential_reaches_neither_session_nor_campaign() -> None:
    world = _keyed()
    async with world.client(key=KEY) as client:
        await client.post("/api/v1/sessions", json={"customer_id": "customer_123"})
        await client.post("/api/v1/campaigns", json={}, headers={"Idempotency-Key": "k"})
    async with world.client(key="k-sales") as other:
        problem(await other.get("/api/v1/sessions/ses_0001"), 403, "FORBIDDEN")
        problem(await other.post("/api/v1/sessions/ses_0001/messages", json={"text": "hi"}), 403, "FORBIDDEN")
        problem(await other.get("/api/v1/campaigns/cpn_1"), 403, "FORBIDDEN")
        problem(await other.get("/api/v1/campaigns/cpn_1/report"), 403, "FORBIDDEN")
        assert (await other.get("/api/v1/sessions?customer_id=customer_123")).json()["sessions"] == []


async def test_a_spent_budget_is_429_over_both_applications() -> None:
    world = _keyed(requests_per_minute=2)
    async with world.client(key=KEY) as client:
        for path in PATHS:
            assert (await client.get(path)).status_code == 200
        for path in PATHS:
            refused = await client.get(path)
            assert problem(refused, 429, "RATE_LIMITED")["retry_after_ms"] == 12_200
            assert refused.headers["retry-after"] == "13"
        assert (await client.get("/health")).status_code == 200


async def test_anonymous_callers_are_not_limited(client: httpx.AsyncClient, world: World) -> None:
    for _ in range(100):
        assert (await client.get(CONTEXT)).status_code == 200
    assert not world.rate_limiter.taken


async def test_overload_is_503_at_once_and_passes() -> None:
    world = World(settings=Settings(ingress=IngressSettings(max_concurrent=2)))
    world.router.gate = asyncio.Event()
    async with world.client() as client:
        running = [asyncio.create_task(client.post("/api/v1/classify", json=CLASSIFY)) for _ in range(2)]
        for _ in running:
            await world.router.arrived.acquire()
        refused = await client.post("/api/v1/classify", json=CLASSIFY)
        problem(refused, 503, "OVERLOADED")
        labels = {"route": "/api/v1/classify", "method": "POST", "status": "503"}
        assert ("http_requests_total", labels) in world.metrics.counted
        assert int(refused.headers["retry-after"]) >= 1
        for path in OPEN:
            assert (await client.get(path)).status_code == 200
        world.router.gate.set()
        assert [answer.status_code for answer in await asyncio.gather(*running)] == [200, 200]
        assert (await client.post("/api/v1/classify", json=CLASSIFY)).status_code == 200


async def test_the_request_id_is_kept_when_sane_and_made_when_not(client: httpx.AsyncClient) -> None:
    for path in ("/health", CONTEXT):
        assert (await client.get(path, headers={"X-Request-Id": "abc-1.2:3"})).headers["x-request-id"] == "abc-1.2:3"
        for given in (b"", b"a b", b"x" * 129, "ü".encode()):
            made = (await client.get(path, headers={b"X-Request-Id": given})).headers["x-request-id"]
            assert made.startswith("req_")
        one, two = [(await client.get(path)).headers["x-request-id"] for _ in range(2)]
        assert one != two


async def test_headers_that_lift_the_servers_limits_do_not_reach_the_application() -> None:
    async def echo(request: Request) -> JSONResponse:
        return JSONResponse(dict(request.headers))

    app = Starlette(routes=[Route("/echo", echo)])
    layered = stack(app, IngressSettings(), rate_limiter=FakeRateLimiter(), metrics=NoMetrics())
    transport = httpx.ASGITransport(app=layered)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        headers = {"X-Request-Timeout-Seconds": "9999", "X-Request-Disconnect-Disabled": "?1", "X-Kept": "1"}
        seen = (await client.get("/echo", headers=headers)).json()
    assert seen["x-kept"] == "1"
    assert not {"x-request-timeout-seconds", "x-request-disconnect-disabled"} & set(seen)


async def test_half_an_answer_is_cut_off_not_finished() -> None:
    async def broken(request: Request) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"half"
            raise RuntimeError("boom")

        return StreamingResponse(pieces())

    app = Starlette(routes=[Route("/broken", broken)])
    layered = stack(app, IngressSettings(), rate_limiter=FakeRateLimiter(), metrics=NoMetrics())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=layered), base_url="http://127.0.0.1") as client:
        with pytest.raises(RuntimeError):
            await client.get("/broken")


async def test_every_answer_carries_security_headers(client: httpx.AsyncClient) -> None:
    for response in (await client.get("/health"), await client.get(CONTEXT), await client.get("/nope")):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-frame-options"] == "DENY"
        assert response.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in response.headers["content-security-policy"]


@pytest.fixture
def access_log() -> Iterator[io.StringIO]:
    """The access log as it is printed."""
    printed, logger = io.StringIO(), logging.getLogger("rapport.access")
    handler, level = logging.StreamHandler(printed), logger.level
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield printed
    logger.removeHandler(handler)
    logger.setLevel(level)


async def test_log_and_metrics_name_the_route_and_hold_no_personal_data(access_log: io.StringIO) -> None:
    world = _keyed()
    async with world.client(key=KEY) as client:
        await client.get(f"{CONTEXT}?message=my%20name%20is%20Ann")
        await client.get("/api/v1/customers/ann/nope/ann")
        await client.post("/api/v1/classify", json={"message": "I am Ann", "channel": "chat"})
    lines = [json.loads(line) for line in access_log.getvalue().splitlines()]
    assert [(line["method"], line["route"], line["status"], line["principal"]) for line in lines] == [
        ("GET", "/api/v1/customers/{customer_id}/context", 200, "key:support-desk"),
        ("GET", "unmatched", 404, "key:support-desk"),
        ("POST", "/api/v1/classify", 200, "key:support-desk"),
    ]
    assert all(line["duration_ms"] >= 0 and line["request_id"] for line in lines)
    # A request id is random letters, which may well spell a name.
    everything = str([{**line, "request_id": ""} for line in lines]) + str(world.metrics)
    for secret in ("Ann", "ann", "customer_123", KEY):
        assert secret not in everything
    assert (
        "http_requests_total",
        {"route": "/api/v1/classify", "method": "POST", "status": "200"},
    ) in world.metrics.counted


async def test_keys_are_kept_as_digests_only() -> None:
    world = _keyed()
    admission = world.api._app
    assert KEY not in str(vars(admission._authenticator))  # type: ignore[attr-defined]  # looking inside on purpose


async def test_an_invented_method_is_no_metric_label(client: httpx.AsyncClient, world: World) -> None:
    await client.request("BREW", "/health")
    assert {labels["method"] for name, labels in world.metrics.counted if name == "http_requests_total"} == {"OTHER"}
