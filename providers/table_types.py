"""What columns are made of, meaning the same on SQLite and PostgreSQL, and the base of every table.

Instants are UTC and aware, money is whole cents beside its currency, and text takes any Python string. Strings have no
length limit, because only one of the two databases would enforce it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Integer, MetaData, String, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """An instant: refuses naive datetimes, returns aware ones in UTC, keeps microseconds and order on any database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime names no instant; pass an aware one")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(value: str) -> str:
    """The text as both databases can hold it: NUL and lone surrogates become U+FFFD."""
    return value if value.isascii() and "\x00" not in value else _UNSTORABLE.sub("\ufffd", value)


class PortableText(TypeDecorator[str]):
    """Text that is never refused, because it is made `storable` first."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable(value)


#: A surrogate key that the database numbers; SQLite numbers only its own INTEGER keys.
Serial = Annotated[int, mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)]
Cents = Annotated[int, mapped_column(BigInteger)]
Json = dict[str, Any]


class Table(DeclarativeBase):
    """Base of all tables; `Table.metadata` is the schema that migrations must reproduce."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime(), str: PortableText(), Json: JSON(), list[str]: JSON()}  # noqa: RUF012 - read by SQLAlchemy
