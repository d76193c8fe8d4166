"""Two replicas on one shared tier: fetched once, outdated everywhere, and done without when it is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from models.enrichment.types import Scope, ServedFrom
from models.errors import CacheUnavailable, UnknownCustomer
from tests.fakes.context_room import CUSTOMER, EXACT, Room, states, tiers
from tests.fakes.enrichment import ACME, FakeProvider, HandClock, LocalNews, MemorySections, documented_providers

PROFILE = "customer_intelligence"


class Pair:
    """Two replicas over the same sources, shared tier and clock."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.shared = MemorySections()
        self.news = LocalNews()
        self.providers: dict[str, FakeProvider] = {
            **documented_providers(),
            "product_status": FakeProvider("product_status", scope=Scope.EVERYONE),
        }
        self.one, self.two = self._replica(), self._replica()

    def _replica(self) -> Room:
        room = Room(
            self.providers,
            shared=self.shared,
            news=self.news,
            clock=self.clock,
            policy=replace(EXACT, early_refresh=1.0),
        )
        room.context.start()
        return room

    def asked(self) -> dict[str, int]:
        return {name: len(provider.asked) for name, provider in self.providers.items()}

    async def settle(self) -> None:
        await self.one.context.settle()
        await self.two.context.settle()


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    built = Pair()
    await asyncio.sleep(0)  # both begin to listen
    yield built
    await built.one.context.close()
    await built.two.context.close()


async def test_one_fetches_for_all(pair: Pair) -> None:
    first = await pair.one.body()
    await pair.settle()
    pair.clock.forward(3)
    second, third = await pair.two.body(), await pair.two.body()
    assert [body["served_from"] for body in (first, second, third)] == ["origin", "l2", "l1"]
    assert set(tiers(second).values()) == {"l2"}
    assert {outcome["age_ms"] for outcome in second["providers"].values()} == {3_000}
    assert first["context_version"] == second["context_version"]
    assert second["customer_intelligence"] == first["customer_intelligence"]
    assert set(pair.asked().values()) == {1}
    assert pair.two.metrics.of("context_cache_requests_total", tier="l2", result="hit") == 1


async def test_agent_types_share_what_is_kept_unmasked(pair: Pair) -> None:
    await pair.one.read(agent_type="")
    await pair.settle()
    sales = await pair.two.body(agent_type="sales", providers=(PROFILE,))
    assert sales["served_from"] == "l2"
    assert sales[PROFILE]["contact_email"] == "jordan.blake@example.com"


async def test_only_what_another_replica_lacks_is_fetched(pair: Pair) -> None:
    pair.providers["support_history"].fails()
    await pair.one.read()
    await pair.settle()
    pair.providers["support_history"].recovers()
    body = await pair.two.body()
    assert tiers(body).pop("support_history") == "origin"
    assert body["served_from"] == "origin"
    assert [tier for name, tier in tiers(body).items() if name != "support_history"] == ["l2"] * 5


async def test_memory_is_checked_against_the_shared_tier_every_half_minute(pair: Pair) -> None:
    await pair.one.read()
    await pair.settle()
    pair.clock.forward(30.1)
    assert (await pair.one.read()).served_from is ServedFrom.L2
    assert set(pair.asked().values()) == {1}


async def test_an_invalidation_reaches_memory_even_when_the_news_does_not(pair: Pair) -> None:
    await pair.one.read()
    await pair.two.read()
    await pair.settle()
    pair.providers[PROFILE].changes(company_name="Acme Inc")
    await pair.shared.outdate([CUSTOMER], [])
    assert (await pair.one.body())[PROFILE]["company_name"] == "Acme Corp"
    pair.clock.forward(30.1)
    assert (await pair.one.body())[PROFILE]["company_name"] == "Acme Inc"


@pytest.mark.parametrize(
    ("customer_ids", "tags", "again"),
    [
        ([CUSTOMER], [], set(ACME)),
        ([CUSTOMER], ["support_history"], {"support_history"}),
        ([], ["support_history"], {"support_history"}),
        ([], ["database"], {*ACME, "product_status"}),
        ([CUSTOMER], ["nobody-has-this"], set()),
        (["customer_9"], [], set()),
    ],
)
async def test_a_change_outdates_just_what_it_is_about_on_every_replica(
    pair: Pair, customer_ids: list[str], tags: list[str], again: set[str]
) -> None:
    for room in (pair.one, pair.two):
        await room.read()
        await pair.settle()
    await pair.one.context.invalidate(customer_ids, tags)
    assert (await pair.two.read()).complete
    await pair.settle()
    assert (await pair.one.read()).complete
    assert pair.asked() == {name: 2 if name in again else 1 for name in pair.providers}


@pytest.mark.parametrize("customer_ids", [[], [CUSTOMER]])
async def test_a_tag_that_nothing_bears_leaves_no_trace(pair: Pair, customer_ids: list[str]) -> None:
    await pair.one.read()
    await pair.settle()
    await pair.one.context.invalidate(customer_ids, [f"made-up-{n}" for n in range(9)])
    assert (pair.shared.tags, pair.shared.own_tags) == ({}, {})
    await pair.one.context.invalidate(customer_ids, ["made-up", "support_history", "support_history"])
    tags = pair.shared.own_tags[CUSTOMER] if customer_ids else pair.shared.tags
    assert tags.keys() - {":tags"} == {"support_history"}


async def test_what_was_under_way_during_an_invalidation_is_not_kept(pair: Pair) -> None:
    gate = pair.providers["account_health"].gate = asyncio.Event()
    early = asyncio.create_task(pair.one.body())
    await pair.one.all_asked()
    pair.providers[PROFILE].changes(company_name="Acme Inc")
    await pair.two.context.invalidate([CUSTOMER])
    gate.set()
    assert (await early)[PROFILE]["company_name"] == "Acme Corp", "it was asked before"
    await pair.settle()
    for room in (pair.one, pair.two):
        assert (await room.body())[PROFILE]["company_name"] == "Acme Inc"


async def test_a_write_that_raced_an_invalidation_does_not_land_even_unheard(pair: Pair) -> None:
    gate = pair.providers["account_health"].gate = asyncio.Event()
    early = asyncio.create_task(pair.one.read())
    await pair.one.all_asked()
    await pair.shared.outdate([CUSTOMER], [])  # no news of it
    gate.set()
    await early
    await pair.settle()
    assert "account_health" not in pair.shared.shelves.get(CUSTOMER, {})
    assert (await pair.one.body())["providers"]["account_health"]["served_from"] == "origin", "nor is it in memory"


async def test_what_was_found_during_an_invalidation_is_not_promoted(pair: Pair) -> None:
    await pair.one.read()
    await pair.settle()
    pair.shared.gate = asyncio.Event()
    early = asyncio.create_task(pair.two.body())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    pair.providers[PROFILE].changes(company_name="Acme Inc")
    await pair.one.context.invalidate([CUSTOMER])
    pair.shared.gate.set()
    assert (await early)[PROFILE]["company_name"] == "Acme Corp"
    await pair.settle()
    assert (await pair.two.body())[PROFILE]["company_name"] == "Acme Inc"


async def test_a_replica_that_was_cut_off_drops_what_it_may_have_missed(pair: Pair) -> None:
    await pair.one.read()
    await pair.settle()
    await pair.news.miss()
    assert (await pair.one.read()).served_from is ServedFrom.L2
    assert pair.one.metrics.of("context_invalidations_total", kind="gap") >= 1


async def test_an_unknown_customer_is_unknown_everywhere_until_he_is_created(pair: Pair) -> None:
    pair.providers[PROFILE].knows_nobody()
    for room in (pair.one, pair.two, pair.one, pair.two):
        with pytest.raises(UnknownCustomer):
            await room.read()
        await pair.settle()
    assert pair.asked()[PROFILE] == 1
    pair.providers[PROFILE].recovers()
    await pair.one.context.invalidate([CUSTOMER])
    for room in (pair.two, pair.one):
        assert (await room.read()).complete


async def test_a_forced_read_that_finds_an_unknown_customer_tells_everybody(pair: Pair) -> None:
    pair.providers[PROFILE].knows_nobody()
    with pytest.raises(UnknownCustomer):
        await pair.one.read()
    await pair.settle()
    pair.providers[PROFILE].recovers()
    await pair.one.read(force_refresh=True)
    await pair.settle()
    assert (await pair.two.read()).complete


async def test_close_ends_a_listener_that_loses_its_cancellation() -> None:
    class Forgetful(LocalNews):
        async def listen(self, on_change: Any, on_gap: Any) -> None:
            with suppress(asyncio.CancelledError):
                await super().listen(on_change, on_gap)
            await asyncio.Event().wait()

    room = Room(news=Forgetful())
    room.context.start()
    await asyncio.sleep(0)
    await asyncio.wait_for(room.context.close(), 5)


async def test_an_unknown_customer_is_asked_for_again_in_time(pair: Pair) -> None:
    pair.providers[PROFILE].knows_nobody()
    with pytest.raises(UnknownCustomer):
        await pair.one.read()
    await pair.settle()
    pair.clock.forward(30.1)
    pair.providers[PROFILE].recovers()
    assert (await pair.two.read()).complete
    assert (await pair.one.read()).complete


async def test_reads_go_on_while_the_shared_tier_is_away(pair: Pair) -> None:
    await pair.one.read()
    await pair.settle()
    pair.shared.down = True
    assert (await pair.one.read()).served_from is ServedFrom.L1
    assert (await pair.two.read()).served_from is ServedFrom.ORIGIN
    pair.clock.forward(31)
    assert (await pair.one.read()).cache_hit, "what is fresh needs no confirmation that nobody can give"
    with pytest.raises(CacheUnavailable):
        await pair.one.context.invalidate([CUSTOMER])
    pair.providers[PROFILE].changes(company_name="Acme Inc")
    assert (await pair.one.body(force_refresh=True))[PROFILE]["company_name"] == "Acme Inc"
    pair.shared.down = False
    pair.clock.forward(1)
    await pair.one.read("customer_7")
    await pair.settle()
    assert (await pair.two.read("customer_7")).served_from is ServedFrom.L2


async def test_a_full_shared_tier_still_answers(pair: Pair) -> None:
    await pair.one.read()
    await pair.settle()
    pair.shared.full = True
    await pair.one.read("customer_2")
    await pair.settle()
    assert (await pair.two.read()).served_from is ServedFrom.L2
    assert (await pair.two.read("customer_2")).served_from is ServedFrom.ORIGIN


async def test_records_of_another_release_count_as_absent(pair: Pair) -> None:
    await pair.one.read()
    await pair.settle()
    shelf = pair.shared.shelves[CUSTOMER]
    for name, data in shelf.items():
        shelf[name] = b"00000000" + data[8:]
    assert states(await pair.two.body())[PROFILE] == "fresh"
    assert pair.asked()[PROFILE] == 2


async def test_a_record_from_the_future_is_not_called_fresh(pair: Pair) -> None:
    await pair.one.read()
    await pair.settle()
    pair.clock.jump(-600)
    await pair.two.read()
    assert pair.asked()[PROFILE] == 2


async def test_closing_lets_go_of_the_shared_tier(pair: Pair) -> None:
    await pair.one.context.close()
    assert pair.shared.closed
