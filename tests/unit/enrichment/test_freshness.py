"""Data past its time is refetched, or shown for what it is: its age told, and never called fresh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from models.enrichment.types import ProviderState, ServedFrom, SupportHistory
from models.errors import ProviderUnavailable, UnknownCustomer
from tests.fakes.context_room import CUSTOMER, EXACT, Room, states, tiers
from tests.fakes.enrichment import FakeProvider

SUPPORT = "support_history"
HEALTH = "account_health"
PROFILE = "customer_intelligence"
BRIEFLY = 0.01


def two(**support: Any) -> dict[str, FakeProvider]:
    """A provider that is fresh for 300 s beside one with the given times."""
    return {PROFILE: FakeProvider(PROFILE, stale_while_revalidate_s=0.0), SUPPORT: FakeProvider(SUPPORT, **support)}


def asked(room: Room) -> tuple[int, int]:
    return len(room.providers[PROFILE].asked), len(room.providers[SUPPORT].asked)


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    """`support_history` is fresh for 100 s, and shown stale for 50 more."""
    built = Room(two(ttl_s=100.0, stale_while_revalidate_s=50.0), policy=replace(EXACT, early_refresh=1.0))
    yield built
    await built.context.close()


async def test_only_what_expired_is_fetched_again(room: Room) -> None:
    await room.read()
    room.clock.forward(160)
    body = await room.body()
    assert asked(room) == (1, 2)
    assert tiers(body) == {PROFILE: "l1", SUPPORT: "origin"}


async def test_a_stale_section_is_shown_at_once_and_refreshed_behind(room: Room) -> None:
    await room.read()
    room.clock.forward(120)
    support = room.providers[SUPPORT]
    support.changes(open_tickets=7)
    support.gate = asyncio.Event()
    stale = await room.body()
    assert states(stale)[SUPPORT] == "stale"
    assert stale["providers"][SUPPORT]["age_ms"] == 120_000
    assert stale[SUPPORT]["open_tickets"] == 1
    assert not stale["complete"]
    support.gate.set()
    await room.context.settle()
    fresh = await room.body()
    assert fresh[SUPPORT]["open_tickets"] == 7
    assert states(fresh)[SUPPORT] == "fresh"
    assert asked(room) == (1, 2)
    assert room.metrics.of("context_refreshes_total", reason="stale") == 1


async def test_the_soft_timeout_waits_for_what_comes_soon() -> None:
    room = Room(
        two(ttl_s=100.0, stale_while_revalidate_s=50.0), policy=replace(EXACT, soft_timeout_s=30.0, early_refresh=1.0)
    )
    await room.read()
    room.clock.forward(120)
    room.providers[SUPPORT].changes(open_tickets=7)
    body = await room.body()
    assert (states(body)[SUPPORT], body[SUPPORT]["open_tickets"]) == ("fresh", 7)
    await room.context.close()


async def test_a_hit_close_to_expiry_is_refreshed_behind_the_answer() -> None:
    room = Room(two(ttl_s=20.0), policy=replace(EXACT, early_refresh=0.8))
    await room.read()
    room.clock.forward(15.9)
    await room.read()
    await room.context.settle()
    assert asked(room) == (1, 1)
    room.clock.forward(0.2)
    room.providers[SUPPORT].changes(open_tickets=7)
    answers = [await room.body() for _ in range(3)]
    assert {answer["served_from"] for answer in answers} == {"l1"}
    assert {answer[SUPPORT]["open_tickets"] for answer in answers} == {1}
    await room.context.settle()
    assert asked(room) == (1, 2)
    refreshed = await room.body()
    assert (refreshed["served_from"], refreshed[SUPPORT]["open_tickets"]) == ("l1", 7)
    assert room.metrics.of("context_refreshes_total", reason="early") == 1
    await room.context.close()


async def test_an_early_refresh_that_fails_changes_nothing_and_is_not_repeated_at_once() -> None:
    room = Room(two(ttl_s=20.0))
    await room.read()
    room.clock.forward(16.1)
    room.providers[SUPPORT].fails()
    for _ in range(5):
        assert (await room.body())["complete"]
        await room.context.settle()
    assert asked(room) == (1, 2)
    room.clock.forward(2.0)
    assert (await room.body())["complete"], "it is fresh still"
    await room.context.settle()
    assert asked(room) == (1, 3)
    await room.context.close()


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 20.0), (0.5, 18.0), (1.0, 16.0)])
async def test_expiries_are_spread(chance: float, seconds: float) -> None:
    room = Room(
        two(ttl_s=20.0, stale_while_revalidate_s=0.0),
        policy=replace(EXACT, expiry_jitter=0.2, early_refresh=1.0),
        chance=chance,
    )
    await room.read()
    room.clock.forward(seconds - 0.1)
    await room.read()
    assert asked(room) == (1, 1)
    room.clock.forward(0.2)
    await room.read()
    assert asked(room) == (1, 2)
    await room.context.close()


async def test_a_finding_of_nothing_has_a_time_of_its_own() -> None:
    room = Room(
        two(ttl_s=100.0, missing_ttl_s=10.0, stale_while_revalidate_s=0.0), policy=replace(EXACT, early_refresh=1.0)
    )
    room.providers[SUPPORT].answer = None
    for _ in range(2):
        body = await room.body()
        assert states(body)[SUPPORT] == "missing"
        assert body["complete"]
    assert asked(room) == (1, 1)
    room.clock.forward(10.1)
    await room.read()
    assert asked(room) == (1, 2)
    await room.context.close()


async def test_the_policy_bounds_every_providers_own_time() -> None:
    room = Room(two(ttl_s=1e6, stale_while_revalidate_s=0.0), policy=replace(EXACT, ttl_s=60.0, early_refresh=1.0))
    await room.read()
    room.clock.forward(60.1)
    await room.read()
    assert asked(room) == (2, 2)
    await room.context.close()


@pytest.mark.parametrize("error", [ProviderUnavailable("down"), RuntimeError("a defect")])
async def test_a_failing_provider_is_stood_in_for_by_what_it_said_last(room: Room, error: Exception) -> None:
    await room.read()
    room.providers[SUPPORT].fails(error)
    room.clock.forward(301)
    body = await room.body()
    outcome = body["providers"][SUPPORT]
    assert outcome["state"] == "stale"
    assert outcome["age_ms"] == 301_000
    assert outcome["detail"] == "error: the source failed"
    assert body[SUPPORT]["total_conversations"] == 12
    assert not body["complete"]


async def test_what_is_too_old_even_for_that_is_gone(room: Room) -> None:
    await room.read()
    room.providers[SUPPORT].fails()
    room.clock.forward(100 + 600 + 1)
    body = await room.body()
    assert states(body)[SUPPORT] == "error"
    assert body[SUPPORT] is None


async def test_a_late_provider_is_stood_in_for_too(room: Room) -> None:
    await room.read()
    room.providers[SUPPORT].gate = asyncio.Event()
    room.clock.forward(200)
    body = await room.body(wait_s=BRIEFLY)
    assert states(body)[SUPPORT] == "stale"
    assert body["providers"][SUPPORT]["detail"].startswith("timeout")


async def test_max_age_and_force_refresh_reach_past_the_cache(room: Room) -> None:
    await room.read()
    room.clock.forward(10)
    assert (await room.read(max_age_ms=10_000)).cache_hit
    assert (await room.read(max_age_ms=9_999)).age_ms == 0
    assert asked(room) == (2, 2)
    assert (await room.read(force_refresh=True)).served_from is ServedFrom.ORIGIN
    assert asked(room) == (3, 3)


@pytest.mark.parametrize("need", [{"max_age_ms": 9_999}, {"force_refresh": True}])
async def test_what_is_older_than_was_asked_for_is_never_called_fresh(room: Room, need: dict[str, Any]) -> None:
    await room.read()
    room.clock.forward(10)
    room.providers[SUPPORT].fails()
    body = await room.body(**need)
    assert states(body) == {PROFILE: "fresh", SUPPORT: "stale"}
    assert body["providers"][SUPPORT]["age_ms"] == 10_000
    assert body["providers"][PROFILE]["age_ms"] == 0


async def test_max_age_admits_no_stale_answer_where_a_fresh_one_comes(room: Room) -> None:
    await room.read()
    room.clock.forward(120)
    body = await room.body(max_age_ms=200_000)
    assert states(body)[SUPPORT] == "fresh"
    assert body["providers"][SUPPORT]["age_ms"] == 0


class TestWhatIsMadeFromOtherSections:
    """`account_health` is made from the support history."""

    @pytest.fixture
    async def room(self) -> AsyncIterator[Room]:
        health = FakeProvider(HEALTH, depends_on=(SUPPORT,))
        built = Room({SUPPORT: FakeProvider(SUPPORT), HEALTH: health}, policy=replace(EXACT, early_refresh=1.0))
        yield built
        await built.context.close()

    @pytest.mark.parametrize("need", [{"max_age_ms": 1_000}, {"force_refresh": True}])
    async def test_from_older_data_than_was_asked_for_it_is_not_called_fresh(
        self, room: Room, need: dict[str, Any]
    ) -> None:
        await room.read()
        room.clock.forward(100)
        room.providers[SUPPORT].fails()
        body = await room.body(**need)
        assert states(body) == {SUPPORT: "stale", HEALTH: "stale"}
        assert body["providers"][HEALTH]["age_ms"] == 100_000
        assert not body["complete"]
        room.clock.forward(2.1)
        assert states(await room.body()) == {SUPPORT: "fresh", HEALTH: "fresh"}, "to others it is new enough"

    async def test_it_is_as_old_as_what_it_was_made_from(self, room: Room) -> None:
        await room.read(providers=(SUPPORT,))
        room.clock.forward(200)
        first = await room.body()
        assert states(first) == {SUPPORT: "fresh", HEALTH: "fresh"}
        assert first["providers"][HEALTH]["age_ms"] == 200_000
        room.clock.forward(5)
        room.providers[SUPPORT].changes(open_tickets=7)
        recent = await room.body(max_age_ms=10_000)
        assert {outcome["age_ms"] for outcome in recent["providers"].values()} == {0}
        told = room.providers[HEALTH].known[CUSTOMER][SUPPORT]
        assert isinstance(told, SupportHistory)
        assert told.open_tickets == 7

    async def test_the_age_of_what_it_was_made_from_does_not_shorten_its_time(self) -> None:
        health = FakeProvider(HEALTH, depends_on=(SUPPORT,), ttl_s=60.0, stale_while_revalidate_s=0.0)
        room = Room({SUPPORT: FakeProvider(SUPPORT), HEALTH: health}, policy=replace(EXACT, early_refresh=1.0))
        await room.read(providers=(SUPPORT,))
        room.clock.forward(200)
        assert (await room.read()).complete
        room.clock.forward(59)
        assert (await room.read()).complete
        assert len(health.asked) == 1
        room.clock.forward(2)
        assert (await room.read()).complete
        assert len(health.asked) == 2
        await room.context.close()

    async def test_the_age_goes_down_the_whole_chain(self) -> None:
        health = FakeProvider(HEALTH, depends_on=(SUPPORT,))
        usage = FakeProvider("engagement_metrics", depends_on=(HEALTH,))
        room = Room({SUPPORT: FakeProvider(SUPPORT), HEALTH: health, "engagement_metrics": usage})
        await room.read()
        room.clock.forward(100)
        room.providers[SUPPORT].fails()
        context = await room.enrich(force_refresh=True)
        assert {outcome.state for outcome in context.outcomes} == {ProviderState.STALE}
        assert len(context.outcomes) == 3
        await room.context.close()


async def test_an_unknown_customer_is_remembered_and_found_once_the_time_is_up(room: Room) -> None:
    room.providers[PROFILE].knows_nobody()
    for _ in range(3):
        with pytest.raises(UnknownCustomer):
            await room.read()
    assert asked(room)[0] == 1
    room.providers[PROFILE].recovers()
    room.clock.forward(30.1)
    assert (await room.body())[PROFILE]["company_name"] == "Acme Corp"


async def test_force_refresh_looks_for_an_unknown_customer_again(room: Room) -> None:
    room.providers[PROFILE].knows_nobody()
    with pytest.raises(UnknownCustomer):
        await room.read()
    room.providers[PROFILE].recovers()
    assert (await room.read(force_refresh=True)).complete
    assert (await room.read()).complete


async def test_a_clock_that_steps_back_makes_no_negative_age_and_nothing_from_the_future_fresh(room: Room) -> None:
    await room.read()
    room.clock.forward(1)
    room.clock.jump(-3)
    slightly = await room.body()
    assert slightly["age_ms"] == 0
    assert slightly["cache_hit"], "hosts differ by so much"
    room.clock.jump(-3600)
    room.providers[SUPPORT].fails()
    body = await room.body()
    assert states(body) == {PROFILE: "fresh", SUPPORT: "stale"}
    assert min(outcome["age_ms"] for outcome in body["providers"].values()) >= 0
    assert asked(room) == (2, 2)


async def test_a_clock_that_steps_back_keeps_nothing_longer(room: Room) -> None:
    await room.read()
    room.clock.forward(99)
    room.clock.jump(-4)
    await room.read()
    assert asked(room) == (1, 1)
    room.clock.forward(60)
    assert states(await room.body())[SUPPORT] == "fresh"
    assert asked(room) == (1, 2)


async def test_a_clock_that_steps_back_hides_no_age_from_who_asks_for_recent_data(room: Room) -> None:
    await room.read()
    room.clock.forward(12)
    room.clock.jump(-4)
    assert (await room.read()).cache_hit
    assert not (await room.read(max_age_ms=10_000)).cache_hit
    assert asked(room) == (2, 2)


async def test_a_clock_that_leaps_ahead_makes_everything_old(room: Room) -> None:
    await room.read()
    room.clock.jump(3600)
    body = await room.body()
    assert set(states(body).values()) == {"fresh"}
    assert body["age_ms"] == 0
    assert asked(room) == (2, 2)
