"""Nobody is shown personal data unmasked before the audit trail durably says so; and every such release is told."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from models.enrichment.release import AuditedReader
from models.enrichment.selection import AgentViews
from models.enrichment.types import (
    ContextReading,
    ContextRequest,
    CustomerIntelligence,
    EnrichedContext,
    ServedFrom,
)
from models.errors import DatabaseUnavailable, UnknownCustomer
from models.resilience.deadline import Deadline
from models.safety.audit import hash_subject
from models.safety.types import AuditRecord
from models.telemetry import principal
from tests.fakes.enrichment import ACME, NOW, HandClock, ListMetrics

OPEN, MASKED = b'"jordan.blake@example.com"', b'"[redacted]"'


@dataclass
class Reader:
    """Shows the address unless the request is masked; `gate`, when there is one, holds every answer back."""

    requests: list[ContextRequest] = field(default_factory=list)
    gate: asyncio.Event | None = None
    error: Exception | None = None

    async def read(self, customer_id: str, request: ContextRequest) -> ContextReading:
        return ContextReading(
            body=await self._show(request),
            media_type="application/json",
            served_from=ServedFrom.L1,
            complete=True,
            age_ms=0,
            ttl_ms=1,
            context_version="1",
            cache_hit=True,
            elapsed_ms=0.0,
        )

    async def read_many(self, customer_ids: Sequence[str], request: ContextRequest) -> bytes:
        return b'{"contexts":[' + b",".join([await self._show(request)] * len(customer_ids)) + b"]}"

    async def enrich(self, customer_id: str, request: ContextRequest) -> EnrichedContext:
        shown = (await self._show(request)).decode().strip('"')
        intelligence = replace(cast("CustomerIntelligence", ACME["customer_intelligence"]), contact_email=shown)
        return EnrichedContext(
            customer_id=customer_id,
            agent_type=request.agent_type,
            context_version="1",
            enriched_at=NOW,
            outcomes=(),
            customer_intelligence=intelligence,
        )

    async def enrich_many(self, customer_ids: Sequence[str], request: ContextRequest) -> dict[str, EnrichedContext]:
        return {customer_id: await self.enrich(customer_id, request) for customer_id in customer_ids}

    async def _show(self, request: ContextRequest) -> bytes:
        self.requests.append(request)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return MASKED if request.masked or request.agent_type in ("", "support") else OPEN


@dataclass
class Trail:
    """An audit log in memory: `gate` holds durability back, `away` refuses it."""

    records: list[AuditRecord] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    gate: asyncio.Event | None = None
    away: bool = False

    def record(self, record: AuditRecord) -> None:
        self.records.append(record)

    async def record_durably(self, records: Sequence[AuditRecord], *, timeout_s: float) -> None:
        assert timeout_s == 1.0
        self.records += records
        self.groups.append(len(records))
        if self.gate is not None:
            await self.gate.wait()
        if self.away:
            raise DatabaseUnavailable("the database does not answer")

    async def flush(self) -> None:
        return None

    def told(self) -> dict[str, int]:
        """Releases by customer pseudonym: those that opened access, and those that were counted."""
        found: dict[str, int] = {}
        for one in self.records:
            found[one.subject] = found.get(one.subject, 0) + int(one.details.get("count", 1))
        return found


@dataclass
class Room:
    reader: Reader = field(default_factory=Reader)
    trail: Trail = field(default_factory=Trail)
    clock: HandClock = field(default_factory=HandClock)
    entries: int = 100
    metrics: ListMetrics = field(default_factory=ListMetrics)

    def __post_init__(self) -> None:
        numbers = itertools.count(1)
        self.audited = AuditedReader(
            self.reader,
            AgentViews.load(),
            self.trail,
            salt="pepper",
            entries=self.entries,
            clock=self.clock,
            wall_clock=self.clock.wall,
            ids=lambda prefix: f"{prefix}_{next(numbers)}",
            metrics=self.metrics,
        )

    def request(self, agent_type: str = "sales", *, seconds: float = 5.0, **options: Any) -> ContextRequest:
        return ContextRequest(deadline=Deadline.after(seconds, self.clock), agent_type=agent_type, **options)

    async def read(self, customer_id: str = "customer_1", agent_type: str = "sales", **options: Any) -> ContextReading:
        return await self.audited.read(customer_id, self.request(agent_type, **options))

    async def many(self, count: int, **options: Any) -> dict[str, Any]:
        ids = [f"customer_{number}" for number in range(count)]
        body: dict[str, Any] = json.loads(await self.audited.read_many(ids, self.request(**options)))
        return body


@asynccontextmanager
async def room(**options: Any) -> AsyncIterator[Room]:
    opened = Room(**options)
    try:
        yield opened
    finally:
        if opened.trail.gate is not None:
            opened.trail.gate.set()
        await opened.audited.close()


@contextmanager
def acting_as(name: str) -> Iterator[None]:
    token = principal.set(name)
    try:
        yield
    finally:
        principal.reset(token)


async def settled() -> None:
    """Everything that can go on without us has done so."""
    for _ in range(10):
        await asyncio.sleep(0)


def subject(customer_id: str) -> str:
    return hash_subject("pepper", customer_id)


async def test_the_first_unmasked_release_is_told_without_the_value() -> None:
    async with room() as one:
        with acting_as("crm"):
            reading = await one.read()
        assert (reading.body, reading.masked) == (OPEN, False)
        [record] = one.trail.records
        assert (record.action, record.outcome, record.actor) == ("context.release", "unmasked", "crm")
        assert (record.subject, record.at) == (subject("customer_1"), one.clock.wall())
        assert record.details["agent_type"] == "sales"
        assert "customer_intelligence.contact_email" in str(record.details["fields"])
        assert "customer_1" not in str(record)
        assert "example.com" not in str(record)


@pytest.mark.parametrize(
    "options",
    [{"agent_type": ""}, {"agent_type": "support"}, {"masked": True}, {"providers": ("sales_pipeline",)}],
)
async def test_what_shows_nothing_unmasked_leaves_no_line(options: dict[str, Any]) -> None:
    async with room() as one:
        reading = await one.read(**options)
        assert not reading.masked, "nothing was withheld"
    assert one.trail.records == []


async def test_within_a_lease_releases_are_counted_and_told_at_its_end() -> None:
    async with room() as one:
        for _ in range(5):
            assert (await one.read()).body == OPEN
        assert len(one.trail.records) == 1
        one.clock.forward(30)
        await one.read()
        first, counted, again = one.trail.records
        assert (counted.action, counted.subject) == ("context.releases", first.subject)
        assert dict(counted.details) == {"agent_type": "sales", "release": first.audit_id, "count": 4}
        assert again.action == "context.release"
    assert one.trail.told() == {subject("customer_1"): 6}


async def test_a_read_within_a_lease_waits_for_nothing() -> None:
    async with room() as one:
        await one.read()
        coroutine = one.read()
        with pytest.raises(StopIteration) as done:
            coroutine.send(None)
        assert done.value.value.body == OPEN


async def test_another_caller_agent_type_or_customer_needs_a_lease_of_its_own() -> None:
    async with room() as one:
        for actor, agent_type, customer in itertools.product(("crm", "shop"), ("sales", "success"), ("a", "b")):
            with acting_as(actor):
                await one.read(customer, agent_type)
        assert len({(r.actor, r.details["agent_type"], r.subject) for r in one.trail.records}) == 8


async def test_a_timer_tells_the_count_when_nobody_reads_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[tuple[float, Any]] = []
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def later(delay: float, call: Any, *arguments: Any) -> asyncio.TimerHandle:
        if not arguments:  # asyncio's own timers have some
            timers.append((delay, call))
        return call_later(3600, call, *arguments)

    monkeypatch.setattr(loop, "call_later", later)
    async with room() as one:
        await one.read()
        await one.read()
        one.clock.forward(10)
        await one.read("customer_2")
        [(delay, end)] = timers
        assert delay == 30
        one.clock.forward(20)
        end()
        assert one.trail.records[-1].details["count"] == 1
        assert timers[1][0] == 10, "the next lease ends then"


async def test_the_read_and_its_record_are_under_way_together() -> None:
    async with room() as one:
        one.reader.gate, one.trail.gate = asyncio.Event(), asyncio.Event()
        reading = asyncio.create_task(one.read())
        await settled()
        assert one.reader.requests
        assert one.trail.groups
        one.reader.gate.set()
        await settled()
        assert not reading.done(), "the data is there, its record is not"
        one.trail.gate.set()
        assert (await reading).body == OPEN


async def test_when_the_deadline_passes_first_the_masked_view_is_served_and_says_so() -> None:
    async with room() as one:
        one.trail.gate = asyncio.Event()
        reading = await one.read(seconds=0.0, force_refresh=True)
        assert (reading.body, reading.masked) == (MASKED, True)
        assert [r.force_refresh for r in one.reader.requests] == [True, False], "what was fetched is not fetched again"
        one.trail.gate.set()
        await settled()
        assert (await one.read()).body == OPEN, "by now the record is durable"


async def test_while_the_audit_log_is_away_everyone_is_served_masked_and_one_record_probes_it() -> None:
    async with room() as one:
        one.trail.away = True
        assert (await one.read()).masked
        assert len(one.trail.records) == 1
        one.trail.gate = asyncio.Event()
        readings = [await one.read(f"customer_{number}") for number in range(20)]
        assert all(reading.masked and reading.body == MASKED for reading in readings)
        await settled()
        assert len(one.trail.records) == 2, "the others neither waited nor added to a trail that is away"
        one.trail.away = False
        one.trail.gate.set()
        await settled()
        assert (await one.read("customer_7")).body == OPEN
        assert (await one.read("customer_0")).body == OPEN


async def test_a_reader_who_leaves_does_not_take_the_record_along() -> None:
    async with room() as one:
        one.trail.gate = asyncio.Event()
        leaving, staying = (asyncio.create_task(one.read()) for _ in range(2))
        await settled()
        leaving.cancel()
        await asyncio.wait([leaving])
        assert leaving.cancelled()
        one.trail.gate.set()
        assert (await staying).body == OPEN
        assert one.trail.groups == [1]


async def test_a_failing_read_fails_as_it_does_without_the_audit() -> None:
    async with room() as one:
        one.reader.error = UnknownCustomer("there is no such customer")
        for _ in range(2):
            with pytest.raises(UnknownCustomer):
                await one.read()
    assert one.trail.told() == {subject("customer_1"): 2}, "the trail may say too much, never too little"


async def test_too_many_leases_make_room_and_lose_no_count() -> None:
    async with room(entries=3) as one:
        for number in (1, 1, 2, 3, 3, 4, 1):
            await one.read(f"customer_{number}")
        assert [r.details.get("count") for r in one.trail.records] == [None, None, None, 1, None, None]
    assert sum(one.trail.told().values()) == 7


async def test_closing_tells_every_count() -> None:
    async with room() as one:
        for number in (1, 2, 2, 2):
            await one.read(f"customer_{number}")
    assert one.trail.told() == {subject("customer_1"): 1, subject("customer_2"): 3}


async def test_many_are_found_by_subject_and_written_together() -> None:
    async with room() as one:
        await one.read("customer_3")
        body = await one.many(50)
        assert "masked" not in body
        assert body["contexts"] == ["jordan.blake@example.com"] * 50
        assert one.trail.groups == [1, 49]
        assert {r.subject for r in one.trail.records} == {subject(f"customer_{number}") for number in range(50)}
        assert await one.many(50) == body
        assert one.trail.groups == [1, 49]
    assert sum(one.trail.told().values()) == 101


async def test_many_are_masked_together_when_one_cannot_be_recorded() -> None:
    async with room() as one:
        await one.read("customer_3")
        one.trail.away = True
        body = await one.many(5)
        assert body == {"masked": True, "contexts": ["[redacted]"] * 5}
        assert await one.many(5) == body
        assert (await one.read("customer_3")).body == OPEN, "its access is on record"


async def test_many_masked_leave_no_line() -> None:
    async with room() as one:
        assert "masked" not in await one.many(3, masked=True)
    assert one.trail.records == []


async def test_nothing_is_left_behind_when_nobody_waits_for_a_failure() -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    async with room() as one:
        one.trail.away = True
        one.reader.error = UnknownCustomer("there is no such customer")
        with pytest.raises(UnknownCustomer):
            await one.read()
    gc.collect()
    assert complaints == []
    assert replace(one.trail.records[0], details={}).subject == subject("customer_1")


def emails(contexts: Iterable[EnrichedContext]) -> set[str]:
    return {context.customer_intelligence.contact_email for context in contexts if context.customer_intelligence}


async def test_a_context_as_a_value_is_told_as_one_in_bytes_is() -> None:
    async with room() as one:
        assert emails([await one.audited.enrich("customer_1", one.request())]) == {"jordan.blake@example.com"}
        assert (await one.read()).body == OPEN
        assert [record.action for record in one.trail.records] == ["context.release"]
        many = await one.audited.enrich_many(["customer_1", "customer_2"], one.request())
        assert emails(many.values()) == {"jordan.blake@example.com"}
    assert one.trail.told() == {subject("customer_1"): 3, subject("customer_2"): 1}
    assert one.metrics.counts == {}


async def test_without_the_audit_trail_values_are_masked() -> None:
    async with room() as one:
        one.trail.away = True
        assert emails([await one.audited.enrich("customer_1", one.request())]) == {"[redacted]"}
        many = await one.audited.enrich_many(["customer_1", "customer_2"], one.request())
        assert emails(many.values()) == {"[redacted]"}


@pytest.mark.parametrize("options", [{"agent_type": "support"}, {"masked": True}])
async def test_values_that_show_nothing_unmasked_leave_no_line(options: dict[str, Any]) -> None:
    async with room() as one:
        await one.audited.enrich("customer_1", one.request(**options))
        await one.audited.enrich_many(["customer_1"], one.request(**options))
    assert one.trail.records == []


async def test_what_had_to_be_masked_is_counted() -> None:
    async with room() as one:
        await one.read(agent_type="support")
        one.trail.away = True
        await one.read()
        await one.many(3)
        await one.audited.enrich("customer_1", one.request())
    assert one.metrics.counts == {("context_masked_releases_total", ()): 3}
