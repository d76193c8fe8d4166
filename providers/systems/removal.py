"""Removing many rows without keeping other writers waiting."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.orm import InstrumentedAttribute

from providers.database import Database

_REMOVED_AT_ONCE = 5000


async def remove_in_batches(database: Database, key: InstrumentedAttribute[Any], where: ColumnElement[bool]) -> int:
    """Delete the rows of `key`'s table, `key` being its primary key, in short transactions; how many.

    Where there is nothing to delete nobody is kept from writing. Raises `DatabaseUnavailable`.
    """
    table = key.class_
    some = select(key).where(where).limit(_REMOVED_AT_ONCE)
    removed = 0
    while True:
        async with database.session() as session:
            keys = (await session.scalars(some)).all()
        if keys:
            async with database.transaction() as session:
                await session.execute(delete(table).where(key.in_(keys)))
        removed += len(keys)
        if len(keys) < _REMOVED_AT_ONCE:
            return removed
