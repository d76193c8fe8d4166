"""JSON schemas of strangers: checked before they cost anything, and applied to replies within bounds.

A schema is a small program. Nothing is fetched for a `$ref`, no regular expression of a caller is compiled or run, all
schemas of a request share one bound on their size, and the judgement of a reply may take so many steps and no more.
Both run beside the event loop, because even within their bounds they take longer than other requests should wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError
from jsonschema.validators import extend, validator_for
from referencing import Registry

from deployments.ingress.errors import UnsupportedParameter
from models.errors import DeadlineExceeded, FieldError, InvalidRequest
from models.resilience.deadline import Deadline

T = TypeVar("T")

MAX_DEPTH = 64
#: Values in all schemas of one request; checking a value takes up to 0.3 ms.
MAX_NODES = 2_000
#: Of one judgement: each keyword is a step for itself and for each value that it may look at.
MAX_STEPS = 100_000
#: What `minItems` and its kin may ask a model, or whoever makes up a value, to write.
MAX_LEAST = 4_096

#: Keywords that would run a caller's regular expression over a model's text, or reach where steps are not counted.
NOT_JUDGED = ("pattern", "patternProperties", "unevaluatedProperties", "unevaluatedItems", "format")
_LEASTS = ("minItems", "minLength", "minProperties", "minContains")
_MAPS_OF_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")
_DATA = ("enum", "const", "default", "examples")

_NO_FORMATS = FormatChecker(formats=())
_beside = ThreadPoolExecutor(max_workers=2, thread_name_prefix="json-schema")


class InvalidSchema(InvalidRequest):
    """A JSON schema in the request is not one, or reaches further than we follow."""

    code, status, title = "INVALID_JSON_SCHEMA", 400, "The JSON schema is not valid"


@dataclass(frozen=True, slots=True)
class SentSchema:
    """A schema where it stands in a request; `strict` ones are promised to be kept, so all of them must be judged."""

    schema: Mapping[str, Any]
    pointer: str
    strict: bool = False


async def check(sent: Sequence[SentSchema], deadline: Deadline) -> None:
    """Return if replies can be judged by all of them.

    Raises `InvalidSchema` or `UnsupportedParameter` (a keyword that is not judged, in a strict one) naming the place,
    and `DeadlineExceeded`.
    """
    if sent:
        await _within(deadline, lambda: check_schemas(sent))


async def fits(text: str, schema: Mapping[str, Any], deadline: Deadline) -> bool:
    """As `satisfies`, beside the event loop. Raises `DeadlineExceeded`."""
    return await _within(deadline, lambda: satisfies(text, schema, deadline))


async def _within(deadline: Deadline, work: Callable[[], T]) -> T:
    async with deadline.enforce("the JSON schemas"):
        return await asyncio.get_running_loop().run_in_executor(_beside, work)


def check_schemas(sent: Sequence[SentSchema]) -> None:
    """Raises `InvalidSchema` or `UnsupportedParameter` naming the place."""
    left = MAX_NODES
    for each in sent:
        left -= _check_bounds(each, left)
    for each in sent:
        try:
            _dialect(each.schema).check_schema(each.schema, format_checker=_NO_FORMATS)
        except SchemaError as error:
            place = each.pointer + "".join(f"/{part}" for part in error.absolute_path)
            raise _refused(place, "is no valid JSON schema") from None
        except RecursionError:
            raise _refused(each.pointer, "is nested too deeply") from None


def satisfies(text: str, schema: Mapping[str, Any], deadline: Deadline) -> bool:
    """Whether the text is JSON that a schema accepted by `check_schemas` allows; one without end allows nothing.

    Raises `DeadlineExceeded`.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    base = _dialect(schema)
    steps = _Steps(deadline)
    rules = {name: steps.counting(name, rule) for name, rule in base.VALIDATORS.items()}
    judge_additional = rules["additionalProperties"]

    def additional(validator: Any, allowed: Any, instance: Any, within: Any) -> Any:
        # Which properties are additional cannot be told without running the caller's patterns.
        return None if "patternProperties" in within else judge_additional(validator, allowed, instance, within)

    rules |= dict.fromkeys(NOT_JUDGED, _judge_nothing) | {"additionalProperties": additional}
    # A `$ref` to a root that names its dialect would be judged by that dialect's own rules instead of these.
    root = {name: part for name, part in schema.items() if name != "$schema"}
    try:
        return bool(extend(base, rules)(root, registry=Registry()).is_valid(value))
    except DeadlineExceeded:
        raise
    except Exception:
        # Too many steps; or a reference to what was never checked to be a schema, which may fail in any way.
        return False


class _Steps:
    """Counts what one judgement does, and ends it when that is too much or too late."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._left = MAX_STEPS

    def counting(self, name: str, rule: Any) -> Any:
        def judge(validator: Any, wanted: Any, instance: Any, within: Any) -> Any:
            self._take(1 + _size(wanted) + _size(instance))
            if name == "uniqueItems" and not _all_texts(instance):
                self._take(_size(instance) ** 2)  # what cannot be sorted is compared each with each
            return rule(validator, wanted, instance, within)

        return judge

    def _take(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise RecursionError("the schema asks for too many steps")
        if self._deadline.expired:
            raise DeadlineExceeded("a reply was not judged within its time budget")


def _size(value: Any) -> int:
    return len(value) if isinstance(value, list | dict) else 0


def _all_texts(instance: Any) -> bool:
    return isinstance(instance, list) and all(isinstance(item, str) for item in instance)


def _judge_nothing(*_: object) -> None:
    return None


def _dialect(schema: Mapping[str, Any]) -> Any:
    return validator_for(schema, default=Draft202012Validator)


def _check_bounds(sent: SentSchema, limit: int) -> int:
    """How many values the schema has. Raises `InvalidSchema`, `UnsupportedParameter`."""
    seen = 1
    pending: list[tuple[Any, int, bool]] = [(sent.schema, 0, True)]
    while pending:
        node, depth, is_schema = pending.pop()
        seen += _size(node)
        if depth > MAX_DEPTH or seen > limit:
            bounds = f"{MAX_DEPTH} levels, and {MAX_NODES} values in all schemas of a request"
            raise _refused(sent.pointer, f"is too large; stay within {bounds}")
        if isinstance(node, dict):
            _check_keywords(sent, node, depth, is_schema)
        pending += ((child, depth + 1, schemas) for child, schemas in _children(node, is_schema))
    return seen


def _children(node: Any, is_schema: bool) -> Iterator[tuple[Any, bool]]:
    """What stands right below, and whether it is a schema, or a list or map of them."""
    if isinstance(node, list):
        yield from ((child, is_schema) for child in node)
    elif isinstance(node, dict):
        for name, child in node.items():
            if isinstance(node, _Map):
                # Here a name is a property's, whatever keyword it looks like.
                yield child, True
            elif is_schema and name in _MAPS_OF_SCHEMAS and isinstance(child, dict):
                yield _Map(child), True
            else:
                yield child, is_schema and name not in _DATA


class _Map(dict[str, Any]):
    """Schemas by names that are no keywords."""


def _check_keywords(sent: SentSchema, node: Mapping[str, Any], depth: int, is_schema: bool) -> None:
    _check_reference(sent.schema, node, sent.pointer)
    if depth and isinstance(node.get("$id"), str):
        raise _refused(sent.pointer, "may carry an $id at its root only")
    if depth and isinstance(node.get("$schema"), str):
        raise _refused(sent.pointer, "may carry a $schema at its root only")
    for name in _LEASTS:
        least = node.get(name)
        if isinstance(least, int | float) and least > MAX_LEAST:
            raise _refused(sent.pointer, f"has a {name} above {MAX_LEAST}")
    if sent.strict and is_schema and not isinstance(node, _Map):
        for name in NOT_JUDGED:
            if name in node:
                error = UnsupportedParameter("this is not supported here")
                detail = f"uses {name}, which is not judged here; leave it out, or leave out strict"
                raise error.with_fields(FieldError(sent.pointer, detail))


def _check_reference(schema: Mapping[str, Any], node: Mapping[str, Any], pointer: str) -> None:
    for name in ("$dynamicRef", "$recursiveRef"):
        if isinstance(node.get(name), str):
            raise _refused(pointer, f"uses {name}; use $ref")
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
