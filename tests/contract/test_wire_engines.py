"""What engines behind an endpoint promise when the endpoint, or the way to it, fails; over real connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from models.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    ModelAccessDenied,
    ModelRateLimited,
    ModelRefused,
    ModelReplyBroken,
    ModelUnavailable,
    RapportError,
    UnsupportedByModel,
)
from models.llm.engines import build_engine
from models.llm.protocol import Engine
from models.llm.types import FinishReason, ToolChoice, ToolMode, ToolSpec, Usage
from models.resilience.deadline import Deadline
from models.settings import LanguageModelSettings
from tests.fakes.embedder import HashingEmbedder
from tests.fakes.language_model import PASSAGES, QUESTION, asking, streamed
from tests.fakes.openai_server import Event, OpenAIServer, text_chunks, text_events

HELLO = asking("Hi", passages=())
TOOL = ToolSpec(name="find_order", description="Finds an order", parameters={"type": "object"})


@dataclass(frozen=True, kw_only=True)
class Wire:
    """An engine over one of the two APIs, and that API's events of a text."""

    model: Engine
    api: str
    text: Callable[..., list[Event]]


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    running = OpenAIServer()
    yield running
    running.close()
    assert running.unused == 0, "the engine made fewer calls than the test scripted"


def settings_of(server: OpenAIServer, api: str, **more: object) -> LanguageModelSettings:
    return LanguageModelSettings.model_validate(
        {"openai_base_url": server.base_url, "openai_model": "wire-model", "openai_api": api, **more}
    )


@pytest.fixture(params=["chat", "responses"])
async def wire(request: pytest.FixtureRequest, server: OpenAIServer) -> AsyncIterator[Wire]:
    model = build_engine("openai", settings_of(server, request.param), HashingEmbedder())
    yield Wire(model=model, api=request.param, text=text_chunks if request.param == "chat" else text_events)
    await model.close()


async def failure(wire: Wire) -> RapportError:
    with pytest.raises(RapportError) as caught:
        await wire.model.generate(HELLO, deadline=Deadline.after(30))
    assert "secret upstream text" not in str(caught.value)
    return caught.value


async def test_a_request_travels_in_the_words_of_its_api(server: OpenAIServer, wire: Wire) -> None:
    server.streams(wire.text("Five business days."))
    await wire.model.generate(
        asking(QUESTION, tools=(TOOL,), tool_choice=ToolChoice(mode=ToolMode.REQUIRED), top_p=0.5, max_tokens=99),
        deadline=Deadline.after(30),
    )
    (sent,) = server.requests
    assert (sent["model"], sent["stream"], sent["top_p"], sent["tool_choice"]) == ("wire-model", True, 0.5, "required")
    assert server.calls[0].path == ("/v1/chat/completions" if wire.api == "chat" else "/v1/responses")
    instructions = sent["messages"][0]["content"] if wire.api == "chat" else sent["instructions"]
    assert f"[2] Copy\n{PASSAGES[1].text}" in instructions
    assert sent["messages" if wire.api == "chat" else "input"][-1] == {"role": "user", "content": QUESTION}
    assert sent["max_tokens" if wire.api == "chat" else "max_output_tokens"] == 99
    if wire.api == "responses":
        assert sent["store"] is False, "the endpoint must not keep what customers say"


@pytest.mark.parametrize(
    ("set_to", "asked", "sent"),
    [(None, None, None), (None, 0.0, 0.0), (0.3, None, 0.3), (0.3, 0.0, 0.0)],
)
async def test_a_temperature_travels_only_when_somebody_wants_one(
    server: OpenAIServer, wire: Wire, set_to: float | None, asked: float | None, sent: float | None
) -> None:
    """OpenAI's reasoning models refuse any but their own."""
    server.streams(wire.text("Hello."))
    model = build_engine("openai", settings_of(server, wire.api, temperature=set_to), HashingEmbedder())
    await model.generate(replace(HELLO, temperature=asked), deadline=Deadline.after(30))
    await model.close()
    assert server.requests[0].get("temperature") == sent
    assert ("temperature" in server.requests[0]) is (sent is not None)


@pytest.mark.parametrize("strict", [True, False])
async def test_a_schema_is_as_strict_as_the_caller_meant_it(server: OpenAIServer, wire: Wire, strict: bool) -> None:
    server.streams(wire.text("{}"))
    schema = {"type": "object", "properties": {"stars": {"type": "integer"}}}
    request = replace(HELLO, response_schema=schema, strict=strict)
    await wire.model.generate(request, deadline=Deadline.after(30))
    (sent,) = server.requests
    form = sent["response_format"]["json_schema"] if wire.api == "chat" else sent["text"]["format"]
    assert (form["schema"], form["strict"]) == (schema, strict)


async def test_tokens_are_counted_by_the_endpoint(server: OpenAIServer, wire: Wire) -> None:
    server.streams(wire.text("One", " two"))
    usage = (await wire.model.generate(HELLO, deadline=Deadline.after(30))).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (7, 2, 3)


async def test_a_refusal_carries_the_tokens_that_are_billed_for_it(server: OpenAIServer, wire: Wire) -> None:
    server.streams(wire.text("NO_", "ANSWER"))
    with pytest.raises(ModelRefused) as caught:
        await wire.model.generate(asking(QUESTION), deadline=Deadline.after(30))
    assert caught.value.usage == Usage(prompt_tokens=7, completion_tokens=2, cached_tokens=3)


async def test_a_reply_that_breaks_off_after_its_count_carries_it(server: OpenAIServer, wire: Wire) -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 2}
    if wire.api == "chat":
        server.says(json.dumps({"choices": [], "usage": usage}), "{")
    else:
        usage = {"input_tokens": 7, "output_tokens": 2}
        response = {"error": {"code": "server_error"}, "usage": usage}
        server.says(json.dumps({"type": "response.failed", "response": response}))
    error = await failure(wire)
    assert isinstance(error, ModelReplyBroken)
    assert error.usage == Usage(prompt_tokens=7, completion_tokens=2)


async def test_a_filtered_reply_says_so(server: OpenAIServer, wire: Wire) -> None:
    server.streams(wire.text("I must", finish="content_filter"))
    reply = await wire.model.generate(HELLO, deadline=Deadline.after(30))
    assert reply.finish_reason is FinishReason.CONTENT_FILTER


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (401, "invalid_api_key", ModelAccessDenied),
        (403, None, ModelAccessDenied),
        (404, "model_not_found", ModelAccessDenied),
        (405, None, ModelAccessDenied),
        (429, "insufficient_quota", ModelAccessDenied),
        (429, "rate_limit_exceeded", ModelRateLimited),
        (400, "context_length_exceeded", ContextLengthExceeded),
        (413, None, ContextLengthExceeded),
        (400, "content_filter", ModelRefused),
        (400, None, UnsupportedByModel),
        (422, None, UnsupportedByModel),
        (500, None, ModelUnavailable),
        (503, None, ModelUnavailable),
        (529, None, ModelUnavailable),
    ],
)
async def test_a_status_is_typed_and_tried_once(
    server: OpenAIServer, wire: Wire, status: int, code: str | None, expected: type[RapportError]
) -> None:
    server.fails(status, code=code)
    assert type(await failure(wire)) is expected
    assert len(server.requests) == 1


async def test_a_window_is_recognised_by_vllm_s_words_too(server: OpenAIServer, wire: Wire) -> None:
    server.fails(400, message="This model's maximum context length is 1024 tokens. secret upstream text")
    assert type(await failure(wire)) is ContextLengthExceeded


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
    ],
)
async def test_how_long_to_wait_is_passed_on(
    server: OpenAIServer, wire: Wire, headers: dict[str, str], seconds: float | None
) -> None:
    server.fails(429, headers=headers)
    server.fails(503, headers=headers)
    assert [(await failure(wire)).retry_after_s for _ in range(2)] == [seconds, seconds]


async def test_an_endpoint_that_sends_us_elsewhere_is_not_followed(server: OpenAIServer, wire: Wire) -> None:
    server.answers(b"", status=307, headers={"location": f"{server.endpoint}/elsewhere"})
    assert type(await failure(wire)) is ModelAccessDenied
    assert len(server.calls) == 1


async def test_an_error_page_that_says_it_is_fine_is_a_broken_reply(server: OpenAIServer, wire: Wire) -> None:
    server.answers(b"<html>Bad gateway</html>", headers={"content-type": "text/html"})
    assert type(await failure(wire)) is ModelReplyBroken


@pytest.mark.parametrize(
    "garbage",
    [
        "{",
        "[" * 100_000,
        "[]",
        "7",
        "null",
        '"text"',
        "{}",
        '{"choices": 5}',
        '{"choices": [[]]}',
        '{"choices": [{"delta": "text"}]}',
        '{"choices": [{"delta": {"content": 5}}]}',
        '{"choices": [{"delta": {"tool_calls": [5]}}]}',
        '{"choices": [], "usage": "many"}',
        '{"choices": [], "usage": {"prompt_tokens": -1}}',
        '{"type": 5}',
        '{"type": "response.output_text.delta", "delta": 5}',
        '{"type": "response.completed", "response": "done"}',
        '{"type": "response.completed", "response": {"usage": 5}}',
        '{"type": "response.failed", "response": {"error": {"code": "server_error"}}}',
        '{"type": "response.failed", "response": {"error": null}}',
        '{"type": "error", "code": "server_error", "message": "secret upstream text"}',
        '{"error": {"message": "secret upstream text", "code": "server_error"}}',
    ],
)
async def test_garbage_and_errors_in_a_stream_are_a_broken_reply(
    server: OpenAIServer, wire: Wire, garbage: str
) -> None:
    begun = [json.dumps(event) for event in wire.text("Begun")[: 1 if wire.api == "chat" else 4]]
    server.says(*begun, garbage)
    deltas = wire.model.stream(HELLO, deadline=Deadline.after(30))
    assert (await anext(deltas)).text == "Begun"
    with pytest.raises(ModelReplyBroken) as caught:
        await anext(deltas)
    assert "secret upstream text" not in str(caught.value)


async def test_a_window_found_too_short_in_the_stream_is_named(server: OpenAIServer, wire: Wire) -> None:
    server.says('{"error": {"message": "secret upstream text", "code": "context_length_exceeded"}}')
    assert type(await failure(wire)) is ContextLengthExceeded


@pytest.mark.parametrize("cut", [False, True], ids=["closed politely", "cut in a chunk"])
@pytest.mark.parametrize("events", [0, 4])
async def test_half_a_stream_is_a_broken_reply(server: OpenAIServer, wire: Wire, cut: bool, events: int) -> None:
    begun = wire.text("Be", "gun")[:events] if wire.api == "responses" else wire.text("Be", "gun")[: events // 2]
    if cut:
        server.streams(begun, cut=True)
    else:
        server.says(*(json.dumps(event) for event in begun))
    with pytest.raises(ModelReplyBroken):
        await wire.model.generate(HELLO, deadline=Deadline.after(30))


async def test_no_endpoint_is_unavailable(server: OpenAIServer, wire: Wire) -> None:
    server.close()
    assert type(await failure(wire)) is ModelUnavailable
    with pytest.raises(ModelUnavailable):
        await wire.model.check_health()


@pytest.mark.parametrize("begun", [False, True], ids=["before the first token", "in the middle"])
async def test_a_silent_endpoint_meets_the_deadline_and_is_hung_up_on(
    server: OpenAIServer, wire: Wire, begun: bool
) -> None:
    server.streams(wire.text("Begun")[: 4 if begun and wire.api == "responses" else begun], then_hangs=True)
    with pytest.raises(DeadlineExceeded):
        await wire.model.generate(HELLO, deadline=Deadline.after(0.5))
    assert await asyncio.to_thread(server.hung_up.wait, 5)


async def test_closing_the_stream_hangs_up(server: OpenAIServer, wire: Wire) -> None:
    server.streams(wire.text("Begun")[: 1 if wire.api == "chat" else 4], then_hangs=True)
    deltas = wire.model.stream(HELLO, deadline=Deadline.after(30))
    assert (await anext(deltas)).text == "Begun"
    await deltas.aclose()  # type: ignore[attr-defined]  # an async generator, as every engine's stream is
    assert await asyncio.to_thread(server.hung_up.wait, 5)


@pytest.mark.parametrize("begun", [False, True], ids=["before the first token", "in the middle"])
async def test_a_cancelled_caller_hangs_up(server: OpenAIServer, wire: Wire, begun: bool) -> None:
    server.streams(wire.text("Begun")[: 4 if begun and wire.api == "responses" else begun], then_hangs=True)
    task = asyncio.create_task(wire.model.generate(HELLO, deadline=Deadline.after(30)))
    while not server.requests:
        await asyncio.to_thread(server.hung_up.wait, 0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(server.hung_up.wait, 5)


async def test_a_connection_left_half_way_does_not_spoil_the_next_call(server: OpenAIServer, wire: Wire) -> None:
    server.streams(wire.text("Be")[:1], cut=True)
    server.streams(wire.text("Here."))
    await failure(wire)
    assert (await streamed(wire.model, HELLO))[1].text == "Here."


async def test_responses_know_no_stop_sequences(server: OpenAIServer, wire: Wire) -> None:
    request = asking("Hi", passages=(), stop=("END",))
    if wire.api == "responses":
        with pytest.raises(UnsupportedByModel):
            await wire.model.generate(request, deadline=Deadline.after(30))
        return
    server.streams(wire.text("Here."))
    await wire.model.generate(request, deadline=Deadline.after(30))
    assert server.requests[0]["stop"] == ["END"]
