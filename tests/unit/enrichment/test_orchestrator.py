"""Reads of customer context: partial rather than late, shared rather than repeated, masked by agent type."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from models.enrichment.cache import LRUCache, TieredCache
from models.enrichment.orchestrator import ContextOrchestrator
from models.enrichment.selection import AgentViews
from models.enrichment.types import ContextReading, ProviderState, ReadFormat, ServedFrom
from models.errors import (
    ContextEnrichmentError,
    DatabaseUnavailable,
    DeadlineExceeded,
    Forbidden,
    InvalidRequest,
    ProviderUnavailable,
    UnknownAgentType,
    UnknownCustomer,
)
from models.resilience.deadline import Deadline
from tests.fakes.enrichment import ACME, FakeProvider, HandClock, ListHistory, ListMetrics, all_providers

#: Real seconds that a read is ready to wait for something that is not going to happen.
BRIEFLY = 0.01


class Room:
    """An orchestrator over fakes, with everything in reach."""

    def __init__(self, *, cached: bool = True, timeout_s: float = 60.0, max_in_flight: int = 64) -> None:
        self.clock = HandClock()
        self.providers = all_providers(timeout_s=timeout_s)
        self.metrics = ListMetrics()
        self.history = ListHistory()
        self.cache = TieredCache(
            LRUCache(entries=100, clock=self.clock), clock=self.clock, wall_clock=self.clock.wall, metrics=self.metrics
        )
        self.context = ContextOrchestrator(
            self.providers.values(),
            views=AgentViews.load(),
            cache=self.cache if cached else None,
            history=self.history,
            clock=self.clock,
            wall_clock=self.clock.wall,
            metrics=self.metrics,
            max_in_flight=max_in_flight,
        )

    async def read(self, customer_id: str = "customer_123", *, wait_s: float = 5.0, **options: Any) -> ContextReading:
        options.setdefault("agent_type", "support")
        return await self.context.read(customer_id, deadline=Deadline.after(wait_s, self.clock), **options)

    async def body(self, **options: Any) -> dict[str, Any]:
        body: dict[str, Any] = json.loads((await self.read(**options)).body)
        return body

    async def all_asked(self) -> None:
        """Return when each provider has been asked once more."""
        for provider in self.providers.values():
            await provider.arrivals.get()

    @property
    def fetches(self) -> int:
        return sum(len(provider.asked) for provider in self.providers.values())


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    built = Room()
    yield built
    await built.context.close()


def states(body: dict[str, Any]) -> dict[str, str]:
    return {name: outcome["state"] for name, outcome in body["providers"].items()}


async def test_a_complete_context_has_every_section_and_says_where_it_came_from(room: Room) -> None:
    body = await room.body()
    assert body["complete"]
    assert set(states(body).values()) == {"fresh"}
    assert body["customer_intelligence"]["company_name"] == "Acme Corp"
    assert body["served_from"] == "origin"
    assert body["cache_hit"] is False
    assert body["deadline_ms"] == 5000
    assert {outcome["served_from"] for outcome in body["providers"].values()} == {"origin"}


async def test_providers_run_at_the_same_time(room: Room) -> None:
    gate = asyncio.Event()
    for provider in room.providers.values():
        provider.gate = gate
    reading = asyncio.create_task(room.read())
    await room.all_asked()
    gate.set()
    assert (await reading).complete


async def test_a_late_provider_is_a_timeout_now_and_fills_the_cache_later(room: Room) -> None:
    late = room.providers["engagement_metrics"]
    late.gate = asyncio.Event()
    partial = await room.body(wait_s=BRIEFLY)
    assert states(partial)["engagement_metrics"] == "timeout"
    assert states(partial)["support_history"] == "fresh"
    assert partial["engagement_metrics"] is None
    assert not partial["complete"]
    assert partial["providers"]["engagement_metrics"]["age_ms"] is None

    late.gate.set()
    await room.context.settle()
    complete = await room.read()
    assert complete.served_from is ServedFrom.L1
    assert complete.complete
    assert late.asked == ["customer_123"]


async def test_a_provider_that_uses_up_its_own_timeout_is_cancelled() -> None:
    room = Room(timeout_s=BRIEFLY)
    slow = room.providers["support_history"]
    slow.gate = asyncio.Event()
    assert states(await room.body())["support_history"] == "timeout"
    assert slow.cancelled == 1


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (ProviderUnavailable("down"), "error"),
        (RuntimeError("a defect"), "error"),
        ({"company_name": "not a section"}, "error"),
        (ACME["account_health"], "error"),
        (DeadlineExceeded("too late"), "timeout"),
        (Forbidden("no scope"), "denied"),
        (None, "missing"),
    ],
)
async def test_one_bad_provider_never_touches_the_others(room: Room, answer: object, state: str) -> None:
    room.providers["support_history"].answer = answer
    body = await room.body()
    assert states(body).pop("support_history") == state
    assert [s for name, s in states(body).items() if name != "support_history"] == ["fresh"] * 4
    assert body["complete"] is (state == "missing")
    assert body["support_history"] is None


async def test_when_everything_fails_a_minimal_context_is_given(room: Room) -> None:
    for provider in room.providers.values():
        provider.answer = ProviderUnavailable("down")
    context = await room.context.enrich("customer_123", agent_type="support", deadline=Deadline.after(5, room.clock))
    assert context.minimal
    assert not context.complete
    assert "No customer data" in context.to_prompt_context()
    assert context.get_context_summary()["churn_risk_level"] == "unknown"


async def test_a_failing_provider_is_stood_in_for_by_what_it_said_last(room: Room) -> None:
    await room.read()
    room.providers["support_history"].answer = ProviderUnavailable("down")
    room.clock.forward(301)
    body = await room.body()
    assert states(body)["support_history"] == "stale"
    assert body["support_history"]["total_conversations"] == 12
    assert body["providers"]["support_history"]["age_ms"] == 301_000
    assert not body["complete"]


async def test_a_gap_is_remembered_only_briefly(room: Room) -> None:
    broken = room.providers["support_history"]
    broken.answer = ProviderUnavailable("down")
    await room.read()
    assert (await room.read()).served_from is ServedFrom.L1
    broken.answer = ACME["support_history"]
    room.clock.forward(2.1)
    assert (await room.read()).complete
    assert len(room.providers["account_health"].asked) == 1, "what was fresh is not fetched again"


async def test_two_hundred_parallel_reads_fetch_once(room: Room) -> None:
    for force_refresh in (False, True):
        before = room.fetches
        bodies = await asyncio.gather(*(room.read(force_refresh=force_refresh) for _ in range(200)))
        assert room.fetches - before == len(room.providers)
        assert len({reading.context_version for reading in bodies}) == 1


async def test_a_forced_read_never_takes_data_fetched_before_it(room: Room) -> None:
    gate = room.providers["account_health"].gate = asyncio.Event()
    early = asyncio.create_task(room.read())
    await room.all_asked()
    room.providers["customer_intelligence"].changes(company_name="Acme Inc")
    forced = asyncio.create_task(room.body(force_refresh=True))
    await room.all_asked()
    gate.set()
    assert b"Acme Corp" in (await early).body
    assert (await forced)["customer_intelligence"]["company_name"] == "Acme Inc"


async def test_an_l1_hit_asks_nobody_and_ages(room: Room) -> None:
    await room.read()
    fetched = room.fetches
    room.clock.forward(12.5)
    reading = await room.read()
    body = json.loads(reading.body)
    assert room.fetches == fetched
    assert reading.served_from is ServedFrom.L1
    assert reading.age_ms == body["age_ms"] == 12_500
    assert {outcome["age_ms"] for outcome in body["providers"].values()} == {12_500}
    assert {outcome["served_from"] for outcome in body["providers"].values()} == {"l1"}
    assert body["cache_hit"] is True


async def test_an_l1_entry_lives_thirty_seconds(room: Room) -> None:
    await room.read()
    room.clock.forward(29.9)
    assert (await room.read()).cache_hit
    room.clock.forward(0.2)
    assert not (await room.read()).cache_hit


async def test_max_age_and_force_refresh_reach_past_the_cache(room: Room) -> None:
    await room.read()
    room.clock.forward(10)
    assert (await room.read(max_age_ms=10_000)).cache_hit
    assert (await room.read(max_age_ms=9_999)).age_ms == 0
    fetched = room.fetches
    assert (await room.read(force_refresh=True)).served_from is ServedFrom.ORIGIN
    assert room.fetches == fetched + len(room.providers)


async def test_the_version_changes_with_content_and_with_nothing_else(room: Room) -> None:
    first = await room.read()
    room.clock.forward(400)
    second = await room.read()
    assert second.age_ms == 0
    assert second.context_version == first.context_version
    room.providers["support_history"].changes(open_tickets=2)
    assert (await room.read(force_refresh=True)).context_version != first.context_version


async def test_history_is_written_when_content_changes_only(room: Room) -> None:
    for _ in range(3):
        await room.read(force_refresh=True)
        await room.context.settle()
    room.providers["support_history"].changes(open_tickets=2)
    await room.read(force_refresh=True)
    await room.context.settle()
    assert [e.content["support_history"]["open_tickets"] for e in room.history.entries] == [1, 2]
    assert room.history.entries[0].content["customer_intelligence"]["contact_email"] == "j***@example.com"


async def test_a_context_with_gaps_makes_no_history(room: Room) -> None:
    room.providers["support_history"].answer = ProviderUnavailable("down")
    await room.read()
    await room.context.settle()
    assert room.history.entries == []


async def test_a_failing_history_is_no_readers_business(room: Room) -> None:
    room.history.failure = DatabaseUnavailable("locked")
    assert (await room.read()).complete
    await room.context.settle()
    assert room.metrics.of("context_history_errors_total") == 1


async def test_an_unknown_customer_is_not_found_even_while_others_hang(room: Room) -> None:
    room.providers["customer_intelligence"].knows_nobody()
    room.providers["support_history"].gate = asyncio.Event()
    with pytest.raises(UnknownCustomer):
        await room.read()


@pytest.mark.parametrize("customer_id", ["", "a b", "x" * 65, "../etc", "ключ", "a\n"])
async def test_a_malformed_id_reaches_no_provider(room: Room, customer_id: str) -> None:
    with pytest.raises(InvalidRequest):
        await room.read(customer_id)
    assert room.fetches == 0


async def test_a_required_provider_that_is_absent_fails_the_read(room: Room) -> None:
    room.providers["account_health"].answer = ProviderUnavailable("down")
    assert not (await room.read()).complete
    with pytest.raises(DeadlineExceeded, match="account_health"):
        await room.read(required=["account_health"])
    assert not (await room.read(required=["support_history"])).complete
    room.providers["account_health"].answer = None
    assert (await room.read(required=["account_health"], force_refresh=True)).complete, "having nothing is an answer"


async def test_required_must_name_what_the_agent_type_sees(room: Room) -> None:
    with pytest.raises(InvalidRequest):
        await room.read(required=["horoscope"])
    with pytest.raises(Forbidden):
        await room.read(agent_type="billing", required=["account_health"])


async def test_agent_types_see_their_own_providers_and_masks(room: Room) -> None:
    general, support, sales = [await room.body(agent_type=name) for name in ("", "support", "sales")]
    assert general["agent_type"] == "general"
    assert general["customer_intelligence"]["contact_email"] == "[redacted]"
    assert support["customer_intelligence"]["contact_name"] == "Jordan B."
    assert sales["customer_intelligence"]["contact_email"] == "jordan.blake@example.com"
    assert sales["support_history"] is None
    assert "support_history" not in sales["providers"]
    with pytest.raises(UnknownAgentType):
        await room.read(agent_type="astrology")


async def test_invalidation_forgets_every_agent_types_view(room: Room) -> None:
    for agent_type in ("support", "sales"):
        await room.read(agent_type=agent_type)
    room.providers["customer_intelligence"].changes(company_name="Acme Inc")
    await room.context.invalidate("customer_123")
    for agent_type in ("support", "sales"):
        assert (await room.body(agent_type=agent_type))["customer_intelligence"]["company_name"] == "Acme Inc"


async def test_what_was_under_way_during_an_invalidation_is_not_kept(room: Room) -> None:
    gate = room.providers["account_health"].gate = asyncio.Event()
    early = asyncio.create_task(room.read())
    await room.all_asked()
    await room.context.invalidate("customer_123")
    room.providers["customer_intelligence"].changes(company_name="Acme Inc")
    gate.set()
    await early
    body = await room.body()
    assert body["customer_intelligence"]["company_name"] == "Acme Inc"


async def test_without_a_cache_every_read_asks() -> None:
    room = Room(cached=False)
    for _ in range(2):
        assert (await room.read()).served_from is ServedFrom.ORIGIN
        await room.context.settle()
    assert room.fetches == 2 * len(room.providers)


async def test_a_hanging_source_cannot_pile_up_work() -> None:
    room = Room(max_in_flight=2)
    hanging = room.providers["support_history"]
    hanging.gate = asyncio.Event()
    bodies = [await room.body(customer_id=f"customer_{n}", wait_s=BRIEFLY) for n in range(4)]
    assert [states(body)["support_history"] for body in bodies] == ["timeout", "timeout", "skipped", "skipped"]
    assert len(hanging.asked) == 2
    await room.context.close()


async def test_a_provider_that_cannot_be_cancelled_blocks_nobody_for_long() -> None:
    room = Room(timeout_s=BRIEFLY)
    stubborn = room.providers["support_history"]
    let_go = asyncio.Event()
    fetch = stubborn.fetch

    async def ignoring(customer_id: str, *, deadline: Deadline) -> Any:
        try:
            return await fetch(customer_id, deadline=deadline)
        except asyncio.CancelledError:
            await let_go.wait()
            raise

    stubborn.gate = asyncio.Event()
    stubborn.fetch = ignoring  # type: ignore[method-assign]  # the point of this test
    assert states(await room.body(wait_s=5 * BRIEFLY))["support_history"] == "timeout"
    stubborn.fetch = fetch  # type: ignore[method-assign]  # mended
    stubborn.gate.set()
    room.clock.forward(60)
    assert (await room.read()).complete
    let_go.set()
    await room.context.settle()


async def test_a_reader_who_leaves_does_not_take_the_others_with_him(room: Room) -> None:
    gate = room.providers["account_health"].gate = asyncio.Event()
    leaving, staying = asyncio.create_task(room.read()), asyncio.create_task(room.read())
    await room.all_asked()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    gate.set()
    assert (await staying).complete


async def test_close_ends_what_hangs_and_tells_who_waits(room: Room) -> None:
    hanging = room.providers["account_health"]
    hanging.gate = asyncio.Event()
    waiting = asyncio.create_task(room.read())
    await room.all_asked()
    await room.context.close()
    assert hanging.cancelled == 1
    with pytest.raises(ContextEnrichmentError):
        await waiting


async def test_the_value_and_the_bytes_tell_the_same(room: Room) -> None:
    body = await room.body()
    deadline = Deadline.after(5, room.clock)
    context = await room.context.enrich("customer_123", agent_type="support", deadline=deadline)
    assert context.cache_hit
    assert context.sections().keys() == ACME.keys()
    assert context.engagement_metrics == ACME["engagement_metrics"]
    assert context.context_version == body["context_version"]
    assert all(outcome.state is ProviderState.FRESH for outcome in context.outcomes)
    prompt = await room.read(format=ReadFormat.PROMPT)
    assert prompt.media_type.startswith("text/plain")
    assert prompt.body.decode() == context.to_prompt_context()
    summary = json.loads((await room.read(format=ReadFormat.SUMMARY)).body)
    assert summary == context.get_context_summary()


async def test_the_most_important_tier_is_asked_first() -> None:
    order: list[str] = []

    class Noting(FakeProvider):
        async def fetch(self, customer_id: str, *, deadline: Deadline) -> Any:
            order.append(self.spec.name)
            return await super().fetch(customer_id, deadline=deadline)

    tiers = {name: tier for tier, name in enumerate(reversed(ACME))}
    context = ContextOrchestrator([Noting(n, tier=t) for n, t in tiers.items()], views=AgentViews.load())
    await context.read("customer_1", agent_type="support", deadline=Deadline.after(5))
    assert order == sorted(tiers, key=lambda name: tiers[name])
    await context.close()
