"""Chat completions of an engine, through the official client unchanged."""

from __future__ import annotations

import asyncio
from typing import Any

import jsonschema
import openai
import orjson
import pytest

from models.errors import ModelReplyBroken, ModelUnavailable
from models.llm.types import FinishReason, LanguageModelReply, Role, ToolChoice, ToolMode
from tests.fakes.ingress import World
from tests.fakes.models import FakeLanguageModel, echoing, saying
from tests.unit.ingress.openai_world import CALL, HELLO, TOWN, WEATHER, openai_world


@pytest.fixture
def world() -> World:
    return openai_world()


async def test_a_completion_says_what_answered_and_what_it_cost(world: World) -> None:
    async with world.openai() as client:
        completion = await client.chat.completions.create(model="scripted", messages=HELLO)
    (choice,) = completion.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == (
        "assistant",
        "hello big world",
        "stop",
    )
    assert completion.model == "scripted"
    assert completion.usage is not None
    assert completion.usage.prompt_tokens_details is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens, completion.usage.total_tokens) == (
        10,
        3,
        13,
    )
    assert completion.usage.prompt_tokens_details.cached_tokens == 4
    details = completion.model_extra["rapport"] if completion.model_extra else {}
    assert (details["engine"], details["model"], details["degraded"], details["cost_usd"]) == (
        "scripted",
        "scripted-1",
        [],
        0.001,
    )
    assert details["request_id"] == completion._request_id


async def test_every_supported_field_reaches_the_engine(world: World) -> None:
    conversation: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}]},
        {"role": "user", "content": "Weather?", "name": "ann"},
        {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": CALL.arguments}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    ]
    world.language_model.answer = lambda _: saying('{"town":"Bern"}')
    async with world.openai() as client:
        await client.chat.completions.create(
            model="scripted:tokens=3",
            messages=conversation,
            temperature=0.5,
            top_p=0.9,
            max_completion_tokens=9,
            stop="END",
            seed=7,
            tools=[WEATHER],
            tool_choice={"type": "function", "function": {"name": "weather"}},
            response_format=TOWN,
            user="customer_123",
            metadata={"purpose": "test"},
            store=False,
            logprobs=False,
            logit_bias={},
            presence_penalty=0,
            service_tier="auto",
            safety_identifier="u1",
            prompt_cache_key="k",
        )
    (request,) = world.language_model.requests
    assert [(message.role, message.content) for message in request.messages] == [
        (Role.SYSTEM, "Be brief."),
        (Role.SYSTEM, "Be kind."),
        (Role.USER, "Weather?"),
        (Role.ASSISTANT, ""),
        (Role.TOOL, "rain"),
    ]
    assert request.messages[3].tool_calls == (CALL,)
    assert request.messages[4].tool_call_id == "call_1"
    assert (request.model, request.temperature, request.top_p, request.max_tokens) == ("scripted:tokens=3", 0.5, 0.9, 9)
    assert (request.stop, request.seed) == (("END",), 7)
    assert [tool.name for tool in request.tools] == ["weather"]
    assert request.tool_choice == ToolChoice(mode=ToolMode.REQUIRED, name="weather")
    assert (request.response_schema, request.strict) == (TOWN["json_schema"]["schema"], True)


async def test_what_is_left_out_is_the_engines_to_choose_or_has_openais_default(world: World) -> None:
    loose: Any = {"type": "json_schema", "json_schema": {"name": "town", "schema": {"type": "object"}}}
    world.language_model.answer = lambda _: saying("[]")
    async with world.openai() as client:
        await client.chat.completions.create(model="scripted", messages=HELLO)
        await client.chat.completions.create(model="scripted", messages=HELLO, response_format=loose)
    request, with_schema = world.language_model.requests
    assert (request.temperature, request.top_p, request.max_tokens, request.stop) == (None, 1.0, 77, ())
    assert request.response_schema is None
    assert (with_schema.response_schema, with_schema.strict) == ({"type": "object"}, False)


@pytest.mark.parametrize("include_usage", [False, True])
async def test_a_stream_arrives_in_pieces_with_usage_when_asked(world: World, include_usage: bool) -> None:
    async with world.openai() as client:
        stream = await client.chat.completions.create(
            model="scripted", messages=HELLO, stream=True, stream_options={"include_usage": include_usage}
        )
        chunks = [chunk async for chunk in stream]
    spoken = [chunk for chunk in chunks if chunk.choices]
    assert [chunk.choices[0].delta.content for chunk in spoken] == ["hello", " big", " world", None]
    assert [chunk.choices[0].delta.role for chunk in spoken] == ["assistant", None, None, None]
    assert [chunk.choices[0].finish_reason for chunk in spoken] == [None, None, None, "stop"]
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert spoken[-1].model_extra is not None
    assert spoken[-1].model_extra["rapport"]["cost_usd"] == 0.001
    usages = [chunk.usage for chunk in chunks if not chunk.choices]
    assert [usage.total_tokens for usage in usages if usage] == ([13] if include_usage else [])


async def test_choices_run_side_by_side_and_usage_is_summed(world: World) -> None:
    world.language_model.answer = lambda request: echoing(request) if request.seed == 5 else saying("other")
    async with world.openai() as client:
        completion = await client.chat.completions.create(model="scripted", messages=HELLO, n=2, seed=5)
        stream = await client.chat.completions.create(model="scripted", messages=HELLO, n=2, seed=5, stream=True)
        texts = {0: "", 1: ""}
        ends = []
        async for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                ends += [choice.index] if choice.finish_reason else []
    assert [(choice.index, choice.message.content) for choice in completion.choices] == [
        (0, "hello big world"),
        (1, "other"),
    ]
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == 10
    assert completion.model_extra is not None
    assert completion.model_extra["rapport"]["cost_usd"] is None, "the price of one choice is not known"
    assert texts == {0: "hello big world", 1: "other"}
    assert sorted(ends) == [0, 1]


async def test_the_failure_of_one_choice_cancels_the_others(world: World) -> None:
    class OneFails(FakeLanguageModel):
        async def generate(self, request: Any, *, deadline: Any) -> LanguageModelReply:
            if request.seed == 1:
                await self.started.acquire()
                raise ModelUnavailable("gone")
            return await super().generate(request, deadline=deadline)

    model = world.language_model = OneFails(gate=asyncio.Event())
    world.__post_init__()
    async with world.openai() as client:
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(model="scripted", messages=HELLO, n=2, seed=0)
    assert model.cancelled == 1


async def test_tool_calls_come_back_whole_and_streamed(world: World) -> None:
    world.language_model.answer = lambda _: saying("", finish=FinishReason.TOOL_CALLS, calls=[CALL, CALL])
    asked: Any = {"model": "scripted", "messages": HELLO, "tools": [WEATHER], "tool_choice": "required"}
    async with world.openai() as client:
        completion = await client.chat.completions.create(**asked)
        single = await client.chat.completions.create(**asked, parallel_tool_calls=False)
        async with client.chat.completions.stream(**asked) as stream:
            streamed = await stream.get_final_completion()
    for choice in (completion.choices[0], streamed.choices[0]):
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        assert choice.message.tool_calls is not None
        calls: Any = choice.message.tool_calls
        assert [(call.id, call.function.name, call.function.arguments) for call in calls] == [
            ("call_1", "weather", '{"town":"Bern"}')
        ] * 2
    assert len(single.choices[0].message.tool_calls or ()) == 1
    assert world.language_model.requests[0].tool_choice == ToolChoice(mode=ToolMode.REQUIRED)


async def test_a_stream_has_more_time_than_a_whole_reply(world: World) -> None:
    async with world.openai() as client:
        await client.chat.completions.create(model="scripted", messages=HELLO)
        [_ async for _ in await client.chat.completions.create(model="scripted", messages=HELLO, stream=True)]
    whole, streamed = world.language_model.remaining_s
    limits = world.settings.language_model
    assert whole <= limits.timeout_s < streamed <= limits.stream_timeout_s


async def test_a_failure_before_the_first_piece_keeps_its_status(world: World) -> None:
    world.language_model.fails = ModelUnavailable("secret upstream text")
    async with world.openai() as client:
        with pytest.raises(openai.InternalServerError) as raised:
            await client.chat.completions.create(model="scripted", messages=HELLO, stream=True)
    assert (raised.value.status_code, raised.value.code) == (503, "model_unavailable")
    assert "secret" not in raised.value.response.text


@pytest.mark.parametrize("error", [ModelReplyBroken("secret"), RuntimeError("secret")])
async def test_a_failure_half_way_is_the_last_event_without_done(world: World, error: Exception) -> None:
    world.language_model.breaks = error
    async with world.client() as http:
        sent = {"model": "scripted", "messages": HELLO, "stream": True}
        raw = (await http.post("/v1/chat/completions", json=sent)).text
    events = [line.removeprefix("data: ") for line in raw.splitlines() if line]
    assert "hello" in events[0]
    assert "[DONE]" not in raw
    assert "secret" not in raw
    last = orjson.loads(events[-1])
    assert set(last) == {"error"}
    assert set(last["error"]) == {"message", "type", "param", "code"}
    async with world.openai() as client:
        stream = await client.chat.completions.create(model="scripted", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError) as raised:
            [chunk async for chunk in stream]
    assert raised.value.code == last["error"]["code"]


async def test_odd_text_survives_the_stream(world: World) -> None:
    odd = 'a "quote"\n\u2028 é 🌍 \x00'
    world.language_model.answer = lambda _: saying(odd)
    async with world.openai() as client:
        stream = await client.chat.completions.create(model="scripted", messages=HELLO, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == odd
        world.language_model.answer = lambda _: saying("half \ud83d pair")
        stream = await client.chat.completions.create(model="scripted", messages=HELLO, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "half \ufffd pair"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_ends_the_models_work(world: World, stream: bool) -> None:
    world.language_model.gate = asyncio.Event()
    body = orjson.dumps({"model": "scripted", "messages": HELLO, "stream": stream, "n": 2})
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    inbox.put_nowait({"type": "http.request", "body": body, "more_body": False})
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "raw_path": b"/v1/chat/completions",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"host", b"127.0.0.1")],
        "client": ("127.0.0.1", 5),
        "server": ("127.0.0.1", 8000),
    }
    call = asyncio.create_task(world.api(scope, inbox.get, send))
    for _ in range(2):
        await world.language_model.started.acquire()
    inbox.put_nowait({"type": "http.disconnect"})
    await call
    assert world.language_model.cancelled == 2
    assert all(message.get("status") != 200 for message in sent) or stream
    assert ("http_requests_total", {"route": scope["path"], "method": "POST", "status": "499"}) in world.metrics.counted


async def test_what_is_sent_is_what_is_documented(world: World) -> None:
    world.language_model.answer = lambda request: saying("x", finish=FinishReason.TOOL_CALLS, calls=[CALL])
    sent: dict[str, Any] = {"model": "scripted", "messages": HELLO, "tools": [WEATHER]}
    async with world.client() as http:
        document = (await http.get("/openapi.json")).json()
        whole = (await http.post("/v1/chat/completions", json=sent)).json()
        options = {"stream": True, "stream_options": {"include_usage": True}}
        raw = (await http.post("/v1/chat/completions", json=sent | options)).text
        assistant = (await http.post("/v1/chat/completions", json={"model": "rapport", "messages": HELLO})).json()
    chunks = [orjson.loads(line[6:]) for line in raw.splitlines() if line and "[DONE]" not in line]
    for name, bodies in (("ChatCompletion", [whole, assistant]), ("ChatCompletionChunk", chunks)):
        for body in bodies:
            jsonschema.validate(body, {**document, "$ref": f"#/components/schemas/{name}"})
    assert len(chunks) == 3
