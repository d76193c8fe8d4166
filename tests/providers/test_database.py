"""The database behaves the same on SQLite and PostgreSQL, and its failures have names."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import sqlite3
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError

from models.errors import ConfigurationError, DatabaseUnavailable
from providers.database import Database, migrate
from providers.queries import Query
from providers.record_tables import AuditLine
from providers.table_types import Table
from providers.tables import Account, Incident
from tests.providers.conftest import EmptyDatabase

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def account(number: int, *, name: str = "Acme Corp", at: datetime = NOON) -> Account:
    return Account(
        account_id=f"acc_{number}",
        company_name=name,
        industry="Technology",
        country="DE",
        domain="acme.example.com",
        employees=12,
        created_at=at,
    )


def incident(number: int, started_at: datetime) -> Incident:
    return Incident(
        incident_id=f"inc_{number}",
        component="scheduling",
        title="Slow calendar",
        severity="minor",
        status="resolved",
        started_at=started_at,
        resolved_at=None,
    )


async def count(database: Database) -> int:
    async with database.session() as session:
        return await session.scalar(select(func.count()).select_from(Account)) or 0


async def test_migrated_schema_is_exactly_the_metadata(database: Database) -> None:
    def difference(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, Table.metadata))

    async with database.session() as session:
        assert await (await session.connection()).run_sync(difference) == []


def test_migrating_twice_does_nothing_the_second_time(empty_url: str) -> None:
    first: list[str] = []
    second: list[str] = []
    migrate(empty_url, progress=first.append)
    migrate(empty_url, progress=second.append)
    assert first
    assert second == []


def test_processes_that_migrate_at_once_all_succeed(empty_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=migrate, args=(empty_url,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]


async def test_health_tells_a_migrated_database_from_an_empty_one(empty_url: str) -> None:
    database = Database(empty_url, busy_timeout_s=1.0)
    with pytest.raises(DatabaseUnavailable):
        await database.check_health()
    await asyncio.to_thread(migrate, empty_url)
    await database.check_health()
    await database.close()


async def test_instants_come_back_aware_and_equal_and_sort_by_time(database: Database) -> None:
    tokyo = timezone(timedelta(hours=9))
    earlier = (NOON - timedelta(microseconds=1)).astimezone(tokyo)  # the later wall clock, the earlier instant
    async with database.transaction() as session:
        session.add_all([incident(1, NOON), incident(2, earlier)])
    async with database.session() as session:
        rows = (await session.scalars(select(Incident).order_by(Incident.started_at))).all()
        since = (await session.scalars(select(Incident).where(Incident.started_at >= NOON.astimezone(tokyo)))).all()
    assert [(row.incident_id, row.started_at) for row in rows] == [("inc_2", earlier), ("inc_1", NOON)]
    assert all(row.started_at.utcoffset() == timedelta(0) for row in rows)
    assert [row.incident_id for row in since] == ["inc_1"]


async def test_an_error_does_not_quote_the_data(database: Database) -> None:
    statement = text("SELECT count(*) FROM accounts, nowhere WHERE company_name = :name").bindparams(name="Dana Reyes")
    with pytest.raises(DatabaseUnavailable) as wrote:
        async with database.session() as session:
            await session.execute(statement)
    with pytest.raises(DatabaseUnavailable) as read:
        await database.read(lambda connection: connection.execute(statement))
    for caught in (wrote, read):
        assert caught.value.__cause__ is not None
        assert "nowhere" in str(caught.value.__cause__)
        assert "Dana" not in str(caught.value.__cause__)


async def test_a_naive_datetime_is_refused(database: Database) -> None:
    with pytest.raises(StatementError, match="naive"):
        async with database.transaction() as session:
            session.add(incident(1, datetime(2026, 3, 1)))
    assert await count(database) == 0


async def test_text_a_database_cannot_hold_is_kept_as_far_as_possible(database: Database) -> None:
    async with database.transaction() as session:
        session.add(account(1, name="Żółć\x00 😀 \ud800"))
    async with database.session() as session:
        assert await session.scalar(select(Account.company_name)) == "Żółć� 😀 �"


async def test_a_failing_transaction_leaves_nothing(database: Database) -> None:
    async def fail() -> None:
        async with database.transaction() as session:
            session.add(account(1))
            await session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await count(database) == 0


async def test_a_read_session_never_writes(database: Database) -> None:
    async with database.session() as session:
        session.add(account(1))
        await session.flush()
    assert await count(database) == 0


async def test_a_broken_constraint_is_not_an_unavailable_database(database: Database) -> None:
    async with database.transaction() as session:
        session.add(account(1))
    with pytest.raises(IntegrityError):
        async with database.transaction() as session:
            session.add(account(1))


async def test_foreign_keys_are_enforced(database: Database) -> None:
    with pytest.raises(IntegrityError):
        async with database.transaction() as session:
            await session.execute(
                text("INSERT INTO order_items VALUES ('ORD-0', 1, 'sku', 'Gloves', 1, 100)"),
            )


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'nobody'", "DELETE FROM audit"])
async def test_the_database_refuses_to_change_an_audit_line(database: Database, statement: str) -> None:
    line = AuditLine(
        writer_id="wrt_1",
        seq=1,
        audit_id="aud_1",
        at=NOON,
        actor="safety",
        action="check",
        subject="ses_1",
        outcome="allow",
        request_id="",
        details={},
        prev_hash="0",
        row_hash="1",
    )
    async with database.transaction() as session:
        session.add(line)
    with pytest.raises(IntegrityError, match="append-only"):
        async with database.transaction() as session:
            await session.execute(text(statement))


async def test_concurrent_writers_all_get_through(database: Database) -> None:
    async def write(number: int) -> None:
        async with database.transaction() as session:
            session.add(account(number))

    await asyncio.gather(*(write(number) for number in range(20)))
    assert await count(database) == 20


async def test_a_cancelled_write_holds_no_lock(database: Database) -> None:
    inside = asyncio.Event()

    async def hang() -> None:
        async with database.transaction() as session:
            session.add(account(1))
            await session.flush()
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with database.transaction() as session:
        session.add(account(2))
    assert await count(database) == 1


async def test_a_full_pool_is_unavailable_in_time(database_url: str) -> None:
    database = Database(database_url, pool_size=1, busy_timeout_s=0.1)
    async with database.session():
        with pytest.raises(DatabaseUnavailable):
            async with database.session():
                pass
    async with database.session():
        pass
    await database.close()


def _insert(url: str, number: int) -> None:
    async def write() -> None:
        database = Database(url)
        async with database.transaction() as session:
            session.add(account(number))
        await database.close()

    asyncio.run(write())


async def test_what_another_process_wrote_is_read_at_once(database_url: str, database: Database) -> None:
    assert await count(database) == 0
    process = multiprocessing.get_context("spawn").Process(target=_insert, args=(database_url, 7))
    process.start()
    await asyncio.to_thread(process.join, 60)
    assert process.exitcode == 0
    assert await count(database) == 1


def take_away(file: Path) -> bytes:
    content = file.read_bytes()
    for part in file.parent.iterdir():
        part.unlink()
    return content


def files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def put_back(file: Path, content: bytes) -> None:
    file.write_bytes(content)


class TestSqliteFile:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        migrate(f"sqlite+aiosqlite:///{tmp_path}/a folder/rapport.db")
        return tmp_path / "a folder" / "rapport.db"

    async def test_a_missing_file_is_unavailable_and_is_not_created(self, tmp_path: Path) -> None:
        database = Database(f"sqlite+aiosqlite:///{tmp_path}/none.db")
        with pytest.raises(DatabaseUnavailable):
            await database.check_health()
        await database.close()
        assert files_in(tmp_path) == []

    async def test_a_file_removed_under_us_loses_no_write(self, file: Path) -> None:
        database = Database(f"sqlite+aiosqlite:///{file}")
        await database.check_health()
        copy = take_away(file)
        with pytest.raises(DatabaseUnavailable):
            async with database.transaction() as session:
                session.add(account(1))
        put_back(file, copy)
        async with database.transaction() as session:
            session.add(account(2))
        await database.close()
        with sqlite3.connect(file) as connection:
            assert connection.execute("SELECT account_id FROM accounts").fetchall() == [("acc_2",)]
        connection.close()

    async def test_a_locked_database_is_unavailable_for_writes_and_answers_reads(self, file: Path) -> None:
        database = Database(f"sqlite+aiosqlite:///{file}", busy_timeout_s=0.1)
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailable):
            async with database.transaction():
                pass
        assert await count(database) == 0
        other.execute("ROLLBACK")
        other.close()
        async with database.transaction() as session:
            session.add(account(1))
        assert await count(database) == 1
        await database.close()

    async def test_a_write_waits_for_the_lock_within_the_busy_timeout(self, file: Path) -> None:
        database = Database(f"sqlite+aiosqlite:///{file}", busy_timeout_s=30)
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        async def write() -> None:
            async with database.transaction() as session:
                session.add(account(1))

        waiting = asyncio.create_task(write())
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
        other.execute("ROLLBACK")
        other.close()
        await waiting
        assert await count(database) == 1
        await database.close()

    async def test_a_write_cancelled_while_it_waits_for_the_lock_never_takes_it(self, file: Path) -> None:
        database = Database(f"sqlite+aiosqlite:///{file}", busy_timeout_s=10)
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        async def write() -> None:
            async with database.transaction() as session:
                session.add(account(1))

        waiting = asyncio.create_task(write())
        await asyncio.wait([waiting], timeout=0.1)
        waiting.cancel()
        await asyncio.wait([waiting], timeout=0.1)
        other.execute("ROLLBACK")
        other.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with database.transaction() as session:
            session.add(account(2))
        async with database.session() as session:
            assert (await session.scalars(select(Account.account_id))).all() == ["acc_2"]
        await database.close()

    async def test_every_commit_is_forced_to_disk(self, file: Path) -> None:
        database = Database(f"sqlite+aiosqlite:///{file}")
        async with database.session() as session:
            assert await session.scalar(text("PRAGMA journal_mode")) == "wal"
            assert await session.scalar(text("PRAGMA synchronous")) == 2
        await database.close()


async def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    database = Database(f"postgresql+asyncpg://postgres@/none?host={tmp_path}", busy_timeout_s=1.0)
    with pytest.raises(DatabaseUnavailable):
        await database.check_health()
    await database.close()


async def test_a_database_the_server_does_not_know_is_unavailable(postgres: EmptyDatabase) -> None:
    known, _, query = postgres().partition("?")
    database = Database(f"{known}_gone?{query}", busy_timeout_s=1.0)
    with pytest.raises(DatabaseUnavailable):
        await database.check_health()
    await database.close()


async def _disconnect_everyone(postgres_url: str) -> None:
    administrator = Database(postgres_url)
    everyone = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname IS NOT NULL"
    )
    async with administrator.session() as session:
        await session.execute(text(everyone))
    await administrator.close()


async def test_a_restarted_server_costs_at_most_the_request_under_way(postgres: EmptyDatabase) -> None:
    url = postgres()
    await asyncio.to_thread(migrate, url)
    database = Database(url, pool_size=1)

    async def interrupted() -> None:
        async with database.transaction() as session:
            session.add(account(1))
            await session.flush()
            await _disconnect_everyone(url)

    with pytest.raises(DatabaseUnavailable):
        await interrupted()
    assert await count(database) == 0
    await _disconnect_everyone(url)  # now while the connection rests in the pool
    assert await count(database) == 0
    await database.close()


@pytest.mark.parametrize("url", ["", "rapport.db", "sqlite+aiosqlite://", "postgresql://localhost/x", "mysql://h/x"])
def test_a_url_we_cannot_serve_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError):
        Database(url)


class TestRead:
    """`read`: one synchronous piece of reading, off the event loop."""

    def total(self, connection: Connection) -> int:
        return connection.scalar(select(func.count()).select_from(Account)) or 0

    async def test_sees_what_was_committed_before_it_was_asked(self, database: Database) -> None:
        for number in range(5):
            async with database.transaction() as session:
                session.add(account(number))
            assert await asyncio.gather(*(database.read(self.total) for _ in range(8))) == [number + 1] * 8

    async def test_never_writes(self, database: Database) -> None:
        def write(connection: Connection) -> None:
            connection.execute(text("DELETE FROM accounts"))

        async with database.transaction() as session:
            session.add(account(1))
        with contextlib.suppress(DatabaseUnavailable, DBAPIError):  # PostgreSQL refuses, SQLite undoes
            await database.read(write)
        assert await count(database) == 1

    async def test_leaves_the_event_loop_free(self, database: Database) -> None:
        entered, go_on = threading.Event(), threading.Event()

        def wait(connection: Connection) -> int:
            entered.set()
            assert go_on.wait(20)
            return self.total(connection)

        if database.dialect == "postgresql":
            pytest.skip("the driver of PostgreSQL waits in the event loop, and work there only waits for the server")
        slow = asyncio.create_task(database.read(wait))
        await asyncio.to_thread(entered.wait, 20)
        assert await database.read(self.total) == 0  # another thread helps out
        go_on.set()
        assert await slow == 0

    async def test_what_the_work_raises_arrives_and_harms_nobody_else(self, database: Database) -> None:
        def fail(connection: Connection) -> int:
            raise ZeroDivisionError

        def ask_wrongly(connection: Connection) -> int:
            connection.execute(text("SELECT nothing FROM nowhere"))
            return 0

        results = await asyncio.gather(
            *(database.read(work) for work in (self.total, fail, self.total, ask_wrongly, self.total)),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [int, ZeroDivisionError, int, DatabaseUnavailable, int]

    async def test_a_cancelled_read_leaves_no_connection_behind(self, database_url: str) -> None:
        database = Database(database_url, pool_size=1, busy_timeout_s=2.0)
        for _ in range(3):
            reads = [asyncio.create_task(database.read(self.total)) for _ in range(4)]
            await asyncio.sleep(0)
            for read in reads:
                read.cancel()
            await asyncio.gather(*reads, return_exceptions=True)
            assert await database.read(self.total) == 0
        await database.close()
        assert await database.read(self.total) == 0  # closed is not broken
        await database.close()

    async def test_a_file_removed_under_us_is_noticed(self, tmp_path: Path) -> None:
        file = tmp_path / "rapport.db"
        await asyncio.to_thread(migrate, f"sqlite+aiosqlite:///{file}")
        database = Database(f"sqlite+aiosqlite:///{file}")
        assert await database.read(self.total) == 0
        copy = take_away(file)
        with pytest.raises(DatabaseUnavailable):
            await database.read(self.total)
        put_back(file, copy)
        assert await database.read(self.total) == 0
        await database.close()

    async def test_a_restarted_server_costs_no_read(self, postgres: EmptyDatabase) -> None:
        url = postgres()
        await asyncio.to_thread(migrate, url)
        database = Database(url, pool_size=2)
        query = Query(select(func.count()).select_from(Account))

        def straight(connection: Connection) -> int:
            return int(query.rows(connection)[0][0])

        for work in (self.total, straight):
            assert await asyncio.gather(*(database.read(work) for _ in range(4))) == [0] * 4
            await _disconnect_everyone(url)
            assert await asyncio.gather(*(database.read(work) for _ in range(4))) == [0] * 4
        await database.close()

    async def test_a_server_that_is_not_there_is_unavailable(self, tmp_path: Path) -> None:
        database = Database(f"postgresql+asyncpg://postgres@/none?host={tmp_path}", busy_timeout_s=1.0)
        with pytest.raises(DatabaseUnavailable):
            await database.read(self.total)
        await database.close()
