"""What may be done with sessions, and by whom."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta

from models.clock import utc_now
from models.errors import Forbidden
from models.ids import NewId, new_id
from models.resilience.deadline import Deadline
from models.sessions.protocol import SessionLock, SessionStore
from models.sessions.types import Session, SessionStatus


class SessionManager:
    """Opens, reads, lists and ends sessions; a principal reaches only the sessions that it opened."""

    def __init__(
        self,
        store: SessionStore,
        lock: SessionLock,
        *,
        ttl_s: float = 24 * 3600.0,
        max_turns: int = 200,
        clock: Callable[[], datetime] = utc_now,
        ids: NewId = new_id,
    ) -> None:
        self._store = store
        self._lock = lock
        self._ttl = timedelta(seconds=ttl_s)
        self._max_turns = max_turns
        self._clock = clock
        self._ids = ids

    def now(self) -> datetime:
        return self._clock()

    async def open(
        self,
        *,
        principal: str,
        customer_id: str | None = None,
        agent_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Session:
        """A new, stored session owned by the principal. Raises `CacheUnavailable`."""
        now = self._clock()
        session = Session(
            session_id=self._ids("ses"),
            customer_id=customer_id,
            agent_type=agent_type,
            owner=principal,
            created_at=now,
            updated_at=now,
            expires_at=now + self._ttl,
            metadata=dict(metadata or {}),
        )
        await self._store.save(session)
        return session

    async def get(self, session_id: str, *, principal: str) -> Session:
        """Raises `NotFound`, `Forbidden`, `CacheUnavailable`."""
        session = await self._store.load(session_id)
        if session.owner != principal:
            raise Forbidden("this session belongs to another credential")
        return session

    async def of_customer(self, customer_id: str, *, principal: str) -> list[Session]:
        """The principal's live sessions with that customer, newest first."""
        return [session for session in await self._store.of_customer(customer_id) if session.owner == principal]

    async def end(self, session_id: str, *, principal: str, deadline: Deadline) -> Session:
        """End the session after any turn that still runs; it stays readable until it expires. Safe to repeat."""
        async with self.hold(session_id, principal=principal, deadline=deadline) as session:
            if session.status is SessionStatus.ENDED:
                return session
            return await self.save(replace(session, status=SessionStatus.ENDED))

    @asynccontextmanager
    async def hold(self, session_id: str, *, principal: str, deadline: Deadline) -> AsyncIterator[Session]:
        """Be the only writer of the session, and get it as stored. Raises `InProgress` past the deadline."""
        await self.get(session_id, principal=principal)  # strangers are turned away before they can block the owner
        async with self._lock.hold(session_id, deadline=deadline):
            yield await self.get(session_id, principal=principal)

    async def save(self, session: Session) -> Session:
        """Store the session, restart its expiry, and keep only its latest turns; for the holder of the lock."""
        now = self._clock()
        session = replace(session, updated_at=now, expires_at=now + self._ttl, turns=session.turns[-self._max_turns :])
        await self._store.save(session)
        return session
