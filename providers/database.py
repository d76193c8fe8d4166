"""The one door to the database: reads, write transactions, migrations, and what its failures are called.

SQLite runs in WAL with `synchronous=FULL`: every commit is forced to disk before it returns. `NORMAL` would lose the
last commits with the power, and nearly all our writes are records someone was promised (compliance, tickets, audit,
idempotency), so there is no write that wants the faster setting. A write transaction takes the write lock when it
begins (`BEGIN IMMEDIATE`), so that it can wait for another writer but never fail half-way. The file must exist:
opening never creates one, and a file removed or replaced under us is noticed instead of written into the void.

`session` and `transaction` are for code that talks to the database as it goes along. `read` is for the hot path: one
synchronous function of Core statements on connections of its own, which costs a fraction of a session.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from models.errors import ConfigurationError, DatabaseUnavailable
from providers.reads import AsyncReads, Reads, ThreadedReads

T = TypeVar("T")
Progress = Callable[[str], None]

#: Foreign exceptions that mean "the database does not answer", and what to say; a broken constraint is not among them.
_UNAVAILABLE: tuple[tuple[type[Exception], str], ...] = (
    (exc.TimeoutError, "no database connection became free in time"),
    (exc.OperationalError, "the database is locked, gone or damaged"),
    (exc.InterfaceError, "the connection to the database broke"),
    (exc.ProgrammingError, "the database lacks a table or column: it is not migrated to this version"),
    (exc.InternalError, "the database failed"),
    (ConnectionError, "the connection to the database broke"),
)

_MIGRATIONS = Path(__file__).parent / "migrations"
#: Names our migrations among PostgreSQL's advisory locks: "rapport" as ASCII.
_MIGRATION_LOCK = 0x726170706F7274
_MIGRATION_WAIT_S = 60.0


class Database:
    """Pooled access to one database; build it once per process and `close()` it.

    `busy_timeout_s` bounds every wait: for a connection, for SQLite's write lock, for a server's answer to connect.
    Reads and transactions raise `DatabaseUnavailable` for everything that is not the statement's own fault.
    """

    def __init__(self, url: str, *, pool_size: int = 5, busy_timeout_s: float = 5.0) -> None:
        self._url = _parse(url)
        self._file = _sqlite_file(self._url)
        self._file_id: tuple[int, int] | None = None
        self._engine = _engine(self._url, pool_size=pool_size, busy_timeout_s=busy_timeout_s)
        self._writer = self._engine.execution_options(rapport_begin="BEGIN IMMEDIATE")
        self._reads = _reads(self._url, pool_size=pool_size, busy_timeout_s=busy_timeout_s)

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """A read: one consistent connection; whatever the block writes is rolled back."""
        async with self._open(self._engine) as session:
            yield session

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A write: durable when the block has ended, undone when it raises.

        Keep the block short: on SQLite there is one writer at a time.
        """
        async with self._open(self._writer) as session:
            yield session
            await session.commit()

    async def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns, run off the event loop on one connection that cannot be kept and must not be written to.

        On SQLite all its statements see one state of the database, on PostgreSQL each sees the newest. A caller that is
        cancelled leaves no connection behind.
        """
        with _translated():
            return await self._reads.run(work)

    async def check_health(self) -> None:
        """Return when the database answers and has been migrated; raise `DatabaseUnavailable` otherwise."""
        async with self.session() as session:
            if (await session.execute(text("SELECT version_num FROM alembic_version"))).first() is None:
                raise DatabaseUnavailable("the database has not been migrated")

    async def ping(self) -> None:
        """Return when the database can be opened, migrated or not; a SQLite file that is not there yet is fine.

        Raises `DatabaseUnavailable`.
        """
        if self._file is None or self._file.exists():
            async with self.session() as session:
                await session.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close every pooled connection; the object can be used again afterwards."""
        await self._reads.close()
        await self._engine.dispose()

    @asynccontextmanager
    async def _open(self, engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
        with _translated():
            await self._notice_replaced_file()
            async with AsyncSession(engine, expire_on_commit=False) as session:
                await _connect(session)
                yield session

    async def _notice_replaced_file(self) -> None:
        if self._file is None:
            return
        found = _identity(self._file)
        if found != self._file_id:
            if self._file_id is not None:
                await self._engine.dispose()
            self._file_id = found


def migrate(url: str, *, progress: Progress | None = None) -> None:
    """Bring the database to the newest schema, creating a SQLite file when there is none.

    Does nothing when it is there already; of several processes that start at once, one migrates and the others wait.
    `progress` hears each step. Runs its own event loop: call it from a thread when one is running. Raises
    `DatabaseUnavailable`.
    """
    asyncio.run(_migrate(_parse(url), progress or (lambda step: None)))


async def _migrate(url: URL, progress: Progress) -> None:
    file = _sqlite_file(url)
    with _translated():
        if file is not None:
            _create(file)
        engine = _engine(url, pool_size=1, busy_timeout_s=_MIGRATION_WAIT_S)
        try:
            async with engine.execution_options(rapport_begin="BEGIN IMMEDIATE").begin() as connection:
                await connection.run_sync(_upgrade, progress)
        finally:
            await engine.dispose()


def _upgrade(connection: Connection, progress: Progress) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes.update(connection=connection, progress=progress)
    command.upgrade(config, "head")


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except exc.ArgumentError as error:
        raise ConfigurationError("the database URL is malformed") from error
    if parsed.drivername not in ("sqlite+aiosqlite", "postgresql+asyncpg"):
        raise ConfigurationError("the database URL must start with sqlite+aiosqlite:// or postgresql+asyncpg://")
    if parsed.drivername == "sqlite+aiosqlite" and parsed.database in (None, "", ":memory:"):
        raise ConfigurationError("SQLite needs a file: every process must see the same database")
    return parsed


def _sqlite_file(url: URL) -> Path | None:
    return Path(url.database or "").absolute() if url.drivername == "sqlite+aiosqlite" else None


def _reads(url: URL, *, pool_size: int, busy_timeout_s: float) -> Reads:
    options = _options(pool_size, busy_timeout_s)
    connect_args: dict[str, Any] = {"timeout": busy_timeout_s}
    file = _sqlite_file(url)
    if file is not None:
        blocking = create_engine(
            _existing(file).set(drivername="sqlite+pysqlite"), connect_args=connect_args, **options
        )
        _tune_sqlite(blocking)
        return ThreadedReads(blocking, threads=pool_size, identity=partial(_identity, file))
    # No transaction around single statements, and no ping before them: both would cost a round trip each.
    connect_args["server_settings"] = {"default_transaction_read_only": "on"}
    return AsyncReads(create_async_engine(url, isolation_level="AUTOCOMMIT", connect_args=connect_args, **options))


def _engine(url: URL, *, pool_size: int, busy_timeout_s: float) -> AsyncEngine:
    file = _sqlite_file(url)
    connect_args: dict[str, Any] = {"timeout": busy_timeout_s}
    if file is not None:
        url = _existing(file)
    engine = create_async_engine(
        url,
        pool_pre_ping=file is None,  # a restarted server leaves dead sockets in the pool; a file does not
        connect_args=connect_args,
        **_options(pool_size, busy_timeout_s),
    )
    if file is not None:
        _tune_sqlite(engine.sync_engine)
    return engine


def _options(pool_size: int, busy_timeout_s: float) -> dict[str, Any]:
    # Parameters are data of customers, and an error that quotes them would take them into a log.
    return {"pool_size": pool_size, "max_overflow": 0, "pool_timeout": busy_timeout_s, "hide_parameters": True}


def _existing(file: Path) -> URL:
    """The URL that opens the file but never creates it."""
    return URL.create("sqlite+aiosqlite", database=f"file:{quote(str(file))}", query={"mode": "rw", "uri": "true"})


def _tune_sqlite(engine: Engine) -> None:
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)


def _prepare_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # the driver would otherwise begin late, and never around schema changes
    cursor = connection.cursor()
    for setting in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("rapport_begin", "BEGIN"))


def _identity(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError as error:
        raise DatabaseUnavailable("the database file is missing") from error
    return status.st_dev, status.st_ino


def _create(file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    except OSError as error:
        raise DatabaseUnavailable("the database file cannot be created") from error


async def _connect(session: AsyncSession) -> None:
    try:
        await session.connection()
    except (exc.TimeoutError, exc.OperationalError):
        raise
    except Exception as error:  # drivers raise errors of their own while connecting, and none is the caller's fault
        raise DatabaseUnavailable("the database refused the connection") from error


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except exc.DBAPIError as error:
        if error.connection_invalidated:
            raise DatabaseUnavailable("the connection to the database was lost") from error
        _raise_translated(error)
    except (exc.TimeoutError, ConnectionError) as error:
        _raise_translated(error)


def _raise_translated(error: Exception) -> None:
    for kind, meaning in _UNAVAILABLE:
        if isinstance(error, kind):
            raise DatabaseUnavailable(meaning) from error
    raise error
