from __future__ import annotations

import asyncio
import json
from typing import Any

import jsonschema
import pytest

from models.errors import (
    ConfigurationError,
    ContextLengthExceeded,
    DeadlineExceeded,
    InvalidRequest,
    ModelAccessDenied,
    ModelRateLimited,
    ModelRefused,
    ModelReplyBroken,
    ModelUnavailable,
    RapportError,
    UnsupportedByModel,
)
from models.llm.schema_instance import minimal_instance
from models.llm.script import Failure, Malformed, Script
from models.llm.scripted import ScriptedLanguageModel
from models.llm.types import ChatMessage, FinishReason, LanguageModelRequest, Role, ToolChoice, ToolMode, ToolSpec
from models.resilience.deadline import Deadline
from tests.fakes.language_model import PASSAGES, QUESTION, asking, passage, streamed

HELLO = asking("Hi", passages=())
ORDER = {
    "type": "object",
    "properties": {"order": {"type": "string", "minLength": 2}, "note": {"type": "string"}},
    "required": ["order"],
}
TOOL = ToolSpec(name="lookup_order", description="Looks an order up", parameters=ORDER)


class Time:
    """A clock that sleeping moves; `late_s` is how much longer than asked every sleep takes."""

    def __init__(self, *, late_s: float = 0.0) -> None:
        self.now = 0.0
        self.late_s = late_s

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds + (self.late_s if seconds else 0.0)
        await asyncio.sleep(0)

    def deadline(self, seconds: float) -> Deadline:
        return Deadline.after(seconds, self.clock)

    def model(self, options: str = "") -> ScriptedLanguageModel:
        return ScriptedLanguageModel(options, clock=self.clock, sleep=self.sleep)


async def told(options: str, request: LanguageModelRequest = HELLO) -> Any:
    return (await streamed(Time().model(options), request))[1]


# The grammar


def test_options_are_read() -> None:
    read = Script.parse("ttft_ms=200,gap_ms=2.5,tokens=64,fail=503,fail_after=3,tool=find,malformed=json,external=1")
    assert read == Script(
        ttft_ms=200,
        gap_ms=2.5,
        tokens=64,
        fail=Failure.UNAVAILABLE,
        fail_after=3,
        tool="find",
        malformed=Malformed.JSON,
        external=True,
    )
    assert Script.parse("args=%7B%22a%22%3A1%2C%22b%22%3A2%7D").args == '{"a":1,"b":2}'
    assert Script.parse("") == Script()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("speed=9", "speed"),
        ("tokens", "tokens"),
        ("tokens=-1", "tokens"),
        ("tokens=1e9", "tokens"),
        ("gap_ms=nan", "gap_ms"),
        ("fail=418", "fail"),
        ("malformed=xml", "malformed"),
        ("external=yes", "external"),
        ("tokens=1,tokens=2", "tokens is given twice"),
    ],
)
async def test_a_wrong_option_is_named_at_the_start_and_in_a_request(options: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        ScriptedLanguageModel(options)
    with pytest.raises(InvalidRequest, match=named) as caught:
        await told("", asking("Hi", passages=(), model=f"scripted:{options}"))
    assert caught.value.fields[0].pointer == "/model"


@pytest.mark.parametrize("option", ["external=1", "fail_calls=1"])
async def test_what_belongs_to_the_engine_is_refused_in_a_request(option: str) -> None:
    with pytest.raises(InvalidRequest, match="settings only"):
        await told("", asking("Hi", passages=(), model=f"scripted:{option}"))


async def test_a_request_is_answered_by_its_own_options_alone() -> None:
    reply = await told("tokens=5,fail=500", asking("Hi", passages=(), model="scripted:tokens=2"))
    assert reply.usage.completion_tokens == 2
    assert reply.model == "scripted:tokens=2"


def test_it_stands_inside_our_walls_unless_told_otherwise() -> None:
    assert not ScriptedLanguageModel("tokens=1").capabilities.external
    assert ScriptedLanguageModel("external=1").capabilities.external


# Pace


async def arrivals(time: Time, options: str) -> list[float]:
    deltas = time.model(options).stream(HELLO, deadline=time.deadline(60))
    return [round(time.now, 6) async for _ in deltas]


async def test_tokens_come_on_time() -> None:
    assert await arrivals(Time(), "ttft_ms=200,gap_ms=20,tokens=4") == [0.2, 0.22, 0.24, 0.26, 0.26]


async def test_a_late_token_does_not_delay_the_next() -> None:
    """Each sleep takes 5 ms too long: every token is 5 ms late, and not one more."""
    late = await arrivals(Time(late_s=0.005), "ttft_ms=200,gap_ms=20,tokens=50")
    assert late[:50] == [round(0.205 + number * 0.02, 6) for number in range(50)]


async def test_a_deadline_ends_the_wait_at_its_instant() -> None:
    time = Time()
    deltas = time.model("gap_ms=1000").stream(HELLO, deadline=time.deadline(2.5))
    assert [(await anext(deltas)).text for _ in range(3)] == ["This", " reply", " was"]
    with pytest.raises(DeadlineExceeded):
        await anext(deltas)
    assert time.now == 2.5


async def test_cancelling_stops_it_at_once() -> None:
    reached = asyncio.Event()

    async def forever(_: float) -> None:
        reached.set()
        await asyncio.Event().wait()

    model = ScriptedLanguageModel("gap_ms=1000", sleep=forever)
    task = asyncio.create_task(model.generate(HELLO, deadline=Deadline.after(60)))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# Failures


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("401", ModelAccessDenied),
        ("404", ModelAccessDenied),
        ("429", ModelRateLimited),
        ("500", ModelUnavailable),
        ("503", ModelUnavailable),
        ("context", ContextLengthExceeded),
        ("unsupported", UnsupportedByModel),
        ("refuse", ModelRefused),
        ("cut", ModelReplyBroken),
        ("timeout", DeadlineExceeded),
    ],
)
async def test_a_failure_comes_at_the_start_or_breaks_the_reply_off(kind: str, expected: type[RapportError]) -> None:
    time = Time()
    with pytest.raises(RapportError) as caught:
        await time.model(f"fail={kind}").generate(HELLO, deadline=time.deadline(30))
    assert type(caught.value) is expected
    assert time.now == (30 if kind == "timeout" else 0)
    deltas = time.model(f"fail={kind},fail_after=2").stream(HELLO, deadline=time.deadline(30))
    assert [(await anext(deltas)).text for _ in range(2)] == ["This", " reply"]
    with pytest.raises(DeadlineExceeded if kind == "timeout" else ModelReplyBroken):
        await anext(deltas)


async def test_a_short_reply_fails_at_its_end() -> None:
    with pytest.raises(ModelReplyBroken):
        await told("tokens=2,fail=cut,fail_after=9")


async def test_how_long_to_wait_is_said() -> None:
    with pytest.raises(ModelRateLimited) as caught:
        await told("fail=429,retry_after_ms=1500")
    assert caught.value.retry_after_s == 1.5


async def test_an_engine_recovers_after_so_many_calls() -> None:
    model = Time().model("fail=503,fail_calls=2")
    for _ in range(2):
        with pytest.raises(ModelUnavailable):
            await streamed(model, HELLO)
    assert (await streamed(model, HELLO))[1].text


# Contents


async def test_tokens_are_counted_and_limited() -> None:
    whole = await told("tokens=40")
    cut = await told("tokens=40", asking("Hi there", passages=(), max_tokens=7))
    assert (whole.usage.completion_tokens, whole.finish_reason) == (40, FinishReason.STOP)
    assert (cut.usage.completion_tokens, cut.finish_reason) == (7, FinishReason.LENGTH)
    assert whole.text.startswith(cut.text)
    assert cut.usage.prompt_tokens == 2


async def test_a_stop_sequence_ends_the_text() -> None:
    reply = await told("tokens=9", asking("Hi", passages=(), stop=("nothing", " before")))
    assert reply.text == "This reply was written"


@pytest.mark.parametrize("options", ["", "tokens=64"])
async def test_the_first_sentence_of_the_first_passage_is_cited(options: str) -> None:
    odd = passage("odd", '# Heading\n\n| a | b |\n|---|---|\n\nWe say "soon" [sic] and **mean** it. Not more.')
    for passages in (PASSAGES, (odd,)):
        pieces, reply = await streamed(Time().model(options), asking(QUESTION, passages=passages))
        assert "".join(pieces) == reply.text
        (citation,) = reply.citations
        assert citation.passage_id == passages[0].passage_id
        assert citation.quote in passages[0].text
        assert not citation.quote.startswith("#")
        assert reply.usage.completion_tokens >= (64 if options else 1)


async def test_a_passage_without_a_sentence_is_no_reason_to_fail() -> None:
    assert (await told("", asking("Hi", passages=(passage("a", "# Only a heading"),)))).text


@pytest.mark.parametrize(
    ("choice", "called"),
    [
        (ToolChoice(), None),
        (ToolChoice(mode=ToolMode.NONE), None),
        (ToolChoice(mode=ToolMode.REQUIRED), "lookup_order"),
        (ToolChoice(name="lookup_order"), "lookup_order"),
    ],
)
async def test_tools_are_called_when_the_request_demands_it(choice: ToolChoice, called: str | None) -> None:
    reply = await told("", asking("Hi", passages=(), tools=(TOOL,), tool_choice=choice))
    assert [call.name for call in reply.tool_calls] == ([called] if called else [])
    for call in reply.tool_calls:
        jsonschema.validate(json.loads(call.arguments), ORDER)


async def test_a_scripted_tool_is_called_once_in_a_conversation() -> None:
    request = asking("Hi", passages=(), tools=(TOOL,))
    reply = await told("tool=lookup_order,args=%7B%22order%22:%22A1%22%7D", request)
    (call,) = reply.tool_calls
    assert call.arguments == '{"order":"A1"}'
    result = ChatMessage(role=Role.TOOL, content="sent", tool_call_id=call.id)
    after = asking("Hi", passages=(), tools=(TOOL,), messages=(*request.messages, result))
    assert (await told("tool=lookup_order", after)).tool_calls == ()


async def test_a_tool_that_nobody_offers_can_be_called_but_not_demanded() -> None:
    assert (await told("tool=imagined")).tool_calls[0].name == "imagined"
    with pytest.raises(UnsupportedByModel):
        await told("", asking("Hi", passages=(), tools=(TOOL,), tool_choice=ToolChoice(name="imagined")))


async def test_malformed_arguments_do_not_parse_or_do_not_fit() -> None:
    request = asking("Hi", passages=(), tools=(TOOL,))
    broken = (await told("tool=lookup_order,malformed=json", request)).tool_calls[0].arguments
    with pytest.raises(json.JSONDecodeError):
        json.loads(broken)
    unfit = (await told("tool=lookup_order,malformed=schema", request)).tool_calls[0].arguments
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(unfit), ORDER)


async def test_malformed_text_does_not_parse_or_does_not_fit() -> None:
    request = asking("Hi", passages=(), response_schema=ORDER)
    with pytest.raises(json.JSONDecodeError):
        json.loads((await told("malformed=json", request)).text)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads((await told("malformed=schema", request)).text), ORDER)
    assert "\x00" in (await told("malformed=garbage", request)).text


def manifold(word: str) -> dict[str, Any]:
    """A short schema of ten levels, each of which needs the one below ten times."""
    levels: dict[str, Any] = {"0": {}}
    for level in range(1, 11):
        below = [{"$ref": f"#/$defs/{level - 1}"}] * 10
        named = {f"p{place}": schema for place, schema in enumerate(below)}
        levels[str(level)] = {"allOf": below} if word == "allOf" else {"properties": named, "required": [*named]}
    return {"$defs": levels, "$ref": "#/$defs/10"}


SCHEMAS: list[dict[str, Any]] = [
    ORDER,
    {},
    {"type": ["string", "null"]},
    {"enum": ["b", "a"]},
    {"const": {"a": [1]}},
    {"type": "integer", "exclusiveMinimum": 3, "multipleOf": 5},
    {"type": "integer", "maximum": -2},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "number", "minimum": 0.25},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2},
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "minItems": 3},
    {"anyOf": [{"type": "integer", "minimum": 2}, {"type": "null"}]},
    {"allOf": [{"properties": {"a": {"type": "null"}}, "required": ["a"]}, {"required": ["b"]}], "type": "object"},
    {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                    "at": {"$ref": "#/$defs/at"},
                },
                "required": ["at"],
            },
            "at": {"type": "string", "format": "date-time"},
        },
    },
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:40])
def test_a_made_up_value_fits_its_schema(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(schema).validate(minimal_instance(schema))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^A"},
        {"type": "strnig"},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"type": "number", "minimum": 10**400},
        {"type": "number", "minimum": 3, "multipleOf": 5e-324},
        {"$ref": "#/nowhere"},
        {"$ref": "#"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/a"}}}},
    ],
    ids=lambda schema: json.dumps(schema)[:40],
)
async def test_a_schema_that_cannot_be_filled_is_said(schema: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedByModel):
        await told("", asking("Hi", passages=(), response_schema=schema))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "minLength": 10**13},
        {"type": "array", "minItems": 10**12},
        {"type": "array", "minItems": 4_000, "items": {"type": "array", "minItems": 4_000}},
        {"type": "array", "minItems": 4_000, "items": {"const": "a" * 4_000}},
        manifold("allOf"),
        manifold("required"),
    ],
    ids=lambda schema: json.dumps(schema)[:40],
)
async def test_a_schema_that_asks_for_too_much_is_the_caller_s_mistake(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        await told("", asking("Hi", passages=(), response_schema=schema))
