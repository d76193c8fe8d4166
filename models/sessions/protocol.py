"""What the conversation relies on to keep sessions."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from models.resilience.deadline import Deadline
from models.sessions.types import Session


class SessionStore(Protocol):
    """Keeps sessions until they expire; any process that shares the store sees them."""

    async def load(self, session_id: str) -> Session:
        """Raises `NotFound` when it never existed or has expired, `CacheUnavailable`."""
        ...

    async def save(self, session: Session) -> None:
        """Write the whole session and restart its expiry. Raises `CacheUnavailable`."""
        ...

    async def remove(self, session_id: str) -> None: ...

    async def of_customer(self, customer_id: str) -> list[Session]:
        """Live sessions of a customer, newest first."""
        ...


class SessionLock(Protocol):
    """One writer per session over all replicas."""

    def hold(self, session_id: str, *, deadline: Deadline) -> AbstractAsyncContextManager[None]:
        """Raises `InProgress` when another turn holds it past the deadline."""
        ...
