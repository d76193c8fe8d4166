"""What a request was promised of its reply, by a schema or a tool: kept whole and streamed, or refused beforehand."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from models.llm.types import FinishReason, LanguageModelReply, ToolCall
from tests.fakes.ingress import World
from tests.fakes.models import saying
from tests.unit.ingress.openai_world import HELLO, TOWN, WEATHER, openai_world


@pytest.fixture
def world() -> World:
    return openai_world()


async def test_a_reply_that_fits_the_schema_passes_and_another_is_an_error(world: World) -> None:
    async with world.openai() as client:
        world.language_model.answer = lambda _: saying('{"town":"Bern"}')
        completion = await client.chat.completions.create(model="scripted", messages=HELLO, response_format=TOWN)
        assert completion.choices[0].message.content == '{"town":"Bern"}'
        for text in ('{"town":3}', "{}", "Bern", '{"town":"Be'):
            world.language_model.answer = lambda _, text=text: saying(text)  # type: ignore[misc]
            with pytest.raises(openai.InternalServerError) as raised:
                await client.chat.completions.create(model="scripted", messages=HELLO, response_format=TOWN)
            assert (raised.value.status_code, raised.value.code) == (502, "model_reply_broken")
        world.language_model.answer = lambda _: saying('{"town":"Be', finish=FinishReason.LENGTH)
        cut = await client.chat.completions.create(model="scripted", messages=HELLO, response_format=TOWN)
        assert cut.choices[0].finish_reason == "length"
        world.language_model.answer = lambda _: saying("[1]")
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(
                model="scripted", messages=HELLO, response_format={"type": "json_object"}
            )
    assert world.language_model.requests[-1].response_schema == {"type": "object"}


@pytest.mark.parametrize(("arguments", "strict"), [('{"town":', False), ("[]", False), ('{"town":3}', True)])
async def test_tool_arguments_that_cannot_be_used_are_a_broken_reply(
    world: World, arguments: str, strict: bool
) -> None:
    call = ToolCall(id="call_1", name="weather", arguments=arguments)
    world.language_model.answer = lambda _: saying("", finish=FinishReason.TOOL_CALLS, calls=[call])
    tool: Any = {"type": "function", "function": {**WEATHER["function"], "strict": strict}}
    async with world.openai() as client:
        with pytest.raises(openai.InternalServerError) as raised:
            await client.chat.completions.create(model="scripted", messages=HELLO, tools=[tool])
    assert raised.value.code == "model_reply_broken"


@pytest.mark.parametrize(
    ("reply", "asked"),
    [
        (saying('{"town":3}'), {"response_format": TOWN}),
        (saying("[1]"), {"response_format": {"type": "json_object"}}),
        (
            saying("", finish=FinishReason.TOOL_CALLS, calls=[ToolCall(id="c", name="weather", arguments='{"town":')]),
            {"tools": [WEATHER]},
        ),
    ],
)
async def test_a_stream_that_does_not_keep_its_promise_ends_with_the_failure(
    world: World, reply: LanguageModelReply, asked: dict[str, Any]
) -> None:
    world.language_model.answer = lambda _: reply
    finished: list[str | None] = []

    async def listen(stream: Any) -> None:
        async for chunk in stream:
            finished.extend(choice.finish_reason for choice in chunk.choices)

    async with world.openai() as client:
        stream = await client.chat.completions.create(model="scripted", messages=HELLO, stream=True, **asked)
        with pytest.raises(openai.APIError) as raised:
            await listen(stream)
    assert raised.value.code == "model_reply_broken"
    assert not any(finished)


@pytest.mark.parametrize("strict", [False, True])
async def test_schema_bombs_are_refused_by_name_before_an_engine_is_asked(world: World, strict: bool) -> None:
    bomb = {"type": "object", "allOf": [{}] * 700}
    tools: Any = [
        {"type": "function", "function": {"name": f"f{number}", "parameters": bomb, "strict": strict}}
        for number in range(4)
    ]
    async with world.openai() as client:
        with pytest.raises(openai.BadRequestError) as raised:
            await client.chat.completions.create(model="scripted", messages=HELLO, tools=tools)
    assert (raised.value.code, raised.value.param) == ("invalid_json_schema", "tools[2].function.parameters")
    assert world.language_model.requests == []


async def test_a_strict_schema_with_what_is_not_judged_is_unsupported(world: World) -> None:
    schema = {"properties": {"day": {"type": "string", "format": "date"}}}
    dated: Any = {"type": "json_schema", "json_schema": {"name": "f", "strict": True, "schema": schema}}
    async with world.openai() as client:
        with pytest.raises(openai.BadRequestError, match="uses format") as raised:
            await client.chat.completions.create(model="scripted", messages=HELLO, response_format=dated)
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", "response_format.json_schema.schema")
