"""The smallest value that a JSON schema takes, for doubles that must answer in a given shape."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from models.errors import InvalidRequest, UnsupportedByModel

_DEEPEST = 32
#: What one value may take to make: its characters and parts, and the schema's own on the way there.
_LARGEST = 20_000
_FORMATS = {
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "date-time": "2026-01-01T00:00:00Z",
    "email": "a@example.org",
    "uri": "https://example.org",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
}


def minimal_instance(schema: Mapping[str, Any]) -> Any:
    """A value that satisfies the schema: required properties only, shortest lists, first choices.

    Knows the words that structured output uses; raises `UnsupportedByModel` for patterns, endless recursion and words
    that contradict each other in sight, and `InvalidRequest` if even the smallest value is large.
    """
    return _Filler(schema).fill(schema, 0)


class _Filler:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._left = _LARGEST

    def fill(self, schema: Any, depth: int) -> Any:
        self._take(1)
        if schema is True:
            return None
        if not isinstance(schema, Mapping) or depth > _DEEPEST:
            raise UnsupportedByModel("the schema has no value that can be made up for it")
        schema = self._flat(schema, depth)
        for word in ("const", "default"):
            if word in schema:
                return self._given(schema[word])
        if schema.get("enum"):
            return self._given(schema["enum"][0])
        match _type(schema):
            case "object":
                properties = schema.get("properties", {})
                self._take(sum(map(len, schema.get("required", ()))))
                return {name: self.fill(properties.get(name, True), depth + 1) for name in schema.get("required", ())}
            case "array":
                return self._list(schema, depth)
            case "string":
                return self._string(schema)
            case "integer" | "number" as kind:
                try:
                    return _number(schema, whole=kind == "integer")
                except OverflowError as exc:
                    raise UnsupportedByModel("the schema bounds a number by one out of reach") from exc
            case "boolean":
                return False
            case "null":
                return None
            case _:
                raise UnsupportedByModel("the schema names a type that is none of JSON's")

    def _flat(self, schema: Mapping[str, Any], depth: int) -> Mapping[str, Any]:
        """The schema with references followed, first choices taken and parts of `allOf` joined."""
        parts = []
        if "$ref" in schema:
            parts.append(self._referred(schema["$ref"]))
        parts += schema.get("allOf", ())
        for word in ("anyOf", "oneOf"):
            parts += schema.get(word, ())[:1]
        if not parts:
            return schema
        if depth > _DEEPEST:
            raise UnsupportedByModel("the schema refers to itself without an end")
        joined = {key: value for key, value in schema.items() if key not in ("$ref", "allOf", "anyOf", "oneOf")}
        for part in parts:
            part = self._flat(part, depth + 1)
            properties = {**joined.get("properties", {}), **part.get("properties", {})}
            required = [*joined.get("required", ()), *part.get("required", ())]
            self._take(1 + len(properties) + len(required))
            joined = {**joined, **part, "properties": properties, "required": required}
            if not properties:
                del joined["properties"]
            if not required:
                del joined["required"]
        return joined

    def _referred(self, reference: Any) -> Mapping[str, Any]:
        found: Any = self._root
        for step in str(reference).removeprefix("#").split("/")[1:]:
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
        if not str(reference).startswith("#") or not isinstance(found, Mapping):
            raise UnsupportedByModel("the schema refers to something that it does not hold")
        return found

    def _list(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        first = schema.get("prefixItems", ())
        count = int(schema.get("minItems", 0))
        return [
            self.fill(first[place] if place < len(first) else schema.get("items", True), depth + 1)
            for place in range(count)
        ]

    def _string(self, schema: Mapping[str, Any]) -> str:
        if "pattern" in schema:
            raise UnsupportedByModel("no text can be made up for a pattern")
        length = int(schema.get("minLength", 0))
        self._take(length)
        return _FORMATS.get(schema.get("format", ""), "").ljust(length, "a")

    def _given(self, value: Any) -> Any:
        self._take(len(json.dumps(value)))
        return value

    def _take(self, amount: int) -> None:
        """Few words of a schema can ask for a value without end, by a number or by what they multiply."""
        self._left -= amount
        if self._left < 0:
            raise InvalidRequest("the JSON schema asks for more than a reply can hold")


def _type(schema: Mapping[str, Any]) -> Any:
    named = schema.get("type")
    if isinstance(named, list):
        return named[0] if named else None
    if named is not None:
        return named
    if "properties" in schema or "required" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else "null"


def _number(schema: Mapping[str, Any], *, whole: bool) -> int | float:
    low, above = schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf)
    high, below = schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf)
    step: float = schema.get("multipleOf", 1 if whole else 0)
    floor, ceiling = max(low, above), min(high, below)
    candidates: list[float] = [0]
    for bound in (floor, ceiling):
        if math.isinf(bound):
            continue
        nearest = [math.ceil(bound / step) * step, math.floor(bound / step) * step] if step else [bound]
        candidates += [value + shift for value in nearest for shift in (0, step or 1, -(step or 1))]
    if not step and not math.isinf(floor) and not math.isinf(ceiling):
        candidates.append((floor + ceiling) / 2)
    for value in candidates:
        if low <= value <= high and above < value < below:
            return int(value) if whole else value
    raise UnsupportedByModel("the schema allows no number")
