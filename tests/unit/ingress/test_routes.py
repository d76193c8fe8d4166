"""The five paths over HTTP, in process."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import jsonschema
import orjson
import pytest

from deployments.ingress.services import DependencyReport, DependencyState
from models.enrichment.encoding import encode, splice, splice_summary
from models.enrichment.types import (
    ContextRequest,
    EnrichedContext,
    ProviderOutcome,
    ProviderState,
    ReadFormat,
    ServedFrom,
    SupportHistory,
)
from models.errors import ModelUnavailable, Overloaded
from models.settings import Settings
from providers.systems.campaigns import CampaignStatus
from tests.fakes.ingress import FakeReader, World
from tests.fakes.talks import NOW
from tests.unit.ingress.problem import problem

CONTEXT = "/api/v1/customers/customer_123/context"


async def test_classify_answers_with_the_documented_fields(client: httpx.AsyncClient, world: World) -> None:
    sent = {"message": "Where is ORD-1001?", "channel": "mail", "customer_id": "customer_123", "metadata": {"k": "v"}}
    response = await client.post("/api/v1/classify", json=sent, headers={"X-Request-Id": "req-42"})
    assert response.status_code == 200
    answer = response.json()
    assert {
        "category": "service_action",
        "confidence": 0.91,
        "intent": "track_order",
        "next_step": "confirm_action",
        "decision_path": ["classified", "order checked"],
        "entities": {"order_id": "ORD-1001", "owned": True},
        "request_id": "req-42",
    }.items() <= answer.items()
    assert answer["processing_time_ms"] >= 0
    assert answer["citations"] == [
        {"document_id": "doc_1", "title": "Inviting colleagues", "quote": "Open Settings, then Team.", "version": "3"}
    ]
    (message,) = world.router.seen
    assert (message.text, message.channel, message.customer_id, dict(message.metadata), message.request_id) == (
        "Where is ORD-1001?",
        "mail",
        "customer_123",
        {"k": "v"},
        "req-42",
    )


async def test_context_bytes_pass_through_untouched(world: World) -> None:
    odd = b'{"customer_id" :\t"customer_123","b":1.0,  "a":"\xc3\xa9"}'
    world = replace(world, reader=FakeReader(body=odd))
    async with world.client() as client:
        response = await client.get(CONTEXT)
    assert response.content == odd
    assert response.headers["content-type"] == "application/json"


async def test_context_says_which_cache_answered(client: httpx.AsyncClient) -> None:
    first, second = await client.get(CONTEXT), await client.get(CONTEXT)
    forced = await client.get(f"{CONTEXT}?force_refresh=true")
    assert first.headers["cache-status"] == "rapport-l2; fwd=miss, rapport-l1; fwd=miss"
    assert "age" not in first.headers
    assert second.headers["cache-status"] == "rapport-l1; hit; ttl=27"
    assert second.headers["age"] == "2"
    assert forced.headers["cache-status"] == "rapport-l2; fwd=request, rapport-l1; fwd=request"
    assert second.headers["context-version"] == "v-1"
    assert second.headers["context-complete"] == "true"


async def test_context_parameters_reach_the_reader(client: httpx.AsyncClient, world: World) -> None:
    query = "agent_type=support&deadline_ms=5000&max_age_ms=10&required=crm,billing&format=prompt&max_tokens=64"
    response = await client.get(f"{CONTEXT}?{query}&message=hi%20there")
    assert response.text == "Customer: Acme Corp"
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    (call,) = world.reader.calls
    assert 4 < call.deadline.remaining_s() <= 5
    assert call == ContextRequest(
        deadline=call.deadline,
        agent_type="support",
        message="hi there",
        max_age_ms=10,
        required=("crm", "billing"),
        format=ReadFormat.PROMPT,
        max_tokens=64,
    )


async def test_context_deadline_defaults_to_the_setting(client: httpx.AsyncClient, world: World) -> None:
    assert (await client.get(f"{CONTEXT}/summary")).status_code == 200
    (call,) = world.reader.calls
    assert 0 < call.deadline.remaining_s() <= 0.25
    assert call == ContextRequest(deadline=call.deadline, format=ReadFormat.SUMMARY)


async def test_context_says_when_it_is_masked_and_who_decided_how_it_was_read(world: World) -> None:
    async with world.client() as client:
        plain = await client.get(CONTEXT)
    assert not {"context-masked", "context-strategy"} & set(plain.headers)
    world = replace(world, reader=FakeReader(masked=True, strategy="budget/fast"))
    async with world.client() as client:
        marked = await client.get(CONTEXT)
    assert (marked.headers["context-masked"], marked.headers["context-strategy"]) == ("true", "budget/fast")


async def test_a_session_from_opening_to_end(client: httpx.AsyncClient) -> None:
    opened = await client.post("/api/v1/sessions", json={"customer_id": "customer_123", "agent_type": "support"})
    assert opened.status_code == 201
    session_id = opened.json()["session_id"]
    sent = {"text": "How do I invite a colleague?", "client_message_id": "m-1"}
    reply = await client.post(f"/api/v1/sessions/{session_id}/messages?wait=true", json=sent)
    assert reply.status_code == 200
    assert {"outcome": "answered", "reply": "Open Settings, then Team."}.items() <= reply.json().items()
    assert reply.json()["usage"] == {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
    assert reply.json()["citations"][0]["quote"] == "Open Settings, then Team."
    (turn,) = (await client.get(f"/api/v1/sessions/{session_id}")).json()["turns"]
    assert (turn["text"], turn["outcome"], turn["at"]) == (sent["text"], "answered", "2026-11-21T12:00:00Z")
    assert (await client.delete(f"/api/v1/sessions/{session_id}")).json()["status"] == "ended"
    for query in ("?wait=true", ""):
        problem(
            await client.post(
                f"/api/v1/sessions/{session_id}/messages{query}", json=sent | {"client_message_id": "m-2"}
            ),
            409,
            "CONFLICT",
        )


async def test_sessions_are_listed_in_pages(client: httpx.AsyncClient) -> None:
    for _ in range(3):
        await client.post("/api/v1/sessions", json={"customer_id": "customer_123"})
    first = (await client.get("/api/v1/sessions?customer_id=customer_123&limit=2")).json()
    assert [s["session_id"] for s in first["sessions"]] == ["ses_0003", "ses_0002"]
    rest = (await client.get(f"/api/v1/sessions?customer_id=customer_123&cursor={first['next_cursor']}")).json()
    assert [s["session_id"] for s in rest["sessions"]] == ["ses_0001"]
    assert rest["next_cursor"] is None


async def _ended_turns(client: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
    """The session's turns, once none of them runs any more."""
    for _ in range(1000):
        turns: list[dict[str, Any]] = (await client.get(path)).json()["turns"]
        if turns and all(turn["outcome"] for turn in turns):
            return turns
        await asyncio.sleep(0)
    raise AssertionError("a turn never ended")


async def _opened(client: httpx.AsyncClient) -> str:
    session_id: str = (await client.post("/api/v1/sessions", json={})).json()["session_id"]
    return f"/api/v1/sessions/{session_id}"


async def test_without_wait_the_turn_runs_on_and_shows_in_the_session(client: httpx.AsyncClient, world: World) -> None:
    path = await _opened(client)
    world.conversation.gate = asyncio.Event()
    accepted = await client.post(f"{path}/messages", json={"text": "hello"})
    assert accepted.status_code == 202
    assert accepted.headers["location"] == path
    await world.conversation.arrived.acquire()
    (turn,) = (await client.get(path)).json()["turns"]
    assert (turn["turn_id"], turn["outcome"]) == (accepted.json()["turn_id"], None)
    world.conversation.gate.set()
    (turn,) = await _ended_turns(client, path)
    assert turn["outcome"] == "answered"


async def test_the_same_client_message_id_makes_one_turn(client: httpx.AsyncClient, world: World) -> None:
    path = await _opened(client)
    sent = {"text": "hello", "client_message_id": "m-1"}
    first = await client.post(f"{path}/messages", json=sent)
    await _ended_turns(client, path)
    again = await client.post(f"{path}/messages", json=sent)
    assert again.json() == first.json()
    assert len(await _ended_turns(client, path)) == 1
    other = await client.post(f"{path}/messages", json=sent | {"text": "another"})
    problem(other, 422, "IDEMPOTENCY_MISMATCH", "/client_message_id")


async def test_a_client_that_goes_away_does_not_end_its_turn(client: httpx.AsyncClient, world: World) -> None:
    path = await _opened(client)
    world.conversation.gate = asyncio.Event()
    waiting = asyncio.create_task(client.post(f"{path}/messages?wait=true", json={"text": "hello"}))
    await world.conversation.arrived.acquire()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    world.conversation.gate.set()
    (turn,) = await _ended_turns(client, path)
    assert turn["outcome"] == "answered"


async def test_a_failed_turn_is_a_problem_when_waited_for_and_a_log_line_when_not(
    client: httpx.AsyncClient, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    path = await _opened(client)
    world.conversation.fails = ModelUnavailable("engine is misconfigured: key sk-123")
    waited = await client.post(f"{path}/messages?wait=true", json={"text": "hello"})
    problem(waited, 503, "MODEL_UNAVAILABLE")
    assert "sk-123" not in waited.text
    caplog.clear()
    assert (await client.post(f"{path}/messages", json={"text": "hello"})).status_code == 202
    for _ in range(5):
        await asyncio.sleep(0)
    assert "request failed" in caplog.messages


async def test_a_message_to_nowhere_is_refused_before_it_is_accepted(client: httpx.AsyncClient) -> None:
    problem(await client.post("/api/v1/sessions/ses_gone/messages", json={"text": "hello"}), 404, "NOT_FOUND")


async def test_a_campaign_starts_once_per_key(client: httpx.AsyncClient, world: World) -> None:
    body = {"name": "autumn", "customers": 500, "seed": 7}
    problem(await client.post("/api/v1/campaigns", json=body), 400, "MISSING_IDEMPOTENCY_KEY")
    key = {"Idempotency-Key": "k-1"}
    first = await client.post("/api/v1/campaigns", json=body, headers=key)
    # The same meaning, written differently: other order, default spelled out elsewhere.
    again = await client.post("/api/v1/campaigns", json=dict(reversed(body.items())), headers=key)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.content == again.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert list(world.campaigns.runs) == ["cpn_1"]
    other = await client.post("/api/v1/campaigns", json=body | {"seed": 8}, headers=key)
    problem(other, 422, "IDEMPOTENCY_MISMATCH")
    bad = await client.post("/api/v1/campaigns", json=body, headers={"Idempotency-Key": "k" * 129})
    problem(bad, 422, "INVALID_REQUEST", "/header/Idempotency-Key")


async def test_a_key_stays_usable_after_a_failure(client: httpx.AsyncClient, world: World) -> None:
    key = {"Idempotency-Key": "k-1"}
    world.campaigns.fails = Overloaded("four campaigns are running").with_retry_after(30)
    refused = await client.post("/api/v1/campaigns", json={}, headers=key)
    assert problem(refused, 503, "OVERLOADED")["retry_after_ms"] == 30_000
    assert refused.headers["retry-after"] == "30"
    world.campaigns.fails = None
    assert (await client.post("/api/v1/campaigns", json={}, headers=key)).status_code == 202


async def test_the_same_key_while_the_first_runs_is_409(client: httpx.AsyncClient, world: World) -> None:
    world.router.gate = asyncio.Event()
    body, key = {"message": "hello", "channel": "chat"}, {"Idempotency-Key": "k-1"}
    first = asyncio.create_task(client.post("/api/v1/classify", json=body, headers=key))
    await world.router.arrived.acquire()
    second = await client.post("/api/v1/classify", json=body, headers=key)
    problem(second, 409, "IN_PROGRESS")
    assert second.headers["retry-after"] == "1"
    world.router.gate.set()
    assert (await first).status_code == 200
    assert len(world.router.seen) == 1


async def test_what_carries_a_key_is_finished_when_its_client_goes_away(
    client: httpx.AsyncClient, world: World
) -> None:
    world.router.gate = asyncio.Event()
    body, key = {"message": "hello", "channel": "chat"}, {"Idempotency-Key": "k-1"}
    gone = asyncio.create_task(client.post("/api/v1/classify", json=body, headers=key))
    await world.router.arrived.acquire()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    world.router.gate.set()
    for _ in range(5):
        await asyncio.sleep(0)
    again = await client.post("/api/v1/classify", json=body, headers=key)
    assert again.headers["idempotent-replayed"] == "true"
    assert len(world.router.seen) == 1


async def test_what_carries_no_key_is_finished_too_when_its_client_goes_away(
    client: httpx.AsyncClient, world: World
) -> None:
    world.router.gate = asyncio.Event()
    gone = asyncio.create_task(client.post("/api/v1/classify", json={"message": "I can't breathe", "channel": "chat"}))
    await world.router.arrived.acquire()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    world.router.gate.set()
    await asyncio.wait_for(world.router.done.wait(), 5)


async def test_a_report_is_read_as_json_or_html(client: httpx.AsyncClient, world: World) -> None:
    await client.post("/api/v1/campaigns", json={}, headers={"Idempotency-Key": "k"})
    path = "/api/v1/campaigns/cpn_1"
    problem(await client.get(f"{path}/report"), 409, "CONFLICT")
    run = world.campaigns.runs["cpn_1"]
    world.campaigns.runs["cpn_1"] = replace(run, status=CampaignStatus.SUCCEEDED, progress=1.0, report_path="/data/r")
    shown = (await client.get(path)).json()
    assert (shown["status"], shown["progress"], shown["report"]) == ("succeeded", 1.0, f"{path}/report")
    assert "/data/r" not in str(shown)
    assert (await client.get(f"{path}/report")).json() == {"lift": 0.1}
    html = await client.get(f"{path}/report", headers={"Accept": "text/html"})
    assert html.text == "<h1>Report</h1>"
    assert "sandbox" in html.headers["content-security-policy"]
    assert (await client.get(f"{path}/report?format=html")).text == html.text
    problem(await client.get("/api/v1/campaigns/cpn_9/report"), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("state", "critical", "status", "word"),
    [
        (DependencyState.UP, True, 200, "ready"),
        (DependencyState.DEGRADED, True, 200, "degraded"),
        (DependencyState.DOWN, False, 200, "degraded"),
        (DependencyState.DOWN, True, 503, "not_ready"),
    ],
)
async def test_ready_names_every_dependency(
    client: httpx.AsyncClient, world: World, state: DependencyState, critical: bool, status: int, word: str
) -> None:
    world.readiness.reports = [DependencyReport(name="chroma", state=state, critical=critical, detail="no articles")]
    response = await client.get("/ready")
    assert (response.status_code, response.json()["status"]) == (status, word)
    assert response.json()["dependencies"]["chroma"] | {"latency_ms": 0.0} == {
        "state": state.value,
        "critical": critical,
        "detail": "no articles",
        "latency_ms": 0.0,
    }
    assert (await client.get("/health")).json() == {"status": "ok"}


async def test_the_documents_stand_alone(client: httpx.AsyncClient) -> None:
    landing = await client.get("/", headers={"Accept": "text/html,*/*"})
    docs = await client.get("/docs")
    for page in (landing, docs):
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "http://" not in page.text
        assert "https://" not in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "unsafe-inline" not in page.headers["content-security-policy"]
    assert (await client.get("/")).json()["docs"] == "/docs"


async def test_the_openapi_document_covers_both_applications(client: httpx.AsyncClient, world: World) -> None:
    document: dict[str, Any] = (await client.get("/openapi.json")).json()
    routed = {
        (method, prefix + getattr(route, "path", "").replace(":path}", "}"))
        for app, prefix in ((world.api, ""), (world.context, "/api/v1/customers"))
        for route in app.routes
        for method in getattr(route, "methods", ())
        if method != "HEAD"
    } - {("GET", "/"), ("GET", "/docs"), ("GET", "/openapi.json")}
    described = {(method.upper(), path) for path, operations in document["paths"].items() for method in operations}
    assert described == routed
    schemas = document["components"]["schemas"]
    assert _references(document) <= {f"#/components/schemas/{name}" for name in schemas}
    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["summary"]
            if "Operations" not in operation["tags"]:
                assert operation["security"] == [{"key": []}, {}]
                assert {"401", "403", "429", "500", "503"} <= set(operation["responses"])
            for status, response in operation["responses"].items():
                if int(status) >= 400 and "Operations" not in operation["tags"]:
                    shape = "application/json" if "OpenAI" in operation["tags"] else "application/problem+json"
                    assert set(response["content"]) == {shape}
    classify = schemas["ClassifyRequest"]
    assert classify["additionalProperties"] is False
    assert classify["properties"]["message"] | {"title": ""} == {
        "type": "string",
        "minLength": 1,
        "maxLength": 5000,
        "title": "",
    }
    assert classify["examples"]
    (key,) = [p for p in document["paths"]["/api/v1/campaigns"]["post"]["parameters"] if p["in"] == "header"]
    assert key["required"] is True


async def test_the_documented_context_is_the_one_that_is_sent(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    context = EnrichedContext(
        customer_id="customer_123",
        agent_type="support",
        context_version="v-1",
        enriched_at=NOW,
        outcomes=(
            ProviderOutcome(
                provider="tickets", section="support_history", state=ProviderState.FRESH, source="db", as_of=NOW
            ),
            ProviderOutcome(provider="flags", section="account_health", state=ProviderState.TIMEOUT, source="db"),
        ),
        support_history=SupportHistory(
            total_conversations=3, avg_csat=4.5, open_tickets=1, last_conversation_at=NOW, common_topics=("seats",)
        ),
    )
    stored = encode(context, expires_at_ms=0)
    body = splice(stored, now_ms=stored.oldest_ms + 5, served_from=ServedFrom.L1, deadline_ms=250, elapsed_ms=0.2)
    for name, sent in (("ContextBody", body), ("ContextSummary", splice_summary(stored, served_from=ServedFrom.L2))):
        jsonschema.validate(orjson.loads(sent), {**document, "$ref": f"#/components/schemas/{name}"})


def _references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(_references(child) for child in node.values()))
    if isinstance(node, list):
        return set().union(*(_references(child) for child in node))
    return set()


async def test_shutdown_lets_running_turns_end() -> None:
    world = World(settings=Settings())
    async with world.client() as client:
        path = await _opened(client)
        world.conversation.gate = asyncio.Event()
        await client.post(f"{path}/messages", json={"text": "hello"})
        inbox: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        told: asyncio.Queue[Any] = asyncio.Queue()
        inbox.put_nowait({"type": "lifespan.startup"})
        life = asyncio.create_task(world.api({"type": "lifespan", "asgi": {}}, inbox.get, told.put))
        assert (await told.get())["type"] == "lifespan.startup.complete"
        inbox.put_nowait({"type": "lifespan.shutdown"})
        for _ in range(5):
            await asyncio.sleep(0)
        assert told.empty()
        world.conversation.gate.set()
        assert (await told.get())["type"] == "lifespan.shutdown.complete"
        await life
        (turn,) = (await client.get(path)).json()["turns"]
        assert turn["outcome"] == "answered"
