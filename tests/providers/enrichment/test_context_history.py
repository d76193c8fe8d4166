"""Versions of a context over time, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, update

import providers.systems.context_history
from demo.seed import plant
from models.enrichment.history import HistoryPage, diff
from models.enrichment.types import HistoryEntry
from models.errors import DatabaseUnavailable, InvalidRequest, NotFound, UnknownCustomer
from providers.database import Database
from providers.record_tables import ContextVersion
from providers.systems.context_history import SqlContextHistory

START = datetime(2026, 11, 1, 8, tzinfo=UTC)


def entry(number: int, *, customer_id: str = "customer_1", agent_type: str = "support") -> HistoryEntry:
    return HistoryEntry(
        customer_id=customer_id,
        agent_type=agent_type,
        context_version=f"v{number}",
        content={"support_history": {"open_tickets": number}},
        sources={"support_history": "database"},
        rules="of today",
        at=START + timedelta(hours=number),
    )


async def filled(database: Database, count: int) -> SqlContextHistory:
    history = SqlContextHistory(database)
    for number in range(count):
        assert await history.record(entry(number))
    return history


def versions(page: HistoryPage) -> list[str]:
    return [found.context_version for found in page.entries]


async def test_an_entry_comes_back_as_it_was(database: Database) -> None:
    history = await filled(database, 2)
    page = await history.page("customer_1", agent_type="support")
    assert page == HistoryPage(entries=(entry(1), entry(0)), preceding=None, next_cursor=None)
    [change] = diff(entry(0), page.entries[0])
    assert (change.field, change.source, change.before, change.after, change.at) == (
        "support_history.open_tickets",
        "database",
        0,
        1,
        entry(1).at,
    )


async def test_an_entry_from_before_sources_and_rules_were_kept(database: Database) -> None:
    history = await filled(database, 1)
    async with database.transaction() as session:
        await session.execute(update(ContextVersion).values(sources=None, rules=None))
    found = await history.get("customer_1", "support", "v0")
    assert (found.sources, found.rules) == ({}, "")


async def test_what_reads_the_same_under_new_rules_is_theirs_and_no_new_version(database: Database) -> None:
    history = await filled(database, 2)
    for _ in range(2):
        assert not await history.record(replace(entry(1), rules="new"))
    page = await history.page("customer_1", agent_type="support")
    assert [(found.context_version, found.rules, found.at) for found in page.entries] == [
        ("v1", "new", entry(1).at),
        ("v0", "of today", entry(0).at),
    ]


@pytest.mark.parametrize(("count", "limit"), [(0, 2), (2, 2), (3, 2), (7, 3)])
async def test_pages_hold_every_version_once(database: Database, count: int, limit: int) -> None:
    history = await filled(database, count)
    await history.record(entry(99, agent_type="sales"))
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = await history.page("customer_1", agent_type="support", limit=limit, cursor=cursor)
        assert len(page.entries) <= limit
        seen += versions(page)
        if (cursor := page.next_cursor) is None:
            break
        assert page.preceding is not None
    assert page.preceding is None
    assert seen == [f"v{number}" for number in reversed(range(count))]


async def test_versions_added_between_pages_neither_repeat_nor_hide_any(database: Database) -> None:
    history = await filled(database, 6)
    first = await history.page("customer_1", agent_type="support", limit=2)
    for number in (6, 7, 8):
        await history.record(entry(number))
    second = await history.page("customer_1", agent_type="support", limit=2, cursor=first.next_cursor)
    third = await history.page("customer_1", agent_type="support", limit=2, cursor=second.next_cursor)
    assert versions(first) + versions(second) + versions(third) == ["v5", "v4", "v3", "v2", "v1", "v0"]
    assert third.next_cursor is None


@pytest.mark.parametrize("cursor", ["", "x", "-1", "1.5", "٣", "9" * 40])
async def test_a_cursor_of_somebody_else_is_refused(database: Database, cursor: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        await SqlContextHistory(database).page("customer_1", agent_type="support", cursor=cursor)
    assert raised.value.fields[0].pointer == "/query/cursor"


async def test_one_version(database: Database) -> None:
    history = await filled(database, 3)
    assert await history.get("customer_1", "support", "v1") == entry(1)
    for customer_id, agent_type, version in (
        ("customer_1", "support", "v9"),
        ("customer_1", "sales", "v1"),
        ("customer_2", "support", "v1"),
    ):
        with pytest.raises(NotFound):
            await history.get(customer_id, agent_type, version)


async def test_replicas_that_find_the_same_change_record_it_once(database: Database) -> None:
    history = await filled(database, 1)
    kept = await asyncio.gather(*(history.record(entry(1)) for _ in range(4)))
    assert sorted(kept) == [False, False, False, True]


async def test_a_clock_that_jumps_back_does_not_repeat_a_version(database: Database) -> None:
    history = await filled(database, 5)
    late = HistoryEntry(customer_id="customer_1", agent_type="support", context_version="new", content={}, at=START)
    assert [await history.record(late) for _ in range(3)] == [True, False, False]
    assert versions(await history.page("customer_1", agent_type="support", limit=2)) == ["new", "v4"]


@pytest.mark.parametrize("at_once", [1, 2, 1000])
async def test_pruning_keeps_the_newest_of_everyone(
    database: Database, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(providers.systems.context_history, "_PRUNED_AT_ONCE", at_once)
    history = await filled(database, 5)
    await history.record(entry(0, customer_id="customer_2"))
    await history.record(entry(0, agent_type="sales"))
    await history.record(entry(1, agent_type="sales"))
    assert await history.prune(START + timedelta(hours=3)) == 4
    assert await history.prune(START + timedelta(hours=3)) == 0
    assert versions(await history.page("customer_1", agent_type="support")) == ["v4", "v3"]
    assert versions(await history.page("customer_1", agent_type="sales")) == ["v1"]
    assert versions(await history.page("customer_2", agent_type="support")) == ["v0"]
    assert await history.prune(START + timedelta(days=365)) == 1
    async with database.session() as session:
        assert await session.scalar(select(func.count()).select_from(ContextVersion)) == 3


async def test_pruning_writes_nothing_where_nothing_is_outdated(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = SqlContextHistory(database)
    for number in range(3):
        await history.record(entry(number, customer_id=f"customer_{number}"))

    def refuse() -> None:
        raise AssertionError("writers wait for this")

    monkeypatch.setattr(database, "transaction", refuse)
    assert await history.prune(START) == 0
    assert await history.prune(START + timedelta(days=365)) == 0


async def test_customers_are_known_with_or_without_versions(database: Database) -> None:
    await plant(database, customers=1, seed=7, now=START)
    history = await filled(database, 0)
    await history.check_customer("customer_1")
    with pytest.raises(UnknownCustomer):
        await history.check_customer("customer_2")


async def test_a_database_that_is_not_there_is_named(empty_url: str) -> None:
    database = Database(empty_url, busy_timeout_s=0.5)
    history = SqlContextHistory(database)
    for call in (
        history.record(entry(0)),
        history.page("customer_1", agent_type="support"),
        history.get("customer_1", "support", "v0"),
        history.check_customer("customer_1"),
        history.prune(START),
    ):
        with pytest.raises(DatabaseUnavailable):
            await call
    await database.close()
