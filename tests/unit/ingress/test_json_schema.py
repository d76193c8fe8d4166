"""Schemas of strangers: judged within bounds, and never a way to make us fetch, hang or crash."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.ingress.http.openai.json_schema import InvalidSchema, check_schema, satisfies

ORDER: dict[str, Any] = {
    "type": "object",
    "properties": {"id": {"$ref": "#/$defs/id"}, "lines": {"type": "array", "items": {"type": "integer"}}},
    "required": ["id"],
    "additionalProperties": False,
    "$defs": {"id": {"type": "string", "minLength": 2}},
}


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
        {"properties": {"a": {"$id": "http://127.0.0.1/other"}}},
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
    hostile = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(a+)+$"}}}
    named = {"patternProperties": {"(a+)+$": {"type": "string"}}, "additionalProperties": False}
    for schema in (hostile, named):
        check_schema(schema, "")
        assert satisfies('{"a":"' + "a" * 60 + '!"}', schema)
        assert satisfies('{"' + "a" * 60 + '!":"b"}', schema)
