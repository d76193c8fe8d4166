"""Sessions in this process: for one replica, and for tests."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from models.clock import utc_now
from models.errors import NotFound
from models.sessions.types import Session


class MemorySessionStore:
    """Keeps sessions in a dictionary until they expire by the given clock."""

    def __init__(self, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._clock = clock
        self._sessions: dict[str, Session] = {}

    async def load(self, session_id: str) -> Session:
        session = self._sessions.get(session_id)
        if session is None or session.expires_at <= self._clock():
            raise NotFound("there is no such session, or it has expired")
        return session

    async def save(self, session: Session) -> None:
        self._forget_expired()
        self._sessions[session.session_id] = session

    async def remove(self, session_id: str) -> None:
        self._sessions.pop(session_id, None)

    async def of_customer(self, customer_id: str) -> list[Session]:
        now = self._clock()
        mine = [s for s in self._sessions.values() if s.customer_id == customer_id and s.expires_at > now]
        return sorted(mine, key=lambda session: session.created_at, reverse=True)

    async def check_health(self) -> None:
        return None

    async def close(self) -> None:
        self._sessions.clear()

    def _forget_expired(self) -> None:
        now = self._clock()
        # Saves restart the expiry of one session each, so insertion order is not expiry order: look at all.
        for session_id in [key for key, session in self._sessions.items() if session.expires_at <= now]:
            del self._sessions[session_id]
