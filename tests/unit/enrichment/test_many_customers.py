"""Many customers in one read: together where the provider can, and each on its own terms."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from models.errors import DeadlineExceeded, InvalidRequest, UnknownCustomer
from tests.fakes.context_room import Room, states
from tests.fakes.enrichment import FakeBulkProvider, FakeProvider, MemorySections, ask, documented_providers

PROFILE = "customer_intelligence"


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    built = Room(
        {
            PROFILE: FakeBulkProvider(PROFILE, tier=0),
            "support_history": FakeProvider("support_history"),
            "account_health": FakeBulkProvider("account_health", depends_on=(PROFILE,)),
        }
    )
    yield built
    await built.context.close()


def bulk(room: Room, name: str = PROFILE) -> FakeBulkProvider:
    return cast("FakeBulkProvider", room.providers[name])


async def read_many(room: Room, ids: list[str], **request: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(await room.context.read_many(ids, ask(5.0, room.clock, **request)))
    return body


async def test_each_is_answered_in_the_order_asked(room: Room) -> None:
    bulk(room).nobody = {"c2"}
    body = await read_many(room, ["c3", "c1", "c2", "c1"])
    assert [context["customer_id"] for context in body["contexts"]] == ["c3", "c1"]
    assert body["unknown"] == ["c2"]
    assert body["complete"] is True
    assert body["deadline_ms"] == 5000
    assert body["elapsed_ms"] >= 0
    assert all(set(states(context).values()) == {"fresh"} for context in body["contexts"])


async def test_a_provider_that_can_is_asked_once(room: Room) -> None:
    ids = [f"c{n}" for n in range(40)]
    await read_many(room, ids)
    assert bulk(room).asked_together == [ids]
    assert bulk(room, "account_health").asked_together == [ids]
    assert bulk(room).asked == []
    assert room.providers["support_history"].asked == ids
    assert bulk(room, "account_health").known["c7"].keys() == {PROFILE}


async def test_one_customer_alone_is_fetched_alone(room: Room) -> None:
    await read_many(room, ["c1"])
    assert (bulk(room).asked, bulk(room).asked_together) == (["c1"], [])


async def test_what_is_cached_is_not_asked_for_again(room: Room) -> None:
    await read_many(room, ["c1", "c2"])
    body = await read_many(room, ["c1", "c2", "c3", "c4"])
    assert [context["served_from"] for context in body["contexts"]] == ["l1", "l1", "origin", "origin"]
    assert bulk(room).asked_together == [["c1", "c2"], ["c3", "c4"]]
    single = await room.read("c3")
    assert single.cache_hit


async def test_one_customers_garbage_is_nobody_elses(room: Room) -> None:
    bulk(room).special = {"c2": "garbage", "c3": None}
    body = await read_many(room, ["c1", "c2", "c3"])
    assert [states(context)[PROFILE] for context in body["contexts"]] == ["fresh", "error", "missing"]
    assert body["complete"] is False


async def test_a_failing_provider_fails_for_each(room: Room) -> None:
    bulk(room).fails()
    body = await read_many(room, ["c1", "c2"])
    assert [states(context)[PROFILE] for context in body["contexts"]] == ["error", "error"]
    assert [states(context)["account_health"] for context in body["contexts"]] == ["fresh", "fresh"]


async def test_a_late_provider_is_a_timeout_now_and_in_the_cache_later(room: Room) -> None:
    gate = bulk(room, "account_health").gate = asyncio.Event()
    body = json.loads(await room.context.read_many(["c1", "c2"], ask(0.06, room.clock)))
    assert [states(context)["account_health"] for context in body["contexts"]] == ["timeout", "timeout"]
    assert [states(context)[PROFILE] for context in body["contexts"]] == ["fresh", "fresh"]
    gate.set()
    await room.context.settle()
    assert (await read_many(room, ["c1", "c2"]))["complete"] is True


async def test_single_reads_share_what_many_are_fetching(room: Room) -> None:
    bulk(room).gate = asyncio.Event()
    many = asyncio.create_task(read_many(room, ["c1", "c2"]))
    await room.providers["support_history"].arrivals.get()
    one = asyncio.create_task(room.read("c1"))
    await asyncio.sleep(0)
    bulk(room).gate.set()  # type: ignore[union-attr]  # it was set two lines above
    assert (await one).complete
    await many
    assert bulk(room).asked == []


async def test_what_is_due_is_refreshed_together_behind_the_answer() -> None:
    room = Room({PROFILE: FakeBulkProvider(PROFILE, ttl_s=20.0)})
    ids = ["c1", "c2", "c3"]
    await read_many(room, ids)
    room.clock.forward(16.1)
    body = await read_many(room, ids)
    assert {context["served_from"] for context in body["contexts"]} == {"l1"}
    await room.context.settle()
    assert bulk(room).asked_together == [ids, ids]
    await room.context.close()


async def test_a_thousand_is_the_most(room: Room) -> None:
    with pytest.raises(InvalidRequest, match="1,000"):
        await read_many(room, [f"c{n}" for n in range(1001)])
    with pytest.raises(InvalidRequest):
        await read_many(room, ["c1", "not an id"])
    assert room.fetches == 0
    assert await read_many(room, []) == {
        "contexts": [],
        "unknown": [],
        "complete": True,
        "deadline_ms": 5000,
        "elapsed_ms": 0.0,
    }


async def test_a_required_provider_must_be_there_for_all(room: Room) -> None:
    bulk(room).special = {"c2": "garbage"}
    with pytest.raises(DeadlineExceeded, match=PROFILE):
        await read_many(room, ["c1", "c2"], required=(PROFILE,))


async def test_values_are_the_same_as_one_by_one(room: Room) -> None:
    bulk(room).nobody = {"c2"}
    many = await room.context.enrich_many(["c1", "c2", "c3"], ask(5.0, room.clock))
    assert list(many) == ["c1", "c3"]
    assert many["c1"].context_version == (await room.enrich("c1")).context_version
    with pytest.raises(UnknownCustomer):
        await room.enrich("c2")


async def test_the_shared_tier_is_asked_once_for_all() -> None:
    shared = MemorySections()
    one, two = Room(documented_providers(FakeBulkProvider), shared=shared), Room(shared=shared)
    ids = [f"c{n}" for n in range(300)]
    await read_many(one, ids)
    await one.context.settle()
    body = await read_many(two, ids)
    assert {context["served_from"] for context in body["contexts"]} == {"l2"}
    assert shared.loads == 2
    await one.context.close()
    await two.context.close()
