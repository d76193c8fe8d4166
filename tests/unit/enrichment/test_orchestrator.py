"""Reads of customer context: partial rather than late, shared rather than repeated, masked by agent type."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any

import pytest

from models.enrichment.selection import AgentViews
from models.enrichment.types import ProviderState, ReadFormat, ServedFrom
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
from tests.fakes.context_room import Room, states, tiers
from tests.fakes.enrichment import ACME, MORE, FakeProvider, all_providers

#: Real seconds that a read is ready to wait for something that is not going to happen.
BRIEFLY = 0.01


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    built = Room()
    yield built
    await built.context.close()


async def test_a_complete_context_has_every_section_and_says_where_it_came_from(room: Room) -> None:
    body = await room.body()
    assert body["complete"]
    assert set(states(body).values()) == {"fresh"}
    assert body["customer_intelligence"]["company_name"] == "Acme Corp"
    assert body["served_from"] == "origin"
    assert body["cache_hit"] is False
    assert body["deadline_ms"] == 5000
    assert set(tiers(body).values()) == {"origin"}


async def test_every_section_of_every_provider_survives_reading_from_l1() -> None:
    room = Room(all_providers())
    for agent_type in ("support", "sales"):
        first, second = await room.body(agent_type=agent_type), await room.body(agent_type=agent_type)
        assert second["served_from"] == "l1"
        shown = {name: body for name, body in first.items() if name in {**ACME, **MORE}}
        assert shown == {name: second[name] for name in shown}
        assert sum(section is not None for section in shown.values()) == len(first["providers"])
    await room.context.close()


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


async def test_in_a_hurry_only_the_most_important_tier_is_waited_for() -> None:
    room = Room(
        {
            "customer_intelligence": FakeProvider("customer_intelligence", tier=0),
            "support_history": FakeProvider("support_history", tier=1),
        }
    )
    lesser = room.providers["support_history"]
    lesser.gate = asyncio.Event()
    body = await room.body(wait_s=0.049)
    assert states(body) == {"customer_intelligence": "fresh", "support_history": "timeout"}
    assert lesser.asked == ["customer_123"], "it was started all the same"
    lesser.gate.set()
    await room.context.settle()
    assert (await room.read()).complete
    await room.context.close()


async def test_when_everything_fails_a_minimal_context_says_why(room: Room) -> None:
    for provider in room.providers.values():
        provider.fails()
    context = await room.enrich()
    assert context.minimal
    assert not context.complete
    assert {outcome.state for outcome in context.outcomes} == {ProviderState.ERROR}
    assert all(outcome.detail for outcome in context.outcomes)
    assert "No customer data" in context.to_prompt_context()
    assert context.get_context_summary()["churn_risk_level"] == "unknown"


async def test_a_gap_is_remembered_only_briefly(room: Room) -> None:
    broken = room.providers["support_history"]
    broken.fails()
    await room.read()
    assert (await room.read()).served_from is ServedFrom.L1
    broken.recovers()
    room.clock.forward(2.1)
    assert (await room.read()).complete
    assert len(room.providers["account_health"].asked) == 1, "what was fresh is not fetched again"


async def test_a_partial_refetch_says_honestly_what_came_from_where(room: Room) -> None:
    room.providers["support_history"].fails()
    await room.read()
    room.providers["support_history"].recovers()
    room.clock.forward(2.1)
    body = await room.body()
    assert tiers(body).pop("support_history") == "origin"
    assert {tier for name, tier in tiers(body).items() if name != "support_history"} == {"l1"}
    assert body["served_from"] == "origin"
    assert body["providers"]["support_history"]["age_ms"] == 0
    assert body["providers"]["account_health"]["age_ms"] == 2_100


async def test_two_hundred_parallel_reads_fetch_once(room: Room) -> None:
    for force_refresh in (False, True):
        before = room.fetches
        bodies = await asyncio.gather(*(room.read(force_refresh=force_refresh) for _ in range(200)))
        assert room.fetches - before == len(room.providers)
        assert len({reading.context_version for reading in bodies}) == 1


async def test_agents_of_different_types_share_a_fetch(room: Room) -> None:
    gate = room.providers["customer_intelligence"].gate = asyncio.Event()
    reads = [asyncio.create_task(room.body(agent_type=name)) for name in ("support", "sales", "billing", "")]
    await room.providers["customer_intelligence"].arrivals.get()
    gate.set()
    assert {body["agent_type"] for body in await asyncio.gather(*reads)} == {"support", "sales", "billing", "general"}
    assert room.providers["customer_intelligence"].asked == ["customer_123"]


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
    assert reading.ttl_ms == 17_500
    assert {outcome["age_ms"] for outcome in body["providers"].values()} == {12_500}
    assert set(tiers(body).values()) == {"l1"}
    assert body["cache_hit"] is True
    assert room.metrics.of("context_cache_requests_total", tier="l1", result="hit") == 1


async def test_the_version_changes_with_lasting_content_and_with_nothing_else() -> None:
    room = Room(all_providers())
    first = await room.read()
    room.clock.forward(400)
    second = await room.read(force_refresh=True)
    assert second.age_ms == 0
    room.providers["current_activity"].changes(events_1h=99)
    third = await room.read(force_refresh=True)
    assert b'"events_1h":99' in third.body
    assert first.context_version == second.context_version == third.context_version
    room.providers["support_history"].changes(open_tickets=2)
    assert (await room.read(force_refresh=True)).context_version != first.context_version
    await room.context.close()


async def test_history_is_written_when_content_changes_only(room: Room) -> None:
    for _ in range(3):
        await room.read(force_refresh=True)
        await room.context.settle()
    room.providers["support_history"].changes(open_tickets=2)
    await room.read(force_refresh=True)
    await room.context.settle()
    assert [e.content["support_history"]["open_tickets"] for e in room.history.entries] == [1, 2]
    assert room.history.entries[0].content["customer_intelligence"]["contact_email"] == "j***@example.com"
    assert room.history.entries[0].sources["support_history"] == "database"
    assert room.history.entries[0].rules == AgentViews.load().view("support").fingerprint


async def test_what_one_read_was_restricted_to_makes_no_history(room: Room) -> None:
    await room.read(providers=("support_history",))
    await room.read(agent_type="sales", masked=True)
    await room.context.settle()
    assert room.history.entries == []


async def test_a_context_with_gaps_makes_no_history(room: Room) -> None:
    room.providers["support_history"].fails()
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


@pytest.mark.parametrize("customer_id", ["", "a b", "x" * 65, "../etc", "ключ", "a\n", "*", ":unknown"])
async def test_a_malformed_id_reaches_no_provider(room: Room, customer_id: str) -> None:
    with pytest.raises(InvalidRequest):
        await room.read(customer_id)
    assert room.fetches == 0


async def test_a_required_provider_that_is_absent_fails_the_read(room: Room) -> None:
    room.providers["account_health"].fails()
    assert not (await room.read()).complete
    with pytest.raises(DeadlineExceeded, match="account_health"):
        await room.read(required=("account_health",))
    assert not (await room.read(required=("support_history",))).complete
    room.providers["account_health"].answer = None
    assert (await room.read(required=("account_health",), force_refresh=True)).complete, "having nothing is an answer"


async def test_required_must_name_what_the_agent_type_sees(room: Room) -> None:
    with pytest.raises(InvalidRequest):
        await room.read(required=("horoscope",))
    with pytest.raises(Forbidden):
        await room.read(agent_type="billing", required=("account_health",))


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


async def test_masked_and_restricted_views_are_cached_apart(room: Room) -> None:
    for _ in range(2):
        unmasked = await room.body(agent_type="sales")
        masked = await room.body(agent_type="sales", masked=True)
        narrow = await room.body(agent_type="sales", providers=("subscription_details",))
        assert unmasked["customer_intelligence"]["contact_email"] == "jordan.blake@example.com"
        assert masked["customer_intelligence"]["contact_email"] == "[redacted]"
        assert list(narrow["providers"]) == ["subscription_details"]
        assert narrow["customer_intelligence"] is None
    assert room.fetches == 4, "what another view has fetched is not fetched again"


async def test_without_a_cache_every_read_asks() -> None:
    room = Room(cached=False)
    for _ in range(2):
        assert (await room.read()).served_from is ServedFrom.ORIGIN
        await room.context.settle()
    assert room.fetches == 2 * len(room.providers)


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
    context = await room.enrich()
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
        async def fetch(self, customer_id: str, **rest: Any) -> Any:
            order.append(self.spec.name)
            return await super().fetch(customer_id, **rest)

    tiers_of = {name: tier for tier, name in enumerate(reversed(ACME))}
    room = Room({name: Noting(name, tier=tier) for name, tier in tiers_of.items()})
    await room.read()
    assert order == sorted(tiers_of, key=lambda name: tiers_of[name])
    await room.context.close()


class ByName:
    """A `Relevance` that finds one section relevant; `told` is what it was asked about."""

    def __init__(self, relevant: str) -> None:
        self.relevant = relevant
        self.told: dict[str, Any] = {}

    async def vector(self, message: str, deadline: Deadline) -> str:
        return message

    def scores(
        self,
        sections: Collection[str],
        vector: Any,
        *,
        tiers: Mapping[str, int],
        freshness: Mapping[str, float],
        importance: Mapping[str, float] | None = None,
    ) -> Mapping[str, float]:
        self.told = {"vector": vector, "tiers": tiers, "freshness": freshness, "importance": importance}
        return {name: float(name == self.relevant) for name in sections}


async def test_a_message_orders_sections_by_relevance() -> None:
    scorer = ByName("engagement_metrics")
    room = Room(relevance=scorer)
    assert "relevance" not in await room.body()
    room.clock.forward(15)
    body = await room.body(message="who logged in?")
    assert body["relevance"] == {name: float(name == "engagement_metrics") for name in ACME}
    assert body["ranked_by_message"] is True
    assert body["served_from"] == "l1"
    assert scorer.told["vector"] == "who logged in?"
    assert scorer.told["freshness"]["support_history"] == pytest.approx(0.95)
    prompt = (await room.read(message="who logged in?", format=ReadFormat.PROMPT, max_tokens=125)).body.decode()
    assert "Recent Activity" in prompt
    assert "Subscription" not in prompt
    await room.context.close()


async def test_a_failing_defect_is_a_service_fault_with_its_own_name(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(room.context._flights._assembler, "assemble", broken)
    with pytest.raises(ContextEnrichmentError):
        await room.read()


async def test_a_provider_error_never_reaches_the_reader(room: Room) -> None:
    room.providers["support_history"].fails(ProviderUnavailable("postgres://secret"))
    assert b"secret" not in (await room.read()).body
