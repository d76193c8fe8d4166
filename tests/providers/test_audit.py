"""The audit trail: at once for the caller, on disk within a second, in order, and honest about what it lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from models.errors import DatabaseUnavailable
from models.safety.protocol import AuditLog
from models.safety.types import AuditRecord
from providers.database import Database, migrate
from providers.record_tables import AuditLine
from providers.systems.audit import SqlAuditLog, first_break

NOW = datetime(2026, 3, 14, 16, 45, 0, 17, tzinfo=UTC)


def line(number: int, **details: str | int | float | bool) -> AuditRecord:
    return AuditRecord(
        audit_id=f"aud_{number}",
        at=NOW,
        actor="safety",
        action="check",
        subject="ses_1",
        outcome="allow",
        request_id="req_1",
        details=details,
    )


async def stored(database: Database) -> list[str]:
    async with database.session() as session:
        return list(await session.scalars(select(AuditLine.audit_id).order_by(AuditLine.writer_id, AuditLine.seq)))


class Observed(Database):
    """Says when a write has been committed, and can lose its database before or after the commit."""

    def __init__(self, url: str) -> None:
        super().__init__(url, busy_timeout_s=2.0)
        self.committed = asyncio.Event()
        self.failures = 0
        self.fail_before = 0
        self.fail_after = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        if self.fail_before:
            self.fail_before -= 1
            self.failures += 1
            raise DatabaseUnavailable("gone before the commit")
        async with super().transaction() as session:
            yield session
        if self.fail_after:
            self.fail_after -= 1
            self.failures += 1
            raise DatabaseUnavailable("gone after the commit, before we heard of it")
        self.committed.set()


@pytest.fixture
async def observed(database_url: str) -> AsyncIterator[Observed]:
    opened = Observed(database_url)
    yield opened
    await opened.close()


@asynccontextmanager
async def writing(log: SqlAuditLog) -> AsyncIterator[AuditLog]:
    log.start()
    try:
        yield log
    finally:
        await log.close()


async def test_lines_are_durable_within_a_second_without_a_flush(observed: Observed) -> None:
    async with writing(SqlAuditLog(observed)) as log:
        taken = time.perf_counter()
        for number in range(200):
            log.record(line(number))
        assert time.perf_counter() - taken < 0.1
        async with asyncio.timeout(1.0 - (time.perf_counter() - taken)):
            await observed.committed.wait()
        assert await stored(observed) == [f"aud_{number}" for number in range(200)]


async def test_after_a_flush_everything_taken_is_there(database: Database) -> None:
    async with writing(SqlAuditLog(database, group_s=3600)) as log:
        log.record(line(1))
        await log.flush()
        assert await stored(database) == ["aud_1"]
        await log.flush()


async def test_what_must_be_durable_is_there_when_the_call_returns(database: Database) -> None:
    async with writing(SqlAuditLog(database, group_s=3600)) as log:
        log.record(line(1))
        await log.record_durably([line(2), line(3)], timeout_s=10)
        assert await stored(database) == ["aud_1", "aud_2", "aud_3"]
        await log.record_durably([], timeout_s=10)


async def test_what_cannot_be_made_durable_is_refused_and_kept(observed: Observed) -> None:
    log = SqlAuditLog(observed, group_s=0.01)
    async with writing(log):
        observed.fail_before = 1
        with pytest.raises(DatabaseUnavailable):
            await log.record_durably([line(1)], timeout_s=10)
        with pytest.raises(DatabaseUnavailable, match="in time"):
            await log.record_durably([line(2)], timeout_s=0)
        await log.record_durably([line(3)], timeout_s=10)
        assert await stored(observed) == ["aud_1", "aud_2", "aud_3"]
        assert await first_break(observed, log.writer_id) is None


async def test_a_line_that_was_dropped_is_not_called_durable(observed: Observed) -> None:
    log = SqlAuditLog(observed, group_s=3600, max_pending=2)
    async with writing(log):
        with pytest.raises(DatabaseUnavailable, match="1 audit lines"):
            await log.record_durably([line(1), line(2), line(3)], timeout_s=10)
        with pytest.raises(DatabaseUnavailable, match="1 audit lines"):
            await log.flush()
        assert await stored(observed) == ["aud_1", "aud_2"]


async def test_closing_writes_what_is_pending(database: Database) -> None:
    log = SqlAuditLog(database, group_s=3600)
    log.start()
    log.record(line(1))
    await log.close()
    assert await stored(database) == ["aud_1"]


async def test_more_than_one_group_keeps_its_order(database: Database) -> None:
    async with writing(SqlAuditLog(database)) as log:
        for number in range(1300):
            log.record(line(number))
        await log.flush()
    assert await stored(database) == [f"aud_{number}" for number in range(1300)]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lost_connection_neither_loses_nor_doubles_a_line(observed: Observed, when: str) -> None:
    log = SqlAuditLog(observed, group_s=0.01)
    async with writing(log):
        log.record(line(1))
        await log.flush()
        setattr(observed, f"fail_{when}", 1)
        log.record(line(2))
        with pytest.raises(DatabaseUnavailable):
            await log.flush()
        log.record(line(3))
        await log.flush()
        assert observed.failures == 1
        assert await stored(observed) == ["aud_1", "aud_2", "aud_3"]
        assert await first_break(observed, log.writer_id) is None
        assert log.dropped == 0


async def test_an_overflow_is_counted_and_owned_up_to_once(observed: Observed) -> None:
    log = SqlAuditLog(observed, group_s=3600, max_pending=3)
    async with writing(log):
        for number in range(5):
            log.record(line(number))
        with pytest.raises(DatabaseUnavailable, match="2 audit lines"):
            await log.flush()
        assert log.dropped == 2
        assert await stored(observed) == ["aud_0", "aud_1", "aud_2"]
        await log.flush()


async def test_one_line_that_cannot_be_stored_does_not_stop_the_others(database: Database) -> None:
    log = SqlAuditLog(database, group_s=3600)
    log.start()
    log.record(line(1, score=float("nan")))
    log.record(line(2, text="NUL \x00 and \ud800"))
    with pytest.raises(DatabaseUnavailable, match="1 audit line"):
        await log.close()
    assert await stored(database) == ["aud_2"]
    assert await first_break(database, log.writer_id) is None


async def test_closing_without_a_database_says_how_much_is_lost(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/none.db")
    log = SqlAuditLog(database)
    log.start()
    log.record(line(1))
    log.record(line(2))
    with pytest.raises(DatabaseUnavailable, match="2 audit lines"):
        await log.close()
    await database.close()


async def test_writers_do_not_disturb_each_other(database: Database, database_url: str) -> None:
    other = Database(database_url, busy_timeout_s=10)
    logs = [SqlAuditLog(database, group_s=0.001), SqlAuditLog(other, group_s=0.001)]
    for log in logs:
        log.start()
    for number in range(100):
        logs[number % 2].record(line(number, n=number, share=number / 7, ok=True, word="é"))
        await asyncio.sleep(0)
    await asyncio.gather(*(log.close() for log in logs))
    assert sorted(await stored(database)) == sorted(f"aud_{number}" for number in range(100))
    assert [await first_break(database, log.writer_id) for log in logs] == [None, None]
    await other.close()


async def test_a_changed_line_shows_even_if_the_triggers_were_removed(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/rapport.db"
    await asyncio.to_thread(migrate, url)
    database = Database(url)
    log = SqlAuditLog(database)
    log.start()
    for number in range(1, 6):
        log.record(line(number))
    await log.close()
    async with database.transaction() as session:
        await session.execute(text("DROP TRIGGER audit_no_update"))
        await session.execute(text("UPDATE audit SET outcome = 'block' WHERE seq = 3"))
    assert await first_break(database, log.writer_id) == 3
    await database.close()
