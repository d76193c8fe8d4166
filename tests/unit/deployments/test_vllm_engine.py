"""The engine `vllm` over a deployment that answers with documents as vLLM writes them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any, cast

import pytest

from deployments.handles import VLLMHandle
from deployments.vllm import VLLMEngine
from models.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    ModelReplyBroken,
    ModelUnavailable,
    UnknownModel,
    UnsupportedByModel,
)
from models.llm.types import ChatMessage, Delta, FinishReason, LanguageModelRequest, Role
from models.resilience.deadline import Deadline
from models.settings import VLLMSettings

REQUEST = LanguageModelRequest(messages=(ChatMessage(role=Role.USER, content="Write about rain."),), max_tokens=8)
USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 2,
    "total_tokens": 13,
    "prompt_tokens_details": {"cached_tokens": 8},
}


class Deployment:
    """Answers with these groups of documents; `bodies` were asked, `closed` counts ended iterators."""

    def __init__(self, *groups: list[str]) -> None:
        self.groups = groups
        self.bodies: list[Mapping[str, Any]] = []
        self.adapters: list[str] = []
        self.closed = 0

    async def complete(
        self, body: Mapping[str, Any], *, adapter: str = "", deadline: Deadline
    ) -> AsyncGenerator[list[str], None]:
        self.bodies.append(body)
        self.adapters.append(adapter)
        try:
            for group in self.groups:
                yield group
        finally:
            self.closed += 1


def engine_over(deployment: Deployment, **settings: Any) -> VLLMEngine:
    return VLLMEngine(cast(VLLMHandle, deployment), VLLMSettings(model="folder", **settings))


def chunk(delta: dict[str, Any], finish: str | None = None, usage: dict[str, Any] | None = None) -> str:
    choices = [] if usage else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return "data: " + json.dumps({"model": "vllm", "choices": choices, "usage": usage}) + "\n\n"


def failure(code: int, message: str, param: str | None = None) -> str:
    return json.dumps({"error": {"message": message, "type": "BadRequestError", "param": param, "code": code}})


STREAM = (
    [chunk({"role": "assistant", "content": ""})],
    [chunk({"content": "It "}), chunk({"content": "rains"})],
    [chunk({"content": "."}, "stop"), chunk({}, usage=USAGE), "data: [DONE]\n\n"],
)


async def test_a_group_of_tokens_is_one_delta() -> None:
    deployment = Deployment(*STREAM)
    deltas = [delta async for delta in engine_over(deployment).stream(REQUEST, deadline=Deadline.after(5))]
    assert [delta.text for delta in deltas[:-1]] == ["It rains", "."]
    reply = deltas[-1].reply
    assert reply is not None
    assert (reply.text, reply.engine, reply.finish_reason) == ("It rains.", "vllm", FinishReason.STOP)
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.cached_tokens) == (11, 2, 8)
    assert deployment.bodies[0]["stream"] is True


async def test_a_whole_reply_travels_as_one_document() -> None:
    message = {"role": "assistant", "content": "It rains.", "tool_calls": []}
    whole = {"model": "vllm", "choices": [{"index": 0, "message": message, "finish_reason": "length"}], "usage": USAGE}
    deployment = Deployment([json.dumps(whole)])
    reply = await engine_over(deployment).generate(REQUEST, deadline=Deadline.after(5))
    assert (reply.text, reply.finish_reason) == ("It rains.", FinishReason.LENGTH)
    assert deployment.bodies[0]["stream"] is False
    assert "stream_options" not in deployment.bodies[0]


@pytest.mark.parametrize(
    ("set_to", "asked", "sent"), [(None, None, 0.0), (0.3, None, 0.3), (0.3, 0.0, 0.0), (None, 1.0, 1.0)]
)
async def test_who_asks_for_no_temperature_gets_the_likeliest_words(
    set_to: float | None, asked: float | None, sent: float
) -> None:
    deployment = Deployment(*STREAM)
    engine = VLLMEngine(cast(VLLMHandle, deployment), VLLMSettings(model="folder"), temperature=set_to)
    await engine.generate(replace(REQUEST, temperature=asked), deadline=Deadline.after(5))
    assert deployment.bodies[0]["temperature"] == sent


async def test_leaving_the_stream_ends_the_call() -> None:
    deployment = Deployment(*STREAM)
    stream = cast(Any, engine_over(deployment).stream(REQUEST, deadline=Deadline.after(5)))
    assert await anext(stream) == Delta(text="It rains")
    await stream.aclose()
    assert deployment.closed == 1


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        (failure(400, "This model's maximum context length is 1024 tokens.", "input_tokens"), ContextLengthExceeded),
        (failure(400, "max_tokens=2000 cannot be greater than max_model_len=1024.", "max_tokens"), InvalidRequest),
        (failure(400, "Failed to transform json schema into a grammar: nonsense"), InvalidRequest),
        (failure(400, "something else"), UnsupportedByModel),
        (failure(404, "The model does not exist."), UnknownModel),
        (failure(500, "EngineCore died"), ModelUnavailable),
        ("<html>", ModelReplyBroken),
        (json.dumps({"choices": "none"}), ModelReplyBroken),
        (chunk({"content": "It rai"}), ModelReplyBroken),
    ],
)
async def test_every_failure_has_a_type(document: str, kind: type[Exception]) -> None:
    with pytest.raises(kind) as raised:
        await engine_over(Deployment([document])).generate(REQUEST, deadline=Deadline.after(5))
    assert "rain" not in str(raised.value)


async def test_an_adapter_is_named_as_rays_loader_knows_it() -> None:
    deployment = Deployment(*STREAM)
    request = LanguageModelRequest(messages=REQUEST.messages, model="vllm:polite")
    engine = engine_over(deployment, lora_path="s3://bucket/adapters")
    await engine.generate(request, deadline=Deadline.after(5))
    assert (deployment.adapters, deployment.bodies[0]["model"]) == (["vllm:polite"], "vllm:polite")
    with pytest.raises(UnknownModel):
        await engine_over(deployment).generate(request, deadline=Deadline.after(5))


@pytest.mark.parametrize("name", ["..", "a/../../b", ".hidden", "x" * 65, "a b"])
async def test_an_adapters_name_is_no_path(name: str) -> None:
    deployment = Deployment(*STREAM)
    request = LanguageModelRequest(messages=REQUEST.messages, model=f"vllm:{name}")
    with pytest.raises(UnknownModel):
        await engine_over(deployment, lora_path="s3://b/a").generate(request, deadline=Deadline.after(5))
    assert deployment.bodies == []
