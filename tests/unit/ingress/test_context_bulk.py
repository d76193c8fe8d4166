"""Context of many customers, forgetting it, and its history over HTTP, in process."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import jsonschema
import pytest

from models.enrichment.types import ContextRequest, HistoryEntry
from models.errors import CacheUnavailable, DeadlineExceeded
from models.settings import Credential, IngressSettings, Settings
from tests.fakes.ingress import World
from tests.fakes.talks import NOW
from tests.unit.ingress.problem import problem

READ = "/api/v1/context:read"
INVALIDATE = "/api/v1/context:invalidate"
HISTORY = "/api/v1/customers/customer_123/context/history"


@pytest.fixture
def guarded() -> World:
    """Keys for support, and for nobody in particular."""
    keys = {
        "support-key": Credential(name="support", agent_types=("support",)),
        "masked-key": Credential(name="masked"),
    }
    return World(settings=Settings(ingress=IngressSettings(api_keys=keys)))


async def test_many_are_read_in_order_and_once_each(client: httpx.AsyncClient, world: World) -> None:
    sent = {
        "customer_ids": ["b", "a", "b"],
        "agent_type": "support",
        "deadline_ms": 5000,
        "max_age_ms": 10,
        "force_refresh": True,
        "required": ["account_health"],
    }
    response = await client.post(READ, json=sent)
    assert response.headers["content-type"] == "application/json"
    assert response.json()["unknown"] == ["b", "a"]
    (call,) = world.reader.calls
    assert 4 < call.deadline.remaining_s() <= 5
    assert call == ContextRequest(
        deadline=call.deadline,
        agent_type="support",
        required=("account_health",),
        max_age_ms=10,
        force_refresh=True,
    )


async def test_a_thousand_may_be_read_and_have_two_seconds(client: httpx.AsyncClient, world: World) -> None:
    ids = [f"customer_{number}" for number in range(1000)]
    assert (await client.post(READ, json={"customer_ids": ids})).status_code == 200
    assert world.contexts.read == [ids]
    (call,) = world.reader.calls
    assert 1 < call.deadline.remaining_s() <= 2
    assert call == ContextRequest(deadline=call.deadline)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"customer_ids": []}, "/customer_ids"),
        ({"customer_ids": [f"c{number}" for number in range(1001)]}, "/customer_ids"),
        ({"customer_ids": "customer_1"}, "/customer_ids"),
        ({"customer_ids": ["a", "../etc", "b"]}, "/customer_ids/1"),
        ({"customer_ids": ["a", "c" * 65]}, "/customer_ids/1"),
        ({"customer_ids": [1]}, "/customer_ids/0"),
        ({"deadline_ms": 0}, "/deadline_ms"),
        ({"deadline_ms": -1}, "/deadline_ms"),
        ({"deadline_ms": 5001}, "/deadline_ms"),
        ({"deadline_ms": 10**18}, "/deadline_ms"),
        ({"deadline_ms": 250.0}, "/deadline_ms"),
        ({"deadline_ms": True}, "/deadline_ms"),
        ({"max_age_ms": -1}, "/max_age_ms"),
        ({"force_refresh": "yes"}, "/force_refresh"),
        ({"required": ["a b"]}, "/required/0"),
        ({"agent_type": ""}, "/agent_type"),
        ({"message": "Why was I charged?"}, "/message"),
        ({"format": "prompt"}, "/format"),
    ],
)
async def test_a_bulk_read_that_does_not_fit_is_named(
    client: httpx.AsyncClient, world: World, change: dict[str, Any], pointer: str
) -> None:
    response = await client.post(READ, json={"customer_ids": ["customer_1"]} | change)
    problem(response, 422, "INVALID_REQUEST", pointer)
    assert world.reader.calls == []


async def test_a_bulk_read_is_for_the_agent_types_of_the_credential(guarded: World) -> None:
    async with guarded.client(key="support-key") as client:
        body = {"customer_ids": ["customer_1"], "agent_type": "sales"}
        problem(await client.post(READ, json=body), 403, "FORBIDDEN")
        assert (await client.post(READ, json=body | {"agent_type": "support"})).status_code == 200
        assert (await client.post(READ, json={"customer_ids": ["customer_1"]})).status_code == 200
    async with guarded.client(key="masked-key") as client:
        assert (await client.post(READ, json={"customer_ids": ["customer_1"]})).status_code == 200


async def test_a_required_provider_that_is_absent_is_504(client: httpx.AsyncClient, world: World) -> None:
    world.reader.fails = DeadlineExceeded("account_health")
    problem(await client.post(READ, json={"customer_ids": ["customer_1"]}), 504, "DEADLINE_EXCEEDED")


async def test_invalidating_says_what_was_told(client: httpx.AsyncClient, world: World) -> None:
    sent = {"customer_ids": ["a", "b", "a"], "tags": ["usage"]}
    response = await client.post(INVALIDATE, json=sent)
    assert (response.status_code, response.json()) == (200, {"invalidated": {"customers": 2, "tags": 1}})
    assert (await client.post(INVALIDATE, json={"tags": ["incidents"]})).status_code == 200
    assert world.contexts.invalidated == [(["a", "b"], ["usage"]), ([], ["incidents"])]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, ""),
        ({"customer_ids": [], "tags": []}, ""),
        ({"customer_ids": ["a b"]}, "/customer_ids/0"),
        ({"customer_ids": ["a"] * 1001}, "/customer_ids"),
        ({"tags": ["a b"]}, "/tags/0"),
        ({"tags": ["*" * 65]}, "/tags/0"),
        ({"customer_id": "a"}, "/customer_id"),
    ],
)
async def test_an_invalidation_that_does_not_fit_is_named(
    client: httpx.AsyncClient, world: World, body: dict[str, Any], pointer: str
) -> None:
    problem(await client.post(INVALIDATE, json=body), 422, "INVALID_REQUEST", pointer)
    assert world.contexts.invalidated == []


async def test_an_invalidation_that_reached_not_everyone_is_503_and_may_be_repeated(
    client: httpx.AsyncClient, world: World
) -> None:
    world.contexts.fails = CacheUnavailable("redis://hunter2")
    response = await client.post(INVALIDATE, json={"tags": ["usage"]})
    assert problem(response, 503, "CACHE_UNAVAILABLE")["retryable"] is True
    assert response.headers["retry-after"] == "1"
    assert "hunter2" not in response.text


async def test_who_covers_no_agent_type_changes_nothing(guarded: World) -> None:
    event = {"type": "customer.changed", "customer_id": "customer_1"}
    for key, status in (("masked-key", 403), ("support-key", 200)):
        async with guarded.client(key=key) as client:
            assert (await client.post(INVALIDATE, json={"tags": ["usage"]})).status_code == status
            told = await client.post("/api/v1/events", json={"events": [event]})
            assert told.status_code == (202 if status == 200 else 403)


def entry(number: int, **company: object) -> HistoryEntry:
    return HistoryEntry(
        customer_id="customer_123",
        agent_type="support",
        context_version=f"v-{number}",
        content={"customer_intelligence": {"plan": "premium", **company}},
        sources={"customer_intelligence": "database"},
        at=NOW + timedelta(minutes=number),
    )


async def test_history_is_read_in_pages_that_say_what_changed(client: httpx.AsyncClient, world: World) -> None:
    world.history.entries = [entry(3, mrr=3), entry(2, mrr=2), entry(1, mrr=1)]
    first = (await client.get(f"{HISTORY}?agent_type=support&limit=2")).json()
    assert (first["customer_id"], first["agent_type"]) == ("customer_123", "support")
    assert [(each["context_version"], each["previous_version"]) for each in first["versions"]] == [
        ("v-3", "v-2"),
        ("v-2", "v-1"),
    ]
    assert first["versions"][0]["changes"] == [
        {
            "field": "customer_intelligence.mrr",
            "source": "database",
            "before": 2,
            "after": 3,
            "at": "2026-11-21T12:03:00Z",
        }
    ]
    rest = (await client.get(f"{HISTORY}?agent_type=support&limit=2&cursor={first['next_cursor']}")).json()
    assert [each["context_version"] for each in rest["versions"]] == ["v-1"]
    assert rest["next_cursor"] is None
    assert world.history.asked == [("customer_123", "support")] * 2


async def test_history_without_an_agent_type_names_the_one_it_is_of(client: httpx.AsyncClient, world: World) -> None:
    world.history.entries = [entry(2), entry(1)]
    for query in ("", "?from=v-1&to=v-2"):
        assert (await client.get(HISTORY + query)).json()["agent_type"] == "general"
    assert world.history.asked == [("customer_123", "general")] * 2


async def test_history_of_nobody_is_404(client: httpx.AsyncClient) -> None:
    problem(await client.get("/api/v1/customers/nobody/context/history"), 404, "UNKNOWN_CUSTOMER")


async def test_two_versions_are_compared(client: httpx.AsyncClient, world: World) -> None:
    world.history.entries = [entry(3, mrr=3), entry(2), entry(1, mrr=1)]
    answer = (await client.get(f"{HISTORY}?from=v-1&to=v-3")).json()
    assert (answer["from"], answer["to"]) == ("v-1", "v-3")
    assert [(each["before"], each["after"]) for each in answer["changes"]] == [(1, 3)]
    problem(await client.get(f"{HISTORY}?from=v-1&to=v-9"), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("query", "pointers"),
    [
        ("from=v-1", ["/query/to"]),
        ("to=v-1", ["/query/from"]),
        ("from=v-1&to=v-2&limit=3", ["/query/limit"]),
        ("from=v-1&cursor=3", ["/query/to", "/query/cursor"]),
        ("limit=0", ["/query/limit"]),
        ("limit=101", ["/query/limit"]),
        ("cursor=%20", ["/query/cursor"]),
        ("from=a%20b&to=v-1", ["/query/from"]),
        ("deadline_ms=20", ["/query/deadline_ms"]),
    ],
)
async def test_a_history_query_that_does_not_fit_is_named(
    client: httpx.AsyncClient, world: World, query: str, pointers: list[str]
) -> None:
    problem(await client.get(f"{HISTORY}?{query}"), 422, "INVALID_REQUEST", *pointers)
    assert world.history.asked == []


async def test_history_is_for_the_agent_types_of_the_credential(guarded: World) -> None:
    async with guarded.client(key="support-key") as client:
        problem(await client.get(f"{HISTORY}?agent_type=sales"), 403, "FORBIDDEN")


async def test_history_of_a_malformed_customer_is_422(client: httpx.AsyncClient) -> None:
    response = await client.get("/api/v1/customers/a%20b/context/history")
    problem(response, 422, "INVALID_REQUEST", "/path/customer_id")


async def test_the_documented_history_is_the_one_that_is_sent(client: httpx.AsyncClient, world: World) -> None:
    world.history.entries = [entry(2, mrr=2), entry(1, mrr=1)]
    document = (await client.get("/openapi.json")).json()
    for name, query in (("ContextVersions", ""), ("ContextComparison", "?from=v-1&to=v-2")):
        sent = (await client.get(HISTORY + query)).json()
        jsonschema.validate(sent, {**document, "$ref": f"#/components/schemas/{name}"})
