"""One writer per session inside this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from models.errors import InProgress
from models.resilience.deadline import Deadline


class MemorySessionLock:
    """A lock per session id, forgotten when nobody holds or awaits it."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: dict[str, int] = {}

    @asynccontextmanager
    async def hold(self, session_id: str, *, deadline: Deadline) -> AsyncIterator[None]:
        lock = self._locks.setdefault(session_id, asyncio.Lock())
        self._users[session_id] = self._users.get(session_id, 0) + 1
        try:
            try:
                async with asyncio.timeout(deadline.remaining_s()):
                    await lock.acquire()
            except TimeoutError as exc:
                raise InProgress("another message of this session is still being answered") from exc
            try:
                yield
            finally:
                lock.release()
        finally:
            self._users[session_id] -= 1
            if not self._users[session_id]:
                del self._users[session_id], self._locks[session_id]
