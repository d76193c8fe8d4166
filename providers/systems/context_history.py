"""What was known of a customer over time, on our database."""

from __future__ import annotations

from sqlalchemy import select

from models.enrichment.types import HistoryEntry
from providers.database import Database
from providers.tables import ContextVersion


class SqlContextHistory:
    """Appends a version only when it differs from the newest of the same customer and agent type."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, entry: HistoryEntry) -> bool:
        """Whether the entry was kept. Raises `DatabaseUnavailable`."""
        newest = (
            select(ContextVersion.context_version)
            .where(ContextVersion.customer_id == entry.customer_id, ContextVersion.agent_type == entry.agent_type)
            .order_by(ContextVersion.at.desc(), ContextVersion.version_id.desc())
            .limit(1)
        )
        # Most calls find nothing new: look before taking the write lock, then again while holding it.
        async with self._database.session() as session:
            if await session.scalar(newest) == entry.context_version:
                return False
        async with self._database.transaction() as session:
            if await session.scalar(newest) == entry.context_version:
                return False
            session.add(
                ContextVersion(
                    customer_id=entry.customer_id,
                    agent_type=entry.agent_type,
                    context_version=entry.context_version,
                    content=dict(entry.content),
                    at=entry.at,
                )
            )
        return True

    async def recent(self, customer_id: str, *, agent_type: str, limit: int = 20) -> list[HistoryEntry]:
        """The newest entries first. Raises `DatabaseUnavailable`."""
        query = (
            select(ContextVersion)
            .where(ContextVersion.customer_id == customer_id, ContextVersion.agent_type == agent_type)
            .order_by(ContextVersion.at.desc(), ContextVersion.version_id.desc())
            .limit(limit)
        )
        async with self._database.session() as session:
            rows = (await session.scalars(query)).all()
        return [
            HistoryEntry(
                customer_id=row.customer_id,
                agent_type=row.agent_type,
                context_version=row.context_version,
                content=row.content,
                at=row.at,
            )
            for row in rows
        ]
