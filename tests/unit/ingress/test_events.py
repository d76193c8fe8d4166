"""What other systems tell, over HTTP, in process: each event typed, the whole list or nothing, once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from models.enrichment.events import (
    ClosedConversation,
    Event,
    EventType,
    IncidentReport,
    ProductActivity,
    SecurityFinding,
)
from models.errors import DatabaseUnavailable, FieldError, InvalidRequest
from providers import product
from tests.fakes.ingress import World
from tests.unit.ingress.problem import problem

EVENTS = "/api/v1/events"
AT = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
SAID = "2026-11-21T10:30:00+01:00"

ACTIVITY = {
    "type": "product.activity",
    "customer_id": "customer_123",
    "contact_id": "con_123_1",
    "name": "feature_used",
    "feature": "Reports",
}
CLOSED = {
    "type": "conversation.closed",
    "customer_id": "customer_123",
    "conversation_id": "cnv_1",
    "channel": "chat",
    "topic": "billing",
    "resolved": True,
    "started_at": "2026-11-21T09:00:00Z",
    "ended_at": SAID,
}
FINDING = {
    "type": "security.event",
    "finding_id": "sec_1",
    "customer_id": "customer_123",
    "kind": "new_device",
    "severity": "low",
    "detail": "From Oslo",
}
INCIDENT = {
    "type": "incident.changed",
    "incident_id": "inc_1",
    "component": "calendar",
    "title": "Calendar slow",
    "severity": "minor",
    "status": "resolved",
    "started_at": "2026-11-21T09:00:00Z",
}
CHANGED = {"type": "customer.changed", "customer_id": "customer_123"}


@pytest.mark.parametrize(
    ("sent", "understood"),
    [
        *(
            ({"type": type, "customer_id": "c"}, Event(type=EventType(type), at=AT, customer_id="c"))
            for type in (
                "customer.created",
                "customer.changed",
                "subscription.changed",
                "invoice.changed",
                "deal.changed",
                "ticket.changed",
            )
        ),
        (
            CHANGED | {"sections": ["account_health"]},
            Event(type=EventType.CUSTOMER_CHANGED, at=AT, customer_id="customer_123", sections=("account_health",)),
        ),
        (
            {"type": "account.changed", "account_id": "acc_123"},
            Event(type=EventType.ACCOUNT_CHANGED, at=AT, account_id="acc_123"),
        ),
        (
            ACTIVITY | {"quantity": 3},
            Event(
                type=EventType.PRODUCT_ACTIVITY,
                at=AT,
                customer_id="customer_123",
                fact=ProductActivity(contact_id="con_123_1", name="feature_used", feature="Reports", quantity=3),
            ),
        ),
        (
            CLOSED | {"csat": 5, "agent_id": "agt_1"},
            Event(
                type=EventType.CONVERSATION_CLOSED,
                at=AT,
                customer_id="customer_123",
                fact=ClosedConversation(
                    conversation_id="cnv_1",
                    agent_id="agt_1",
                    channel="chat",
                    topic="billing",
                    resolved=True,
                    csat=5,
                    started_at=AT.replace(hour=9, minute=0),
                    ended_at=AT,
                ),
            ),
        ),
        (
            FINDING,
            Event(
                type=EventType.SECURITY_EVENT,
                at=AT,
                customer_id="customer_123",
                fact=SecurityFinding(
                    finding_id="sec_1", kind="new_device", severity="low", detail="From Oslo", resolved_at=None
                ),
            ),
        ),
        (
            INCIDENT,
            Event(
                type=EventType.INCIDENT_CHANGED,
                at=AT,
                fact=IncidentReport(
                    incident_id="inc_1",
                    component="calendar",
                    title="Calendar slow",
                    severity="minor",
                    status="resolved",
                    started_at=AT.replace(hour=9, minute=0),
                    resolved_at=AT,
                ),
            ),
        ),
    ],
)
async def test_each_type_becomes_its_event(
    client: httpx.AsyncClient, world: World, sent: dict[str, Any], understood: Event
) -> None:
    response = await client.post(EVENTS, json={"events": [sent | {"event_id": "evt_1", "at": SAID}]})
    assert (response.status_code, response.json()) == (
        202,
        {"accepted": 1, "duplicates": 0, "event_ids": ["evt_1"]},
    )
    (event,) = world.contexts.events.values()
    assert event == Event(**{name: getattr(understood, name) for name in Event.__slots__} | {"event_id": "evt_1"})


async def test_known_events_count_as_duplicates(client: httpx.AsyncClient) -> None:
    once = {"events": [CHANGED | {"event_id": "evt_1"}, CHANGED]}
    first = (await client.post(EVENTS, json=once)).json()
    assert (first["accepted"], first["duplicates"], first["event_ids"][0]) == (2, 0, "evt_1")
    again = (await client.post(EVENTS, json=once)).json()
    assert (again["accepted"], again["duplicates"]) == (1, 1)


async def test_without_a_time_an_event_happened_now(client: httpx.AsyncClient, world: World) -> None:
    before = datetime.now(UTC)
    await client.post(EVENTS, json={"events": [CHANGED]})
    (event,) = world.contexts.events.values()
    assert before <= event.at <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("event", "pointer"),
    [
        (CHANGED | {"type": "customer.exploded"}, "/events/1/type"),
        ({"customer_id": "customer_123"}, "/events/1"),
        (7, "/events/1"),
        (CHANGED | {"customer_id": "../etc"}, "/events/1/customer_id"),
        (CHANGED | {"colour": "blue"}, "/events/1/colour"),
        (CHANGED | {"product.activity": 1}, "/events/1/product.activity"),
        (CHANGED | {"sections": ["horoscope"]}, "/events/1/sections/0"),
        (CHANGED | {"sections": []}, "/events/1/sections"),
        (CHANGED | {"event_id": "1"}, "/events/1/event_id"),
        (CHANGED | {"at": "2026-11-21T10:30:00"}, "/events/1/at"),
        (CHANGED | {"at": "2026-11-21"}, "/events/1/at"),
        (CHANGED | {"at": 1_795_000_000}, "/events/1/at"),
        (CHANGED | {"at": "1795000000"}, "/events/1/at"),
        (CHANGED | {"at": "0001-01-01T00:00:00+14:00"}, "/events/1/at"),
        (CHANGED | {"at": "9999-12-31T23:59:59-14:00"}, "/events/1/at"),
        ({"type": "account.changed", "customer_id": "c", "account_id": "acc_1"}, "/events/1/customer_id"),
        (ACTIVITY | {"quantity": 0}, "/events/1/quantity"),
        (ACTIVITY | {"quantity": True}, "/events/1/quantity"),
        (ACTIVITY | {"name": "sneezed"}, "/events/1/name"),
        (ACTIVITY | {"name": "login"}, "/events/1"),
        (ACTIVITY | {"feature": "mail <dana@example.com>"}, "/events/1/feature"),
        (ACTIVITY | {"feature": "R" * 65}, "/events/1/feature"),
        ({name: value for name, value in ACTIVITY.items() if name != "feature"}, "/events/1"),
        (CLOSED | {"csat": 6}, "/events/1/csat"),
        (CLOSED | {"resolved": "yes"}, "/events/1/resolved"),
        (CLOSED | {"channel": "pigeon"}, "/events/1/channel"),
        (CLOSED | {"started_at": "2026-11-21T11:00:00Z"}, "/events/1"),
        (FINDING | {"severity": "awful"}, "/events/1/severity"),
        (INCIDENT | {"status": "monitoring", "resolved_at": SAID}, "/events/1"),
    ],
)
async def test_an_event_that_does_not_fit_is_named_and_none_is_accepted(
    client: httpx.AsyncClient, world: World, event: Any, pointer: str
) -> None:
    response = await client.post(EVENTS, json={"events": [CHANGED, event]})
    problem(response, 422, "INVALID_REQUEST", pointer)
    assert world.contexts.events == {}
    for said in ("exploded", "horoscope", "sneezed", "pigeon", "awful", "../etc"):
        assert said not in response.text


@pytest.mark.parametrize("feature", product.FEATURES)
async def test_every_feature_of_the_product_can_be_reported(
    client: httpx.AsyncClient, world: World, feature: str
) -> None:
    assert (await client.post(EVENTS, json={"events": [ACTIVITY | {"feature": feature}]})).status_code == 202
    (event,) = world.contexts.events.values()
    assert isinstance(event.fact, ProductActivity)
    assert event.fact.feature == feature


@pytest.mark.parametrize("events", [[], [CHANGED] * 501, CHANGED, None])
async def test_a_list_holds_1_to_500_events(client: httpx.AsyncClient, events: Any) -> None:
    problem(await client.post(EVENTS, json={"events": events}), 422, "INVALID_REQUEST", "/events")


async def test_500_events_fit_into_one_request(client: httpx.AsyncClient, world: World) -> None:
    many = [CLOSED | {"event_id": f"evt_{number}", "conversation_id": f"cnv_{number}"} for number in range(500)]
    assert (await client.post(EVENTS, json={"events": many})).json()["accepted"] == 500


async def test_what_the_database_does_not_accept_is_named_in_the_callers_terms(
    client: httpx.AsyncClient, world: World
) -> None:
    refused = InvalidRequest("event 1 of the list cannot be accepted; nothing was")
    world.contexts.fails = refused.with_fields(FieldError("/events/0/customer_id", "is not a customer"))
    problem(await client.post(EVENTS, json={"events": [ACTIVITY]}), 422, "INVALID_REQUEST", "/events/0/customer_id")
    world.contexts.fails = DatabaseUnavailable("locked")
    problem(await client.post(EVENTS, json={"events": [ACTIVITY]}), 503, "DATABASE_UNAVAILABLE")


async def test_the_same_idempotency_key_tells_nothing_twice(client: httpx.AsyncClient, world: World) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = await client.post(EVENTS, json={"events": [CHANGED]}, headers=key)
    again = await client.post(EVENTS, json={"events": [CHANGED]}, headers=key)
    assert again.headers["idempotent-replayed"] == "true"
    assert first.json() == again.json()
    assert len(world.contexts.events) == 1
