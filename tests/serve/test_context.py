"""Customer context on the running system, with parts of it slowed, broken and taken away for a while."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.fakes.vendor_server import VendorServer, flood, hang, whole
from tests.serve.conftest import System
from tests.serve.parts import PersistentRedis

pytestmark = pytest.mark.timeout(600)

READ = "/api/v1/customers/{}/context"
DATABASE = {"customer_intelligence", "subscription_details", "engagement_metrics", "account_health"}
VENDORS = {"clearbit", "crunchbase", "news_api"}


#: No section that these tests watch expires or is looked up again by itself within this time: what shows it was told.
TOLD_WITHIN_S = 8.0


def eventually(condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"never happened: {what}"


def read(api: httpx.Client, customer: str, **query: Any) -> dict[str, Any]:
    answer = api.get(READ.format(customer), params={"agent_type": "sales", "deadline_ms": 5000, **query})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def read_many(api: httpx.Client, customers: list[str], **more: Any) -> dict[str, Any]:
    body = {"customer_ids": customers, "agent_type": "sales", "deadline_ms": 5000, **more}
    answer = api.post("/api/v1/context:read", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def announce(api: httpx.Client, *events: dict[str, Any]) -> httpx.Response:
    answer = api.post("/api/v1/events", json={"events": list(events)})
    assert answer.status_code == 202, answer.text
    return answer


def logins(api: httpx.Client, customer: str) -> int:
    count: int = read(api, customer)["engagement_metrics"]["login_count_30d"]
    return count


def login_of(customer: str) -> dict[str, Any]:
    return {"type": "product.activity", "customer_id": customer, "contact_id": "con_test", "name": "login"}


def test_every_provider_answers_and_says_how_old_and_from_where(api: httpx.Client) -> None:
    body = read(api, "customer_123")
    states = {name: one["state"] for name, one in body["providers"].items()}
    assert set(states.values()) <= {"fresh", "missing"}, states
    assert set(states) >= DATABASE | VENDORS
    for name, one in body["providers"].items():
        assert one["source"], name
        assert one["age_ms"] >= 0, name
    again = read(api, "customer_123")
    assert again["context_version"] == body["context_version"]
    assert again["served_from"] == "l1"


@pytest.mark.parametrize(
    ("customer", "query", "status", "code", "pointer"),
    [
        ("a%20b", {}, 422, "INVALID_REQUEST", "/path/customer_id"),
        ("x" * 65, {}, 422, "INVALID_REQUEST", "/path/customer_id"),
        ("customer_1", {"deadline_ms": "0"}, 422, "INVALID_REQUEST", "/query/deadline_ms"),
        ("customer_1", {"deadline_ms": "-5"}, 422, "INVALID_REQUEST", "/query/deadline_ms"),
        ("customer_1", {"deadline_ms": "9" * 30}, 422, "INVALID_REQUEST", "/query/deadline_ms"),
        ("customer_1", {"agent_type": "astrology"}, 422, "UNKNOWN_AGENT_TYPE", None),
        ("nobody_here", {}, 404, "UNKNOWN_CUSTOMER", None),
    ],
)
def test_bad_input_is_named(
    api: httpx.Client, customer: str, query: dict[str, str], status: int, code: str, pointer: str | None
) -> None:
    answer = api.get(READ.format(customer), params=query)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    if pointer is not None:
        assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]


def test_many_customers_come_in_one_answer_and_unknown_ones_are_named(api: httpx.Client) -> None:
    wanted = [f"customer_{number}" for number in range(1, 60)]
    found = read_many(api, [*wanted, "nobody_here"])
    assert [one["customer_id"] for one in found["contexts"]] == wanted
    assert found["unknown"] == ["nobody_here"]
    alone = read(api, "customer_7")
    together = next(one for one in found["contexts"] if one["customer_id"] == "customer_7")
    assert together["context_version"] == alone["context_version"]
    refused = api.post("/api/v1/context:read", json={"customer_ids": [f"c_{n}" for n in range(1001)]})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/customer_ids"
    malformed = api.post("/api/v1/context:read", json={"customer_ids": ["fine", "not fine"]})
    assert malformed.status_code == 422
    assert malformed.json()["errors"][0]["pointer"] == "/customer_ids/1"


def test_two_hundred_reads_of_a_cold_customer_ask_each_vendor_once_a_replica(
    api: httpx.Client, system: System, vendors: VendorServer
) -> None:
    calls = len(vendors.calls)
    with ThreadPoolExecutor(200) as pool:

        def one(_: int) -> int:
            url = system.url + READ.format("customer_88")
            return httpx.get(url, params={"agent_type": "sales", "deadline_ms": 5000}, timeout=60).status_code

        assert set(pool.map(one, range(200))) == {200}
    asked = [call.path for call in vendors.calls[calls:] if call.path == "/v2/companies/find"]
    assert 1 <= len(asked) <= 2


def test_a_change_reaches_both_replicas(api: httpx.Client) -> None:
    customers = [f"customer_{number}" for number in range(20, 40)]
    before = {customer: logins(api, customer) for customer in customers}
    read_many(api, customers)  # by whichever replica, so that both may hold them
    announce(api, *(login_of(customer) for customer in customers))

    def seen() -> bool:
        one_by_one = {customer: logins(api, customer) for customer in customers}
        found = read_many(api, customers)["contexts"]
        together = {one["customer_id"]: one["engagement_metrics"]["login_count_30d"] for one in found}
        return all(one_by_one[name] == together[name] == before[name] + 1 for name in customers)

    eventually(seen, "both replicas know of the logins", TOLD_WITHIN_S)
    assert all(seen() for _ in range(10)), "an old value came back"


def test_an_incident_is_seen_in_every_context(api: httpx.Client) -> None:
    incident = {
        "type": "incident.changed",
        "incident_id": "inc_test",
        "component": "scheduling",
        "title": "The calendar does not load",
        "severity": "critical",
        "status": "investigating",
        "started_at": datetime.now(UTC).isoformat(),
    }
    query = {"agent_type": "support"}
    customers = [f"customer_{number}" for number in range(50, 60)]
    for customer in customers:
        read(api, customer, **query)
    announce(api, incident)

    def status(customer: str) -> str:
        found: str = read(api, customer, **query)["product_status"]["status"]
        return found

    def statuses() -> set[str]:
        return {status(customer) for customer in customers}

    eventually(lambda: statuses() == {"outage"}, "the outage shows everywhere", TOLD_WITHIN_S)
    announce(api, {**incident, "status": "resolved"})
    eventually(lambda: "outage" not in statuses(), "the outage is over everywhere", TOLD_WITHIN_S)


def test_the_same_event_counts_once_and_an_unknown_customer_is_refused(api: httpx.Client) -> None:
    before = logins(api, "customer_90")
    event = {**login_of("customer_90"), "event_id": "evt_once"}
    assert announce(api, event).json()["accepted"] == 1
    assert announce(api, event).json()["duplicates"] == 1
    eventually(lambda: logins(api, "customer_90") == before + 1, "the login counts")
    refused = api.post("/api/v1/events", json={"events": [login_of("customer_91"), login_of("nobody_here")]})
    assert refused.status_code in (404, 422)
    assert "/events/1" in refused.text


def test_what_changed_is_told_field_by_field(api: httpx.Client) -> None:
    read(api, "customer_92", agent_type="support")
    announce(api, login_of("customer_92"))
    path = READ.format("customer_92") + "/history"

    def fields() -> list[str]:
        read(api, "customer_92", agent_type="support")
        answer = api.get(path, params={"agent_type": "support"})
        assert answer.status_code == 200, answer.text
        return [change["field"] for version in answer.json()["versions"] for change in version["changes"]]

    eventually(lambda: "engagement_metrics.login_count_30d" in fields(), "the history tells of the login")


def test_a_customer_who_is_created_is_known_at_once(api: httpx.Client, system: System) -> None:
    path = READ.format("customer_new")
    assert api.get(path).status_code == 404
    with sqlite3.connect(system.state / "rapport.db", timeout=30) as connection:
        connection.executescript(
            "CREATE TEMP TABLE twin AS SELECT * FROM customers WHERE customer_id = 'customer_1';"
            "UPDATE twin SET customer_id = 'customer_new';"
            "INSERT INTO customers SELECT * FROM twin;"
        )
    announce(api, {"type": "customer.created", "customer_id": "customer_new"})
    eventually(lambda: api.get(path).status_code == 200, "the new customer is known")
    assert all(api.get(path).status_code == 200 for _ in range(10))


def test_vendors_that_hang_flood_or_talk_nonsense_cost_their_own_sections_only(
    api: httpx.Client, vendors: VendorServer
) -> None:
    vendors.faults[:] = [hang, flood(), whole(b"<html>not JSON</html>")]
    body = read(api, "customer_95", deadline_ms=1000)
    vendors.faults.clear()
    states = {name: one["state"] for name, one in body["providers"].items()}
    assert {states[name] for name in DATABASE} == {"fresh"}, states
    assert {states[name] for name in VENDORS} <= {"timeout", "error"}, states
    assert body["complete"] is False
    assert body["company_enrichment"] is None


def test_a_frozen_redis_slows_nothing_down_for_long(api: httpx.Client, redis: PersistentRedis) -> None:
    redis.pause()
    try:
        bodies = [read(api, f"customer_{number}") for number in range(100, 110)]
    finally:
        redis.go_on()
    assert all(body["providers"][name]["state"] == "fresh" for body in bodies for name in DATABASE)


def test_a_full_redis_is_no_reason_to_fail(api: httpx.Client, redis: PersistentRedis) -> None:
    assert "OK" in redis.ask("CONFIG SET maxmemory 1")
    try:
        bodies = [read(api, f"customer_{number}") for number in range(110, 115)]
    finally:
        redis.ask("CONFIG SET maxmemory 0")
    assert all(body["providers"][name]["state"] == "fresh" for body in bodies for name in DATABASE)


def test_a_redis_that_comes_back_with_old_values_is_not_believed(api: httpx.Client, redis: PersistentRedis) -> None:
    customers = [f"customer_{number}" for number in range(150, 160)]
    before = {customer: logins(api, customer) for customer in customers}
    assert "OK" in redis.ask("SAVE")
    announce(api, *(login_of(customer) for customer in customers))
    eventually(lambda: all(logins(api, name) == before[name] + 1 for name in customers), "the logins are seen")
    redis.kill()
    assert all(read(api, customer)["engagement_metrics"] for customer in customers)
    redis.start()
    for _ in range(5):
        assert [logins(api, customer) for customer in customers] == [before[name] + 1 for name in customers]
        found = read_many(api, customers)["contexts"]
        assert [one["engagement_metrics"]["login_count_30d"] for one in found] == [
            before[name] + 1 for name in customers
        ]


def test_without_the_database_known_customers_are_shown_as_stale_and_others_as_minimal(
    api: httpx.Client, system: System
) -> None:
    warm = read(api, "customer_140")
    database = system.state / "rapport.db"
    moved = database.with_suffix(".moved")
    database.rename(moved)
    try:
        known = read(api, "customer_140", max_age_ms=0)
        unread = read(api, "customer_141")
    finally:
        moved.rename(database)
    assert known["customer_intelligence"] == warm["customer_intelligence"]
    assert known["providers"]["customer_intelligence"]["state"] == "stale"
    assert known["providers"]["customer_intelligence"]["age_ms"] > 0
    assert unread["customer_intelligence"] is None
    assert unread["providers"]["customer_intelligence"]["state"] == "error"

    def back() -> bool:
        return bool(read(api, "customer_141", force_refresh="true")["customer_intelligence"])

    eventually(back, "the database is asked again")
