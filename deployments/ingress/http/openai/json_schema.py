"""JSON schemas of strangers: checked before they cost anything, and applied to replies within bounds.

A schema is a small program. Nothing is fetched for a `$ref`, no regular expression of a caller is run (`pattern` and
its kin are the engine's to keep), and both size and the number of references that one check may follow are bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from jsonschema.validators import extend, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from models.errors import FieldError, InvalidRequest

MAX_DEPTH = 64
MAX_NODES = 20_000
MAX_REFERENCES_FOLLOWED = 2_000

#: Keywords that would run a caller's regular expression over a model's text.
_NOT_JUDGED = ("pattern", "patternProperties", "unevaluatedProperties", "format")


class InvalidSchema(InvalidRequest):
    """A JSON schema in the request is not one, or reaches further than we follow."""

    code, status, title = "INVALID_JSON_SCHEMA", 400, "The JSON schema is not valid"


def check_schema(schema: Mapping[str, Any], pointer: str) -> None:
    """Return if replies can be judged by it. Raises `InvalidSchema` naming the place below `pointer`."""
    _check_bounds(schema, pointer)
    try:
        _dialect(schema).check_schema(schema)
    except SchemaError as error:
        place = pointer + "".join(f"/{part}" for part in error.absolute_path)
        raise _refused(place, "is no valid JSON schema") from None
    except RecursionError:
        raise _refused(pointer, "is nested too deeply") from None


def satisfies(text: str, schema: Mapping[str, Any]) -> bool:
    """Whether the text is JSON that a schema accepted by `check_schema` allows; one without end allows nothing."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    base = _dialect(schema)
    followed = iter(range(MAX_REFERENCES_FOLLOWED))

    def follow(validator: Any, reference: Any, instance: Any, within: Any) -> Iterator[Any]:
        if next(followed, None) is None:
            raise RecursionError("the schema refers to itself without end")
        return base.VALIDATORS["$ref"](validator, reference, instance, within) or iter(())

    def additional(validator: Any, allowed: Any, instance: Any, within: Any) -> Any:
        # Which properties are additional cannot be told without running the caller's patterns.
        return None if "patternProperties" in within else judge_additional(validator, allowed, instance, within)

    judge_additional = base.VALIDATORS["additionalProperties"]
    rules = dict.fromkeys(_NOT_JUDGED, _judge_nothing) | {"$ref": follow, "additionalProperties": additional}
    try:
        return bool(extend(base, rules)(schema, registry=Registry()).is_valid(value))
    except (RecursionError, Unresolvable):
        return False


def _judge_nothing(*_: object) -> None:
    return None


def _dialect(schema: Mapping[str, Any]) -> Any:
    return validator_for(schema, default=Draft202012Validator)


def _check_bounds(schema: Mapping[str, Any], pointer: str) -> None:
    pending: list[tuple[Any, int]] = [(schema, 0)]
    seen = 0
    while pending:
        node, depth = pending.pop()
        seen += 1
        if depth > MAX_DEPTH or seen > MAX_NODES:
            raise _refused(pointer, f"is too large; stay within {MAX_DEPTH} levels and {MAX_NODES} values")
        if isinstance(node, list):
            pending += ((child, depth + 1) for child in node)
        elif isinstance(node, dict):
            _check_reference(schema, node, pointer)
            if depth and isinstance(node.get("$id"), str):
                raise _refused(pointer, "may carry an $id at its root only")
            pending += ((child, depth + 1) for child in node.values())


def _check_reference(schema: Mapping[str, Any], node: Mapping[str, Any], pointer: str) -> None:
    if isinstance(node.get("$dynamicRef"), str):
        raise _refused(pointer, "uses $dynamicRef; use $ref")
    reference = node.get("$ref")
    if isinstance(reference, str) and reference != "#" and not _exists(schema, reference):
        raise _refused(pointer, "has a $ref that leads nowhere; only references such as '#/$defs/NAME' are followed")


def _exists(schema: Mapping[str, Any], reference: str) -> bool:
    if not reference.startswith("#/"):
        return False
    place: Any = schema
    for part in reference[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(place, list) and name.isdecimal() and int(name) < len(place):
            place = place[int(name)]
        elif isinstance(place, dict) and name in place:
            place = place[name]
        else:
            return False
    return isinstance(place, dict | bool)


def _refused(pointer: str, detail: str) -> InvalidSchema:
    error = InvalidSchema("the JSON schema is not valid")
    error.with_fields(FieldError(pointer, detail))
    return error
