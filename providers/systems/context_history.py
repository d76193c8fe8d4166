"""What was known of a customer over time, on our database.

Versions stand in the order in which they were recorded, whatever the clocks of those who recorded them said.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, Select, delete, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from models.enrichment.history import HistoryPage
from models.enrichment.types import HistoryEntry
from models.errors import FieldError, InvalidRequest, NotFound, UnknownCustomer
from providers.database import Database
from providers.record_tables import ContextVersion
from providers.tables import Customer

#: Versions that one transaction of `prune` deletes: few enough for other writers to get their turn.
_PRUNED_AT_ONCE = 1000


class SqlContextHistory:
    """Appends a version only when it differs from the newest of the same customer and agent type.

    One that does not, under other rules, is theirs from then on.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, entry: HistoryEntry) -> bool:
        """Whether the entry was kept. Raises `DatabaseUnavailable`."""
        newest = (
            _versions(entry.customer_id, entry.agent_type)
            .with_only_columns(ContextVersion.version_id, ContextVersion.context_version, ContextVersion.rules)
            .order_by(ContextVersion.version_id.desc())
            .limit(1)
        )
        # Most calls find nothing new: look before taking the lock, then again while holding it.
        kept = await self._database.read(lambda connection: connection.execute(newest).first())
        if kept is not None and (kept.context_version, kept.rules) == (entry.context_version, entry.rules):
            return False
        async with self._database.transaction() as session:
            await self._lock(session, entry)
            kept = (await session.execute(newest)).first()
            if kept is not None and kept.context_version == entry.context_version:
                # What reads the same under other rules is what these rules show.
                same = ContextVersion.version_id == kept.version_id
                await session.execute(update(ContextVersion).where(same).values(rules=entry.rules))
                return False
            session.add(
                ContextVersion(
                    customer_id=entry.customer_id,
                    agent_type=entry.agent_type,
                    context_version=entry.context_version,
                    content=dict(entry.content),
                    sources=dict(entry.sources),
                    rules=entry.rules,
                    at=entry.at,
                )
            )
        return True

    async def recent(self, customer_id: str, *, agent_type: str, limit: int = 20) -> list[HistoryEntry]:
        """The newest entries first. Raises `DatabaseUnavailable`."""
        return list((await self.page(customer_id, agent_type=agent_type, limit=limit)).entries)

    async def page(
        self, customer_id: str, *, agent_type: str, limit: int = 20, cursor: str | None = None
    ) -> HistoryPage:
        """At most `limit` entries, the newest first; `cursor` is the `next_cursor` of the page before.

        Versions recorded meanwhile neither repeat an entry nor hide one. Raises `InvalidRequest` for a cursor that no
        page gave out, `DatabaseUnavailable`.
        """
        query = _versions(customer_id, agent_type).order_by(ContextVersion.version_id.desc()).limit(limit + 1)
        if cursor is not None:
            query = query.where(ContextVersion.version_id < _position(cursor))
        async with self._database.session() as session:
            rows = (await session.scalars(query)).all()
        entries, preceding = rows[:limit], rows[limit:]
        return HistoryPage(
            entries=tuple(_entry(row) for row in entries),
            preceding=_entry(preceding[0]) if preceding else None,
            next_cursor=str(entries[-1].version_id) if preceding else None,
        )

    async def check_customer(self, customer_id: str) -> None:
        """Return if there is such a customer. Raises `UnknownCustomer`, `DatabaseUnavailable`."""
        query = select(Customer.customer_id).where(Customer.customer_id == customer_id)
        async with self._database.session() as session:
            if await session.scalar(query) is None:
                raise UnknownCustomer("there is no such customer")

    async def get(self, customer_id: str, agent_type: str, version: str) -> HistoryEntry:
        """The last time that this version was recorded. Raises `NotFound`, `DatabaseUnavailable`."""
        query = (
            _versions(customer_id, agent_type)
            .where(ContextVersion.context_version == version)
            .order_by(ContextVersion.version_id.desc())
            .limit(1)
        )
        async with self._database.session() as session:
            row = await session.scalar(query)
        if row is None:
            raise NotFound("this context has no such version")
        return _entry(row)

    async def prune(self, before: datetime) -> int:
        """Delete versions recorded before this instant, and return how many.

        The newest one of a customer and agent type is kept, however old. Raises `DatabaseUnavailable`.
        """
        removed, position = 0, None
        here = tuple_(ContextVersion.at, ContextVersion.version_id)
        candidates = (
            select(ContextVersion.at, ContextVersion.version_id)
            .where(ContextVersion.at < before, _has_successor())
            .order_by(ContextVersion.at, ContextVersion.version_id)
            .limit(_PRUNED_AT_ONCE)
        )
        while True:
            async with self._database.session() as session:
                query = candidates if position is None else candidates.where(here > position)
                rows = (await session.execute(query)).all()
            if not rows:  # as on most days: then nobody was kept from writing
                return removed
            outdated = delete(ContextVersion).where(
                ContextVersion.version_id.in_([row.version_id for row in rows]), _has_successor()
            )
            async with self._database.transaction() as session:
                removed += len((await session.scalars(outdated.returning(ContextVersion.version_id))).all())
            position = tuple_(rows[-1].at, rows[-1].version_id)

    async def _lock(self, session: AsyncSession, entry: HistoryEntry) -> None:
        """One recorder at a time per customer and agent type; on SQLite the transaction is that already."""
        if self._database.dialect == "postgresql":
            key = func.hashtextextended(f"context_history {entry.agent_type} {entry.customer_id}", 0)
            await session.execute(select(func.pg_advisory_xact_lock(key)))


def _versions(customer_id: str, agent_type: str) -> Select[ContextVersion]:
    return select(ContextVersion).where(
        ContextVersion.customer_id == customer_id, ContextVersion.agent_type == agent_type
    )


def _has_successor() -> ColumnElement[bool]:
    newer = aliased(ContextVersion)
    return (
        select(newer.version_id)
        .where(
            newer.customer_id == ContextVersion.customer_id,
            newer.agent_type == ContextVersion.agent_type,
            newer.version_id > ContextVersion.version_id,
        )
        .exists()
    )


def _position(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        error = InvalidRequest("the cursor is not one of ours")
        raise error.with_fields(FieldError("/query/cursor", "pass `next_cursor` of the page before, unchanged"))
    return int(cursor)


def _entry(row: ContextVersion) -> HistoryEntry:
    return HistoryEntry(
        customer_id=row.customer_id,
        agent_type=row.agent_type,
        context_version=row.context_version,
        content=row.content,
        sources=row.sources or {},
        rules=row.rules or "",
        at=row.at,
    )
