"""The rows that travel between stages: column names, schemas, and the codec of nested values.

Three kinds of rows: one per customer, one per segment for its messages, and one per text to generate. All end in
`error_code` and `error`, which are empty while the row is well. Nested values travel as JSON text, so that every block
has the same schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter

from models.campaign.types import (
    FEATURE_NAMES,
    CheckedVariant,
    CustomerFeatures,
    Judgement,
    RetrievedPassage,
    Segment,
    Shard,
    Variant,
    VariantFailure,
)

Row = dict[str, Any]

KEY = "key"
ERROR_CODE = "error_code"
ERROR = "error"
_ERRORS = [(ERROR_CODE, pa.string()), (ERROR, pa.string())]

SHARDS = pa.schema([("number", pa.int64()), ("after", pa.string()), ("size", pa.int64())])

#: `key` is the customer's id; of a row that stands for a shard that could not be read, the shard's number.
CUSTOMERS = pa.schema(
    [
        (KEY, pa.string()),
        *((name, pa.float64()) for name in FEATURE_NAMES),
        ("renewal_in_days", pa.float64()),
        ("segment", pa.string()),
        *_ERRORS,
    ]
)
#: Customers whose contexts are read together, their ids as JSON.
TOGETHER = pa.schema([("number", pa.int64()), ("customer_ids", pa.string())])
#: `key` is the customer's id, `reasons` is JSON; of ids that could not be read together, one row with their number.
JUDGED = pa.schema(
    [(KEY, pa.string()), ("held_back", pa.bool_()), ("unread", pa.bool_()), ("reasons", pa.string()), *_ERRORS]
)
ENGAGED = pa.schema(
    [
        *(CUSTOMERS.field(name) for name in CUSTOMERS.names if name not in (ERROR_CODE, ERROR)),
        ("arm", pa.string()),
        ("visited", pa.bool_()),
        ("converted", pa.bool_()),
        ("spend_cents", pa.int64()),
        *_ERRORS,
    ]
)
#: `key` is the segment's label; the other columns hold JSON.
MESSAGES = pa.schema(
    [
        (KEY, pa.string()),
        ("segment", pa.string()),
        ("passages", pa.string()),
        ("variants", pa.string()),
        ("failures", pa.string()),
        ("checked", pa.string()),
        *_ERRORS,
    ]
)

#: Whole lines of a file: `size` bytes from `offset`, `lines` of them, the first being number `line` of the file.
LINES = pa.schema([(name, pa.int64()) for name in ("offset", "size", "line", "lines")])
#: `key` is the id that the input gave, as JSON, and so are the `messages`.
TEXTS = pa.schema(
    [
        (KEY, pa.string()),
        ("line", pa.int64()),
        ("messages", pa.string()),
        ("text", pa.string()),
        ("engine", pa.string()),
        ("model", pa.string()),
        ("degraded", pa.bool_()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("cost_usd", pa.float64()),
        *_ERRORS,
    ]
)

TEXT_LIST: TypeAdapter[tuple[str, ...]] = TypeAdapter(tuple[str, ...])
SEGMENT: TypeAdapter[Segment] = TypeAdapter(Segment)
PASSAGES: TypeAdapter[tuple[RetrievedPassage, ...]] = TypeAdapter(tuple[RetrievedPassage, ...])
VARIANTS: TypeAdapter[tuple[Variant, ...]] = TypeAdapter(tuple[Variant, ...])
FAILURES: TypeAdapter[tuple[VariantFailure, ...]] = TypeAdapter(tuple[VariantFailure, ...])
CHECKED: TypeAdapter[tuple[CheckedVariant, ...]] = TypeAdapter(tuple[CheckedVariant, ...])


def encode(adapter: TypeAdapter[Any], value: Any) -> str:
    """The JSON text of a nested column."""
    return adapter.dump_json(value).decode()


def table(rows: list[Row], schema: pa.Schema) -> pa.Table:
    """Rows as a table of that schema; a column a row lacks is null."""
    return pa.Table.from_pylist(rows, schema=schema)


def shard_row(shard: Shard) -> Row:
    return asdict(shard)


def customer_row(customer: CustomerFeatures) -> Row:
    """A customer as a row; `segment` is filled in by the next stage."""
    row = asdict(customer)
    row[KEY] = row.pop("customer_id")
    return row


def customer_of(row: Mapping[str, Any]) -> CustomerFeatures:
    """The customer a row stands for."""
    values = {name: row[name] for name in FEATURE_NAMES}
    return CustomerFeatures(customer_id=row[KEY], renewal_in_days=row["renewal_in_days"], **values)


def judged_row(customer_id: str, judgement: Judgement) -> Row:
    return {
        KEY: customer_id,
        "held_back": judgement.held_back,
        "unread": judgement.unread,
        "reasons": encode(TEXT_LIST, judgement.reasons),
    }


def judgement_of(row: Mapping[str, Any]) -> Judgement:
    """The judgement a row stands for."""
    return Judgement(reasons=TEXT_LIST.validate_json(row["reasons"]), unread=row["unread"])


def failed(row: Row, code: str, error: str) -> Row:
    """The row with its error; later stages leave it alone."""
    return {**row, ERROR_CODE: code, ERROR: error}


def is_well(row: Mapping[str, Any]) -> bool:
    return not row.get(ERROR_CODE)
