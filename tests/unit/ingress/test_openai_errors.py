"""What strangers and mistakes send to `/v1`: each answer is OpenAI's error object, under OpenAI's status, and typed."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import openai
import orjson
import pytest

from models.errors import (
    BudgetExhausted,
    ContextLengthExceeded,
    DeadlineExceeded,
    ModelAccessDenied,
    ModelRateLimited,
    ModelRefused,
    ModelReplyBroken,
    ModelUnavailable,
    Overloaded,
    RapportError,
    UnknownModel,
    UnsupportedByModel,
)
from tests.fakes.ingress import World
from tests.unit.ingress.openai_world import HELLO, KEY, openai_world, support_desk

CHAT = "/v1/chat/completions"
GOOD: dict[str, Any] = {"model": "scripted", "messages": HELLO}
CALLED: Any = {
    "role": "assistant",
    "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}
ANSWERED: Any = {"role": "tool", "tool_call_id": "call_1", "content": "x"}
TOOL: Any = {"type": "function", "function": {"name": "f"}}


@pytest.fixture
def world() -> World:
    return openai_world()


def failure(response: httpx.Response, status: int, code: str, param: str | None = None) -> dict[str, Any]:
    """Assert OpenAI's error object of this status, code and parameter, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    document = response.json()
    assert set(document) == {"error"}
    error: dict[str, Any] = document["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param), error
    assert error["message"]
    return error


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"messages": []}, "invalid_request", "messages"),
        ({"messages": "hello"}, "invalid_request", "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "invalid_request", "messages[0].role"),
        ({"messages": [{"role": "function", "content": "x"}]}, "invalid_request", "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "invalid_request", "messages[0].content"),
        ({"messages": [{"role": "user", "content": " \n"}]}, "invalid_request", "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "invalid_request", "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "mood": 1}]}, "unknown_parameter", "messages[0].mood"),
        (
            {"messages": [{"role": "user", "content": "x", "tool_calls": []}]},
            "invalid_request",
            "messages[0].tool_calls",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]},
            "unsupported_parameter",
            "messages[0].content[0].type",
        ),
        ({"messages": [{"role": "tool", "content": "x"}]}, "invalid_request", "messages[0].tool_call_id"),
        ({"messages": [ANSWERED]}, "invalid_request", "messages[0].tool_call_id"),
        ({"messages": [*HELLO, CALLED]}, "invalid_request", "messages[1]"),
        ({"messages": [*HELLO, CALLED, *HELLO]}, "invalid_request", "messages[2]"),
        ({"messages": [*HELLO, CALLED, ANSWERED, ANSWERED]}, "invalid_request", "messages[3].tool_call_id"),
        ({"n": 0}, "invalid_request", "n"),
        ({"n": 9}, "invalid_request", "n"),
        ({"n": 1.5}, "invalid_request", "n"),
        ({"max_tokens": 0}, "invalid_request", "max_tokens"),
        ({"max_tokens": 10**9}, "invalid_request", "max_tokens"),
        ({"max_completion_tokens": -1}, "invalid_request", "max_completion_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "invalid_request", "max_tokens"),
        ({"temperature": 2.1}, "invalid_request", "temperature"),
        ({"temperature": "0.5"}, "invalid_request", "temperature"),
        ({"top_p": 0}, "invalid_request", "top_p"),
        ({"stop": ["a"] * 5}, "invalid_request", "stop"),
        ({"stop": ""}, "invalid_request", "stop[0]"),
        ({"seed": 2**63}, "invalid_request", "seed"),
        ({"stream": "yes"}, "invalid_request", "stream"),
        ({"stream_options": {"include_usage": True}}, "invalid_request", "stream_options"),
        ({"metadata": {"a": 1}}, "invalid_request", "metadata.a"),
        ({"best_of": 2}, "unknown_parameter", "best_of"),
        ({"logprobs": True}, "unsupported_parameter", "logprobs"),
        ({"top_logprobs": 2}, "unsupported_parameter", "top_logprobs"),
        ({"logit_bias": {"5": 1}}, "unsupported_parameter", "logit_bias"),
        ({"presence_penalty": 0.5}, "unsupported_parameter", "presence_penalty"),
        ({"modalities": ["text", "audio"]}, "unsupported_parameter", "modalities"),
        ({"audio": {"voice": "x", "format": "mp3"}}, "unsupported_parameter", "audio"),
        ({"reasoning_effort": "high"}, "unsupported_parameter", "reasoning_effort"),
        ({"functions": [{"name": "f"}]}, "unsupported_parameter", "functions"),
        ({"store": True}, "unsupported_parameter", "store"),
        ({"service_tier": "priority"}, "unsupported_parameter", "service_tier"),
        ({"tools": [{"type": "custom"}]}, "invalid_request", "tools[0].type"),
        ({"tools": [TOOL, TOOL]}, "invalid_request", "tools"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "invalid_request", "tools[0].function.name"),
        ({"tool_choice": "required"}, "invalid_request", "tool_choice"),
        ({"tool_choice": "maybe"}, "invalid_request", "tool_choice.type"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
            "invalid_request",
            "tool_choice.function.name",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "objekt"}}}]},
            "invalid_request",
            "tools[0].function.parameters.type",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]},
            "invalid_request",
            "tools[0].function.parameters.type",
        ),
        ({"response_format": {"type": "xml"}}, "invalid_request", "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "invalid_request", "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": 5}}}},
            "invalid_json_schema",
            "response_format.json_schema.schema.type",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {"$ref": "http://127.0.0.1/schema"}},
                }
            },
            "invalid_json_schema",
            "response_format.json_schema.schema",
        ),
    ],
)
async def test_a_field_that_cannot_be_honoured_is_a_400_that_names_it(
    world: World, change: dict[str, Any], code: str, param: str
) -> None:
    async with world.client() as http:
        error = failure(await http.post(CHAT, json=GOOD | change), 400, code, param)
    assert error["type"] == "invalid_request_error"
    assert world.language_model.requests == []


async def test_a_missing_field_is_named(world: World) -> None:
    async with world.client() as http:
        failure(await http.post(CHAT, json={"messages": HELLO}), 400, "missing_required_parameter", "model")


async def test_an_answer_never_repeats_what_was_sent(world: World) -> None:
    secret = "ann@example.org"
    bad = {"role": secret, "content": secret}
    async with world.client() as http:
        for body in (GOOD | {"messages": [bad] * 9}, GOOD | {"temperature": secret}, GOOD | {"model": secret}):
            response = await http.post(CHAT, json=body)
            assert response.status_code in (400, 404)
            assert secret not in response.text


async def test_what_never_reaches_a_route_answers_in_openais_shape_too(world: World) -> None:
    json = {"Content-Type": "application/json"}
    async with world.client() as http:
        failure(await http.post(CHAT, content=b"{", headers=json), 400, "malformed_body")
        failure(await http.post(CHAT, content=b'{"model": NaN}', headers=json), 400, "malformed_body")
        failure(await http.post(CHAT, content=b"[]", headers=json), 400, "invalid_request")
        failure(
            await http.post(CHAT, content=b"{}", headers={"Content-Type": "text/plain"}), 415, "unsupported_media_type"
        )
        failure(await http.get("/v1/nope"), 404, "unknown_url")
        failure(await http.get("/v1"), 404, "unknown_url")
        refused = await http.get(CHAT)
        failure(refused, 405, "method_not_supported")
        assert refused.headers["allow"] == "POST"
        elsewhere = await http.get("/v1x/nope")
        assert elsewhere.headers["content-type"] == "application/problem+json"


async def test_a_prompt_of_ten_megabytes_is_413_and_a_long_one_passes(world: World) -> None:
    async with world.client() as http:
        for size, status in ((1_000_000, 200), (10_000_000, 413)):
            sent = orjson.dumps(GOOD | {"messages": [{"role": "user", "content": "x" * size}]})
            response = await http.post(CHAT, content=sent, headers={"Content-Type": "application/json"})
            assert response.status_code == status
        failure(response, 413, "body_too_large")
    async with world.openai() as client:
        with pytest.raises(openai.APIStatusError) as raised:
            await client.chat.completions.create(
                model="scripted", messages=[{"role": "user", "content": "x" * 10_000_000}]
            )
    assert (raised.value.status_code, raised.value.code) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("raised", "caught", "status", "code", "repeat"),
    [
        (UnknownModel("x"), openai.NotFoundError, 404, "model_not_found", False),
        (ContextLengthExceeded("x"), openai.BadRequestError, 400, "context_length_exceeded", False),
        (UnsupportedByModel("x"), openai.BadRequestError, 400, "unsupported_by_model", False),
        (ModelRefused("x"), openai.BadRequestError, 400, "model_refused", False),
        (BudgetExhausted("x"), openai.RateLimitError, 429, "insufficient_quota", False),
        (ModelRateLimited("x").with_retry_after(7), openai.InternalServerError, 503, "model_rate_limited", True),
        (ModelUnavailable("x"), openai.InternalServerError, 503, "model_unavailable", True),
        (ModelAccessDenied("x"), openai.InternalServerError, 502, "model_access_denied", False),
        (ModelReplyBroken("x"), openai.InternalServerError, 502, "model_reply_broken", True),
        (Overloaded("x"), openai.InternalServerError, 503, "overloaded", True),
        (DeadlineExceeded("x"), openai.InternalServerError, 504, "deadline_exceeded", True),
        (RuntimeError("hunter2"), openai.InternalServerError, 500, "internal", False),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_model_fails_at_is_the_clients_exception_for_it(
    world: World,
    raised: Exception,
    caught: type[openai.APIStatusError],
    status: int,
    code: str,
    repeat: bool,
    stream: bool,
) -> None:
    world.language_model.fails = raised
    async with world.openai() as client:
        with pytest.raises(caught) as met:
            await client.chat.completions.create(model="scripted", messages=HELLO, stream=stream)
    assert (met.value.status_code, met.value.code) == (status, code)
    assert met.value.request_id
    headers = met.value.response.headers
    assert headers["x-should-retry"] == str(repeat).lower()
    assert ("retry-after" in headers) == (repeat and status in (429, 503))
    assert "hunter2" not in met.value.response.text
    if isinstance(raised, RapportError) and raised.retry_after_s:
        assert headers["retry-after"] == "7"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("POST", "/v1/embeddings")]
)
async def test_a_query_parameter_is_refused_and_not_passed_over(world: World, method: str, path: str) -> None:
    async with world.client() as client:
        answer = await client.request(
            method, f"{path}?n=2", json={"model": "scripted", "messages": HELLO, "input": "x"}
        )
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unknown_parameter")
    assert answer.json()["error"]["param"] == "query.n"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_reads_what_may_be_told_of_a_model_that_is_away(world: World, stream: bool) -> None:
    told = "The language model scripted does not answer (MODEL_UNAVAILABLE)."
    world.language_model.fails = ModelUnavailable("the cause stays in the log").with_detail(told)
    async with world.openai() as client:
        with pytest.raises(openai.InternalServerError, match="language model scripted does not answer") as met:
            await client.chat.completions.create(model="scripted", messages=HELLO, stream=stream)
    assert "stays in the log" not in met.value.response.text


@pytest.mark.parametrize("model", ["gpt-4o", "all-minilm-l6-v2", "openai", "openai:x", "Scripted"])
async def test_an_unknown_model_is_404_and_says_which_there_are(world: World, model: str) -> None:
    async with world.openai() as client:
        with pytest.raises(openai.NotFoundError, match="rapport, scripted, extractive") as raised:
            await client.chat.completions.create(model=model, messages=HELLO)
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")


async def test_keys_and_limits_hold_as_everywhere() -> None:
    world = openai_world(keys=support_desk("support", requests_per_minute=2))
    async with world.openai(key="wrong") as client:
        with pytest.raises(openai.AuthenticationError) as unknown:
            await client.models.list()
    assert unknown.value.code == "invalid_api_key"
    assert unknown.value.response.headers["www-authenticate"].startswith("Bearer")
    async with world.openai(key=KEY) as client:
        for _ in range(2):
            await client.models.list()
        with pytest.raises(openai.RateLimitError) as spent:
            await client.models.list()
    assert (spent.value.code, spent.value.type) == ("rate_limit_exceeded", "requests")
    assert spent.value.response.headers["retry-after"] == "13"


async def test_without_configured_keys_any_key_is_as_good_as_none_on_this_machine_only() -> None:
    world = openai_world()
    async with world.openai(key="whatever") as client:
        assert (await client.models.list()).data
    async with world.openai(key="whatever", host="203.0.113.9") as stranger:
        with pytest.raises(openai.AuthenticationError):
            await stranger.models.list()


async def test_overload_is_503_with_a_time_to_come_back() -> None:
    world = openai_world(max_concurrent=1)
    world.language_model.gate = asyncio.Event()
    async with world.openai() as client:
        running = asyncio.create_task(client.chat.completions.create(model="scripted", messages=HELLO))
        await world.language_model.started.acquire()
        with pytest.raises(openai.InternalServerError) as refused:
            await client.chat.completions.create(model="scripted", messages=HELLO)
        assert (refused.value.status_code, refused.value.code) == (503, "overloaded")
        assert refused.value.response.headers["retry-after"] == "1"
        world.language_model.gate.set()
        assert (await running).choices[0].message.content == "hello big world"


async def test_log_and_metrics_hold_the_route_and_nothing_of_the_talk(world: World) -> None:
    async with world.openai() as client:
        await client.chat.completions.create(model="scripted", messages=HELLO, user="customer_123")
        await client.models.retrieve("rapport")
    routes = {labels["route"] for name, labels in world.metrics.counted if name == "http_requests_total"}
    assert routes == {CHAT, "/v1/models/{model_id:path}"}
    assert "hello" not in str(world.metrics)
