"""What lands late: it replaces nothing newer, and leaves in the history what was true, in its order."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.fakes.context_room import CUSTOMER, Room


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    built = Room()
    yield built
    await built.context.close()


async def test_an_early_slow_read_does_not_bring_back_what_a_forced_one_replaced(room: Room) -> None:
    await room.read()
    room.clock.forward(1)
    slow = room.providers["account_health"]
    await room.context.invalidate([CUSTOMER], ["account_health"])
    slow.gate = asyncio.Event()
    early = asyncio.create_task(room.body())  # holds the profile from memory, and waits
    await slow.arrivals.get()
    await slow.arrivals.get()
    gate, slow.gate = slow.gate, None
    room.clock.forward(1)
    room.providers["customer_intelligence"].changes(company_name="Acme Inc")
    slow.changes(red_flags=("churning",))
    forced = await room.body(force_refresh=True)
    gate.set()
    assert (await early)["customer_intelligence"]["company_name"] == "Acme Corp"
    await room.context.settle()
    later = await room.body()
    assert later["customer_intelligence"]["company_name"] == "Acme Inc"
    assert later["account_health"]["red_flags"] == ["churning"]
    assert later["context_version"] == forced["context_version"]
    assert [e.context_version for e in room.history.entries][-1] == forced["context_version"]


async def test_an_early_slow_fetch_does_not_replace_what_was_fetched_after_it(room: Room) -> None:
    slow = room.providers["account_health"]
    gate = slow.gate = asyncio.Event()
    early = asyncio.create_task(room.read())
    await slow.arrivals.get()
    slow.gate = None
    slow.changes(red_flags=("churning",))
    await room.read(force_refresh=True)
    gate.set()
    await early
    await room.context.settle()
    body = await room.body(agent_type="sales", providers=("account_health",))
    assert body["account_health"]["red_flags"] == ["churning"]


async def test_a_change_back_is_in_the_history_though_another_replica_noted_the_change(room: Room) -> None:
    for wait_s, changed in ((0, [CUSTOMER]), (61, [])):
        await room.read(force_refresh=True)
        await room.context.settle()
        here = room.history.entries[-1]
        await room.history.record(replace(here, context_version="by another replica"))
        room.clock.forward(wait_s)
        await room.context.invalidate(changed)
        await room.read(force_refresh=True)
        await room.context.settle()
        assert room.history.entries[-1].context_version == here.context_version
    assert len(room.history.entries) == 5


async def test_a_version_that_cannot_be_recorded_is_told_without_its_content(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    room.history.failure = ValueError("jordan.blake@example.com does not fit")
    assert (await room.read()).complete
    await room.context.settle()
    gc.collect()  # or a task whose error nobody saw is not told of yet
    assert room.metrics.of("context_history_errors_total") == 1
    told = [(record.getMessage(), record.__dict__.get("error"), record.exc_info) for record in caplog.records]
    assert told == [("a context version could not be recorded", "ValueError", None)]
