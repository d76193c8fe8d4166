"""How context providers ask the database, and pieces of statements that several of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Connection,
    Dialect,
    Exists,
    ScalarSelect,
    Select,
    bindparam,
    exc,
    func,
    select,
)
from sqlalchemy.orm import InstrumentedAttribute, aliased

from providers.table_types import PortableText, UtcDateTime
from providers.tables import Invoice, InvoiceStatus, Subscription, Ticket, TicketStatus

#: The customers asked about, as a sequence of ids.
IDS: BindParameter[str] = bindparam("ids", type_=PortableText(), expanding=True)
OPEN_TICKET = (TicketStatus.OPEN.value, TicketStatus.PENDING.value)


def instant(name: str) -> BindParameter[Any]:
    """A parameter that takes an aware datetime."""
    return bindparam(name, type_=UtcDateTime())


#: The instant that the whole read is about.
NOW = instant("now")


def one_of(values: Iterable[str]) -> tuple[str, ...]:
    """Members of a `StrEnum` as the plain text that a column holds."""
    return tuple(str(value) for value in values)


Convert = Callable[[Any], Any]


Statement = Select[*tuple[Any, ...]] | CompoundSelect[*tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A statement as one driver takes it: constants in place, and where parameters and ids go."""

    sql: str
    values: tuple[Any, ...]
    parameters: tuple[tuple[int, str, Convert | None], ...]
    ids: tuple[tuple[int, int], ...]

    def bound(self, ids: Sequence[str], parameters: Mapping[str, Any]) -> tuple[Any, ...]:
        values = list(self.values)
        for position, name, convert in self.parameters:
            values[position] = parameters[name] if convert is None else convert(parameters[name])
        for position, index in self.ids:
            values[position] = ids[index]
        return tuple(values)


class Query:
    """A statement that is compiled once for each database and number of ids, and then goes straight to the driver.

    A context is made of many statements that take microseconds: executing each through SQLAlchemy costs several times
    as much as the database does. Types convert values as they always do, and failures are SQLAlchemy's.
    """

    def __init__(self, statement: Statement) -> None:
        self._statement = statement
        self._compiled: dict[tuple[str, int], _Compiled] = {}
        self._converters: dict[str, tuple[tuple[int, Convert], ...]] = {}

    def rows(self, connection: Connection, ids: Sequence[str] = (), **parameters: Any) -> list[Sequence[Any]]:
        """Every row, as plain values."""
        dialect = connection.dialect
        key = (dialect.name, len(ids))
        compiled = self._compiled.get(key)
        if compiled is None:
            compiled = self._compiled[key] = _compile(self._statement, dialect, len(ids))
        cursor = connection.connection.cursor()
        try:
            cursor.execute(compiled.sql, compiled.bound(ids, parameters))
            found = cursor.fetchall()
            if not found:
                return []
            converters = self._converters.get(dialect.name)
            if converters is None:
                kinds = [column[1] for column in cursor.description]
                converters = self._converters[dialect.name] = _converters(self._statement, dialect, kinds)
        except dialect.loaded_dbapi.Error as error:
            raise _failure(connection, error, compiled.sql) from error
        finally:
            cursor.close()
        return [_converted(row, converters) for row in found]


def _converted(row: Sequence[Any], converters: Iterable[tuple[int, Convert]]) -> Sequence[Any]:
    values = list(row)
    for position, convert in converters:
        values[position] = convert(values[position])
    return values


def _converters(statement: Statement, dialect: Dialect, kinds: Sequence[Any]) -> tuple[tuple[int, Convert], ...]:
    """What makes a driver's values those of their types, by the column's place; most need nothing."""
    made = (
        column.type.dialect_impl(dialect).result_processor(dialect, kind)
        for column, kind in zip(statement.selected_columns, kinds, strict=True)
    )
    return tuple((position, convert) for position, convert in enumerate(made) if convert is not None)


def _compile(statement: Statement, dialect: Dialect, ids: int) -> _Compiled:
    compiled: Any = statement.compile(dialect=dialect)
    wanted = {name: None for name, bind in compiled.binds.items() if bind.required and name != IDS.key}
    state = compiled.construct_expanded_state(wanted | {IDS.key: [""] * ids}, escape_names=False)
    origin = {part: name for name, parts in state.parameter_expansion.items() for part in parts}
    id_index = {part: index for index, part in enumerate(state.parameter_expansion.get(IDS.key, ()))}
    values: list[Any] = []
    parameters: list[tuple[int, str, Convert | None]] = []
    id_places: list[tuple[int, int]] = []
    for position, name in enumerate(state.positiontup or ()):
        convert = compiled.binds[origin.get(name, name)].type.dialect_impl(dialect).bind_processor(dialect)
        constant = state.parameters[name]
        if name in id_index:
            id_places.append((position, id_index[name]))
        elif name in wanted:
            parameters.append((position, name, convert))
        elif convert is not None:
            constant = convert(constant)
        values.append(constant)
    return _Compiled(state.statement, tuple(values), tuple(parameters), tuple(id_places))


def _failure(connection: Connection, error: Exception, sql: str) -> Exception:
    """The driver's error as SQLAlchemy would raise it; a connection that broke is let go of."""
    dialect = connection.dialect
    lost = dialect.is_disconnect(error, connection.connection.dbapi_connection, None)  # type: ignore[arg-type]
    if lost:
        connection.invalidate(error)
    return exc.DBAPIError.instance(
        sql, None, error, dialect.loaded_dbapi.Error, connection_invalidated=lost, dialect=dialect
    )


def newest_subscription(customer_id: InstrumentedAttribute[str]) -> ScalarSelect[str]:
    """The id of the customer's newest subscription by its start."""
    newer = aliased(Subscription)
    return (
        select(newer.subscription_id)
        .where(newer.customer_id == customer_id)
        .order_by(newer.started_at.desc(), newer.subscription_id.desc())
        .limit(1)
        .scalar_subquery()
    )


def overdue_invoice(customer_id: InstrumentedAttribute[str]) -> Exists:
    """Whether an open invoice of the customer is past its due date at `NOW`."""
    return (
        select(Invoice.invoice_id)
        .where(Invoice.customer_id == customer_id, Invoice.status == InvoiceStatus.OPEN.value, Invoice.due_at < NOW)
        .exists()
    )


def open_tickets(customer_id: InstrumentedAttribute[str]) -> ColumnElement[int]:
    """How many tickets of the customer are open or pending."""
    return (
        select(func.count())
        .select_from(Ticket)
        .where(Ticket.customer_id == customer_id, Ticket.status.in_(OPEN_TICKET))
        .scalar_subquery()
    )
