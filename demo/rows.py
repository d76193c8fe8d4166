"""Rows on their way into the database, gathered by table."""

from __future__ import annotations

from typing import Any

from providers.table_types import Table

#: Rows by table; the first row of a table fixes its place, so parents must be made before their children.
Rows = dict[type[Table], list[dict[str, Any]]]

_ORDER_STRIDE = 1_000_000
#: The documents' customer owns these two neighbours, so one other customer's order moves to the number that frees.
_SWAPPED = {10_124: 1_010_123, 1_010_123: 10_124}


def row(rows: Rows, table: type[Table], **values: Any) -> None:
    """Add one row."""
    rows.setdefault(table, []).append(values)


def order_id(number: int, position: int) -> str:
    """The id of a customer's order: `ORD-10123` is the first of customer 123; unique up to a million customers."""
    plain = 10_000 + number + position * _ORDER_STRIDE
    return f"ORD-{_SWAPPED.get(plain, plain)}"
