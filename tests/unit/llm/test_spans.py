"""Spans by the conventions for generative AI; what was said is in them only when that is switched on."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import error_attributes, gen_ai_attributes
from opentelemetry.trace import SpanKind, StatusCode

from models.errors import ModelUnavailable
from models.llm import opentelemetry as conventions
from models.llm.opentelemetry import OpenTelemetryTracer
from models.llm.types import FinishReason, LanguageModelReply, ToolCall, ToolSpec, Usage
from models.resilience.deadline import Deadline
from tests.fakes.engines import DOLLAR, StagedEngine, chain_of, saying, text_of

ASKED = saying(
    "write to bob@example.com",
    max_tokens=77,
    temperature=0.5,
    seed=5,
    stop=("bob@example.com",),
    tools=(ToolSpec(name="mail", description="Sends mail.", parameters={"type": "object"}),),
    metadata={"request_id": "req_1"},
)
REPLY = LanguageModelReply(
    text="I wrote to [EMAIL_1].",
    engine="azure_openai",
    model="gpt-4o-mini-2024-07-18",
    finish_reason=FinishReason.TOOL_CALLS,
    tool_calls=(ToolCall(id="c1", name="mail", arguments='{"to": "[EMAIL_1]"}'),),
    usage=Usage(prompt_tokens=9, cached_tokens=4, completion_tokens=6),
)


class Traced:
    """A tracer and what it has exported."""

    def __init__(self, *, capture_content: bool = False) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = OpenTelemetryTracer(provider, capture_content=capture_content)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def attributes(self) -> dict[str, Any]:
        (span,) = self.spans
        return dict(span.attributes or {})


def deadline() -> Deadline:
    return Deadline.after(30)


def engine(**fields: Any) -> StagedEngine:
    return StagedEngine("azure_openai", external=True, **fields)


async def test_a_call_outside_is_a_client_span_named_after_its_model() -> None:
    traced = Traced()
    chain = chain_of(engine(reply=REPLY), tracer=traced.tracer, prices={"azure_openai": DOLLAR})
    await text_of(chain.stream(ASKED, deadline=deadline()))
    (span,) = traced.spans
    assert (span.name, span.kind, span.status.status_code) == (
        "chat azure_openai-1",
        SpanKind.CLIENT,
        StatusCode.UNSET,
    )
    assert traced.attributes() == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "azure.ai.openai",
        "gen_ai.request.model": "azure_openai-1",
        "gen_ai.request.max_tokens": 77,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.seed": 5,
        "gen_ai.output.type": "text",
        "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
        "gen_ai.response.finish_reasons": ("tool_calls",),
        "gen_ai.response.time_to_first_chunk": 0.0,
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.output_tokens": 6,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "rapport.request_id": "req_1",
        "rapport.cost_usd": 5 + 4 * 0.5 + 6,
    }


async def test_content_is_recorded_only_when_switched_on_and_as_the_model_saw_it() -> None:
    traced = Traced(capture_content=True)
    await chain_of(engine(reply=REPLY), tracer=traced.tracer).generate(ASKED, deadline=deadline())
    attributes = traced.attributes()
    assert json.loads(attributes["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "write to [EMAIL_1]"}]}
    ]
    (said,) = json.loads(attributes["gen_ai.output.messages"])
    assert said["finish_reason"] == "tool_calls"
    assert [part["type"] for part in said["parts"]] == ["text", "tool_call"]
    assert json.loads(attributes["gen_ai.tool.definitions"])[0]["name"] == "mail"
    # All but the stop sequences, which are no text of the conversation.
    del attributes["gen_ai.request.stop_sequences"]
    assert "bob" not in str(attributes)


async def test_a_call_inside_our_walls_is_an_internal_span() -> None:
    traced = Traced()
    await chain_of(StagedEngine("extractive"), tracer=traced.tracer).generate(ASKED, deadline=deadline())
    assert traced.spans[0].kind is SpanKind.INTERNAL


async def test_one_span_covers_all_tries_and_names_each_failure() -> None:
    traced = Traced()
    failing = engine(scenes=[[ModelUnavailable("the key is sk-1")] for _ in range(3)])
    chain = chain_of(failing, StagedEngine("extractive"), tracer=traced.tracer)
    await chain.generate(ASKED, deadline=deadline())
    failed, answered = traced.spans
    assert [dict(event.attributes or {}) for event in failed.events] == [{"error.type": "MODEL_UNAVAILABLE"}] * 3
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, None)
    assert (failed.attributes or {})["error.type"] == "MODEL_UNAVAILABLE"
    assert "sk-1" not in failed.to_json()
    assert answered.name == "chat extractive-1"


async def test_a_caller_that_goes_away_ends_the_span() -> None:
    traced = Traced()
    pieces = chain_of(engine(scenes=[["one", "two"]]), tracer=traced.tracer).stream(ASKED, deadline=deadline())
    await anext(pieces)
    await pieces.aclose()
    assert traced.attributes()["error.type"] == "cancelled"


async def test_a_schema_makes_the_output_json() -> None:
    traced = Traced()
    request = replace(ASKED, response_schema={"type": "object"})
    await chain_of(engine(), tracer=traced.tracer).generate(request, deadline=deadline())
    assert traced.attributes()["gen_ai.output.type"] == "json"


@pytest.mark.parametrize("name", [name for name in vars(conventions) if name.isupper() and not name.startswith("_")])
def test_the_names_are_those_of_the_conventions(name: str) -> None:
    value = str(getattr(conventions, name))
    if value.startswith("gen_ai."):
        assert value == getattr(gen_ai_attributes, f"GEN_AI_{name}", None) or value == "gen_ai.retrieval.documents"
    elif name == "ERROR_TYPE":
        assert value == error_attributes.ERROR_TYPE
    else:
        assert value.startswith("rapport.") or name in ("CHAT", "CANCELLED")
