"""A request with an Idempotency-Key happens once: the first caller does it, all others get its answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, or_, select, update
from sqlalchemy.exc import IntegrityError

from models.clock import WallClock, utc_now
from models.errors import Conflict, IdempotencyMismatch, InProgress
from models.ids import NewId, new_id
from providers.database import Database
from providers.record_tables import IdempotencyKey
from providers.systems.removal import remove_in_batches


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """The caller owns the request: do it, then `finish` (or `abandon` when nothing happened)."""

    key_id: int
    attempt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """It was done before; this was the answer."""

    status: int
    body: bytes


class SqlIdempotencyStore:
    """Remembers requests by principal, route and key for `keep`.

    A request still running after `lease` belongs to a process that died: the next caller takes it over. The lease must
    therefore be longer than any request may take.
    """

    def __init__(
        self,
        database: Database,
        *,
        keep: timedelta = timedelta(hours=24),
        lease: timedelta = timedelta(minutes=5),
        clock: WallClock = utc_now,
        ids: NewId = new_id,
    ) -> None:
        self._database = database
        self._keep = keep
        self._lease = lease
        self._clock = clock
        self._ids = ids

    async def begin(self, principal: str, route: str, key: str, body_hash: str) -> Fresh | Replay:
        """Claim the request or return its earlier answer; of concurrent callers exactly one gets `Fresh`.

        Raises `InProgress` while another works on it, `IdempotencyMismatch` when the body differs,
        `DatabaseUnavailable`.
        """
        now, attempt = self._clock(), self._ids("att")
        same = (IdempotencyKey.principal == principal, IdempotencyKey.route == route, IdempotencyKey.key == key)
        spent = or_(
            IdempotencyKey.created_at <= now - self._keep,
            (IdempotencyKey.status == "running")
            & (IdempotencyKey.created_at <= now - self._lease)
            & (IdempotencyKey.body_hash == body_hash),
        )
        row = IdempotencyKey(
            principal=principal,
            route=route,
            key=key,
            body_hash=body_hash,
            attempt=attempt,
            status="running",
            response_status=None,
            response_body=None,
            created_at=now,
        )
        try:
            async with self._database.transaction() as session:
                await session.execute(delete(IdempotencyKey).where(*same, spent))
                session.add(row)
                await session.flush()
                return Fresh(key_id=row.key_id, attempt=attempt)
        except IntegrityError:
            pass  # someone was first; what they did decides
        async with self._database.session() as session:
            first = await session.scalar(select(IdempotencyKey).where(*same))
        if first is None:
            raise InProgress("the same request was being given up at this moment").with_retry_after(1.0)
        if first.body_hash != body_hash:
            raise IdempotencyMismatch("this Idempotency-Key was used before with another body")
        if first.status == "running" or first.response_status is None:
            raise InProgress("the same request is still running").with_retry_after(1.0)
        return Replay(status=first.response_status, body=first.response_body or b"")

    async def finish(self, claim: Fresh, *, status: int, body: bytes) -> None:
        """Keep the answer for later callers.

        Raises `Conflict` when the claim outlived its lease and another took over, `DatabaseUnavailable`.
        """
        change = (
            update(IdempotencyKey)
            .where(IdempotencyKey.key_id == claim.key_id, IdempotencyKey.attempt == claim.attempt)
            .values(status="done", response_status=status, response_body=body)
            .returning(IdempotencyKey.key_id)
        )
        async with self._database.transaction() as session:
            if await session.scalar(change) is None:
                raise Conflict("this request outlived its lease and was taken over")

    async def abandon(self, claim: Fresh) -> None:
        """Forget the claim, so that the same request may be tried again. Raises `DatabaseUnavailable`."""
        async with self._database.transaction() as session:
            await session.execute(
                delete(IdempotencyKey).where(
                    IdempotencyKey.key_id == claim.key_id,
                    IdempotencyKey.attempt == claim.attempt,
                    IdempotencyKey.status == "running",
                )
            )

    async def remove_expired(self) -> None:
        """Delete every key older than `keep`; for a periodic clean-up. Raises `DatabaseUnavailable`."""
        expired = IdempotencyKey.created_at <= self._clock() - self._keep
        await remove_in_batches(self._database, IdempotencyKey.key_id, expired)
