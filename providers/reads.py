"""How a synchronous piece of reading runs off the event loop: in threads for SQLite, by turns for PostgreSQL."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Engine, exc
from sqlalchemy.ext.asyncio import AsyncEngine

from models.errors import DatabaseUnavailable

T = TypeVar("T")
Work = Callable[[Connection], T]


class Reads(Protocol):
    """Runs work that only reads, each on one connection; raises what SQLAlchemy raises."""

    async def run(self, work: Work[T]) -> T: ...

    async def close(self) -> None: ...


@dataclass(eq=False, slots=True)
class _Read:
    number: int
    work: Work[Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class ThreadedReads:
    """For a driver that blocks. Use it from one event loop at a time.

    `identity` tells which file stands behind the engine now: connections to another one are let go of.

    Reads asked for together cost one hop: a single thread does them on one connection, for Python threads that take
    turns at microseconds of work only wait for each other. As long as it does not keep up, another thread helps every
    `HELP_AFTER_S`, so a slow read holds nobody up for longer. A read given up while it waits never runs.
    """

    HELP_AFTER_S = 0.005

    def __init__(self, engine: Engine, *, threads: int, identity: Callable[[], object]) -> None:
        self._engine = engine
        self._identity = identity
        self._opened: object = None
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._lock = Lock()
        self._waiting: deque[_Read] = deque()
        self._done: deque[_Read] = deque()
        self._asked = 0
        self._busy = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = self._watched = False

    async def run(self, work: Work[T]) -> T:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._begin_anew(loop)
        self._asked += 1
        read = _Read(self._asked, work, loop.create_future())
        with self._lock:
            self._waiting.append(read)
        if not self._busy and not self._woken:
            self._woken = True
            loop.call_soon(self._wake, loop)  # after everybody who asks in this turn of the loop
        result: T = await read.future
        return result

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown)
        self._engine.dispose()

    def _begin_anew(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nobody waits any more in the loop before, and nothing that it had planned will happen."""
        with self._lock:
            self._waiting.clear()
        self._done.clear()
        self._loop, self._woken, self._watched = loop, False, False

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        self._woken = False
        self._help(loop)
        if not self._watched:
            self._watched = True
            loop.call_later(self.HELP_AFTER_S, self._watch, loop)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._settle()
        self._help(loop)
        self._watched = self._busy > 0
        if self._watched:
            loop.call_later(self.HELP_AFTER_S, self._watch, loop)

    def _help(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send another thread if reads wait."""
        with self._lock:
            wanted = bool(self._waiting) and self._busy < self._threads
            self._busy += wanted
        if wanted:
            self._pool = self._pool or ThreadPoolExecutor(self._threads, thread_name_prefix="database-read")
            self._pool.submit(self._drain, loop)

    def _settle(self) -> None:
        while self._done:
            read = self._done.popleft()
            if read.future.done():  # given up meanwhile
                continue
            if read.error is None:
                read.future.set_result(read.result)
            else:
                read.future.set_exception(read.error)

    def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread: read until nobody waits."""
        connection: Connection | None = None
        seen = 0
        while (read := self._next()) is not None:
            try:
                if connection is not None and read.number > seen:
                    self._announce(loop)
                    connection.close()  # who asked later must see what was written before
                    connection = None
                if connection is None:
                    seen = self._asked
                    connection = self._connect()
                read.result = read.work(connection)
            except BaseException as error:
                read.error = error
                if connection is not None:
                    with suppress(Exception):  # of a broken connection nothing more is expected
                        connection.close()
                    connection = None
            self._done.append(read)
        self._announce(loop)
        if connection is not None:
            connection.close()

    def _announce(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # the loop has been closed, and nobody waits
            loop.call_soon_threadsafe(self._settle)

    def _next(self) -> _Read | None:
        with self._lock:
            while self._waiting:
                read = self._waiting.popleft()
                if not read.future.cancelled():
                    return read
            self._busy -= 1
            return None

    def _connect(self) -> Connection:
        """A connection to the file that is there now, in a transaction."""
        found = self._identity()
        with self._lock:
            replaced, self._opened = self._opened not in (None, found), found
        if replaced:
            self._engine.dispose()
        try:
            connection = self._engine.connect()
            connection.begin()
            return connection
        except (exc.TimeoutError, exc.OperationalError):
            raise
        except Exception as error:  # whatever else a driver says while connecting is not the caller's fault
            raise DatabaseUnavailable("the database refused the connection") from error


class AsyncReads:
    """For a driver of the event loop: statements run by turns between others', each its own snapshot.

    The engine must be read-only: a read whose connection turns out to be dead is tried once more on a new one.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def run(self, work: Work[T]) -> T:
        try:
            return await self._read(work)
        except exc.DBAPIError as error:
            if not error.connection_invalidated:
                raise
        await self._engine.dispose()  # a restarted server has left them all dead
        return await self._read(work)

    async def close(self) -> None:
        await self._engine.dispose()

    async def _read(self, work: Work[T]) -> T:
        connecting = self._engine.connect()
        try:
            connection = await connecting.start()
        except (exc.TimeoutError, exc.DBAPIError):
            raise
        except Exception as error:
            raise DatabaseUnavailable("the database refused the connection") from error
        try:
            return await connection.run_sync(work)
        finally:
            await asyncio.shield(connection.close())
