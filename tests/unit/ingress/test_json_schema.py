"""Schemas of strangers: judged within bounds, and never a way to make us fetch, hang or crash."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.ingress.errors import UnsupportedParameter
from deployments.ingress.http.openai import json_schema
from deployments.ingress.http.openai.json_schema import InvalidSchema, SentSchema, check_schemas
from models.errors import DeadlineExceeded
from models.resilience.deadline import Deadline

ORDER: dict[str, Any] = {
    "type": "object",
    "properties": {"id": {"$ref": "#/$defs/id"}, "lines": {"type": "array", "items": {"type": "integer"}}},
    "required": ["id"],
    "additionalProperties": False,
    "$defs": {"id": {"type": "string", "minLength": 2}},
}


def check_schema(schema: dict[str, Any], pointer: str, *, strict: bool = False) -> None:
    check_schemas([SentSchema(schema, pointer, strict)])


def satisfies(text: str, schema: dict[str, Any]) -> bool:
    return json_schema.satisfies(text, schema, Deadline.after(60))


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ('{"id":"ab","lines":[1]}', True),
        ('{"id":"a"}', False),
        ('{"id":"ab","lines":["1"]}', False),
        ('{"id":"ab","more":1}', False),
        ("{}", False),
        ("", False),
        ('{"id":"ab"', False),
        ('```json\n{"id":"ab"}\n```', False),
    ],
)
def test_a_reply_is_judged_by_its_schema(text: str, fits: bool) -> None:
    check_schema(ORDER, "")
    assert satisfies(text, ORDER) is fits


def test_schemas_of_older_drafts_are_understood() -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "definitions": {"pair": {"type": "array", "items": [{"type": "integer"}, {"type": "string"}]}},
        "$ref": "#/definitions/pair",
    }
    check_schema(schema, "")
    assert satisfies('[1,"a"]', schema)
    assert not satisfies('["a",1]', schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objekt"},
        {"properties": []},
        {"$ref": "http://127.0.0.1:1/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "#/$defs/nowhere"},
        {"$ref": "#anchor"},
        {"$dynamicRef": "#meta"},
        {"$recursiveRef": "#"},
        {"properties": {"a": {"$id": "http://127.0.0.1/other"}}},
        {"properties": {"a": {"$schema": "http://json-schema.org/draft-07/schema#", "pattern": "(a+)+$"}}},
        {"allOf": [{}] * 2_001},
        {"type": "array", "minItems": 10**12},
        {"properties": {"a": {"type": "string", "minLength": 1e13}}},
        {"enum": [[index] for index in range(30_000)]},
    ],
)
def test_what_is_no_schema_or_leads_away_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidSchema) as raised:
        check_schema(schema, "/here")
    assert raised.value.fields[0].pointer.startswith("/here")


def test_a_tower_of_levels_is_refused() -> None:
    tower: dict[str, Any] = {}
    for _ in range(200):
        tower = {"items": tower}
    with pytest.raises(InvalidSchema):
        check_schema(tower, "")


def test_references_without_end_and_explosions_end() -> None:
    explosion: dict[str, Any] = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 4} for i in range(20)}
    for schema in ({"$ref": "#"}, {"$ref": "#/$defs/d0", "$defs": explosion | {"d20": {"type": "integer"}}}):
        check_schema(schema, "")
        assert not satisfies("1", schema)


def test_a_callers_regular_expression_is_never_run() -> None:
    """This one would take longer than the universe has."""
    hostile: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(a+)+$"}}}
    named = {"patternProperties": {"(a+)+$": {"type": "string"}}, "additionalProperties": False}
    dialect = "https://json-schema.org/draft/2020-12/schema"
    renamed = {"$schema": dialect, "properties": {"b": {"$ref": "#"}}, **named}
    uncompilable = {"pattern": "a{99999999999999}"}
    for schema in (hostile, named, renamed, uncompilable):
        check_schema(schema, "")
        assert satisfies('{"a":"' + "a" * 60 + '!"}', schema)
        assert satisfies('{"' + "a" * 60 + '!":"b"}', schema)


def test_the_schemas_of_a_request_share_one_bound() -> None:
    half: dict[str, Any] = {"allOf": [{}] * 1_500}
    check_schemas([SentSchema(half, "/one")])
    with pytest.raises(InvalidSchema) as raised:
        check_schemas([SentSchema(half, "/one"), SentSchema(half, "/two")])
    assert raised.value.fields[0].pointer == "/two"


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"items": {"allOf": [{}] * 1_900}}, "[" + ",".join("1" * 10_000) + "]"),
        ({"items": {"enum": list(range(1_900))}}, "[" + ",".join("1" * 10_000) + "]"),
        ({"uniqueItems": True}, "[" + ",".join(f'{{"a":{i}}}' for i in range(50_000)) + "]"),
    ],
)
def test_a_judgement_that_takes_too_many_steps_ends(schema: dict[str, Any], text: str) -> None:
    check_schema(schema, "")
    assert not satisfies(text, schema)


def test_a_judgement_ends_at_the_deadline() -> None:
    with pytest.raises(DeadlineExceeded):
        json_schema.satisfies("1", {"type": "integer"}, Deadline.after(0))


def test_a_reference_to_what_is_no_schema_allows_nothing() -> None:
    schema = {"properties": {"type": {"type": "string"}}, "items": {"$ref": "#/properties"}}
    check_schema(schema, "")
    assert not satisfies("[1]", schema)


@pytest.mark.parametrize("word", json_schema.NOT_JUDGED)
def test_what_cannot_be_judged_cannot_be_promised(word: str) -> None:
    value: Any = {"patternProperties": {"a": {}}, "pattern": "a", "format": "date"}.get(word, False)
    schema = {"properties": {"a": {"anyOf": [{word: value}]}}}
    check_schema(schema, "/here")
    with pytest.raises(UnsupportedParameter) as raised:
        check_schema(schema, "/here", strict=True)
    assert word in raised.value.fields[0].detail


def test_a_property_may_have_the_name_of_a_keyword() -> None:
    properties = {name: {"type": "string"} for name in ("format", "pattern", "properties", "enum", "minItems")}
    schema = {
        "properties": {**properties, "inner": {"properties": {"properties": {"properties": {"format": {}}}}}},
        "const": {"format": "x"},
    }
    check_schema(schema, "", strict=True)
