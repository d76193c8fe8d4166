"""Calls of language models as OpenTelemetry spans, by the semantic conventions for generative AI.

The conventions are not stable yet, and their Python constants are deprecated while they move to a repository of their
own; so the names stand here (github.com/open-telemetry/semantic-conventions-genai, client inference span).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Self

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue

from models.errors import RapportError
from models.llm.types import ChatMessage, LanguageModelReply, LanguageModelRequest, Role, ToolCall

CHAT = "chat"
OPERATION_NAME = "gen_ai.operation.name"
PROVIDER_NAME = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE = "gen_ai.request.temperature"
REQUEST_TOP_P = "gen_ai.request.top_p"
REQUEST_SEED = "gen_ai.request.seed"
REQUEST_STOP_SEQUENCES = "gen_ai.request.stop_sequences"
OUTPUT_TYPE = "gen_ai.output.type"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
RESPONSE_TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"
USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
USAGE_CACHE_READ_INPUT_TOKENS = "gen_ai.usage.cache_read.input_tokens"
SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
TOOL_DEFINITIONS = "gen_ai.tool.definitions"
RETRIEVAL_DOCUMENTS = "gen_ai.retrieval.documents"
ERROR_TYPE = "error.type"
#: Ours: the conventions name neither.
REQUEST_ID = "rapport.request_id"
COST_USD = "rapport.cost_usd"
TRY_FAILED = "rapport.try_failed"

CANCELLED = "cancelled"
#: Names that the conventions give to engines of ours; another is called as we call it.
_PROVIDERS: Mapping[str, str] = {"azure_openai": "azure.ai.openai"}


class OpenTelemetryTracer:
    """A `models.llm.tracing.CallTracer`: a client span a call, an internal one for a model inside our walls.

    What is said to and by a model is recorded only with `capture_content`, and then as the model sees it.
    """

    def __init__(self, provider: TracerProvider, *, capture_content: bool = False) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("rapport.language_model")
        self._capture_content = capture_content

    @classmethod
    def exporting(cls, endpoint: str, *, capture_content: bool = False) -> Self:
        """Sends spans in batches to a collector's OTLP/HTTP address, such as `http://127.0.0.1:4318`.

        Headers, certificates and resource attributes come from OpenTelemetry's own variables. A collector that is away
        costs spans, and two seconds when we stop.
        """
        path = "/v1/traces"
        provider = TracerProvider(resource=Resource.create({"service.name": "rapport"}))
        exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/").removesuffix(path) + path, timeout=2.0)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider, capture_content=capture_content)

    def start(self, engine: str, model: str, request: LanguageModelRequest, *, external: bool) -> OpenTelemetryCallSpan:
        attributes: dict[str, AttributeValue] = {
            OPERATION_NAME: CHAT,
            PROVIDER_NAME: _PROVIDERS.get(engine, engine),
            REQUEST_MODEL: model,
            REQUEST_MAX_TOKENS: request.max_tokens,
            REQUEST_TOP_P: request.top_p,
            OUTPUT_TYPE: "text" if request.response_schema is None else "json",
        }
        if request.temperature is not None:
            attributes[REQUEST_TEMPERATURE] = request.temperature
        if request.seed is not None:
            attributes[REQUEST_SEED] = request.seed
        if request_id := request.metadata.get("request_id"):
            attributes[REQUEST_ID] = request_id
        if self._capture_content:
            attributes |= dict(_content(request))
        kind = SpanKind.CLIENT if external else SpanKind.INTERNAL
        span = self._tracer.start_span(f"{CHAT} {model}", kind=kind, attributes=attributes)
        return OpenTelemetryCallSpan(span, capture_content=self._capture_content)

    def close(self) -> None:
        self._provider.shutdown()


class OpenTelemetryCallSpan:
    """A `models.llm.tracing.CallSpan`."""

    def __init__(self, span: Span, *, capture_content: bool) -> None:
        self._span = span
        self._capture_content = capture_content

    def try_failed(self, error: BaseException) -> None:
        self._span.add_event(TRY_FAILED, {ERROR_TYPE: _error_type(error)})

    def first_piece(self, after_s: float) -> None:
        self._span.set_attribute(RESPONSE_TIME_TO_FIRST_CHUNK, after_s)

    def end(self, *, reply: LanguageModelReply | None = None, error: BaseException | None = None) -> None:
        if reply is not None:
            self._span.set_attributes(dict(_of_reply(reply)))
            if self._capture_content:
                self._span.set_attribute(OUTPUT_MESSAGES, _json([_output(reply)]))
        else:
            # Without a description: a foreign error's text may hold what was said.
            self._span.set_attribute(ERROR_TYPE, _error_type(error))
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


def _of_reply(reply: LanguageModelReply) -> Iterator[tuple[str, AttributeValue]]:
    yield RESPONSE_MODEL, reply.model
    yield RESPONSE_FINISH_REASONS, (str(reply.finish_reason),)
    yield USAGE_INPUT_TOKENS, reply.usage.prompt_tokens
    yield USAGE_OUTPUT_TOKENS, reply.usage.completion_tokens
    yield USAGE_CACHE_READ_INPUT_TOKENS, reply.usage.cached_tokens
    if reply.cost_usd is not None:
        yield COST_USD, reply.cost_usd


def _error_type(error: BaseException | None) -> str:
    """Of few values: a code of ours, or a class."""
    if isinstance(error, RapportError):
        return error.code
    return type(error).__name__ if isinstance(error, Exception) else CANCELLED


def _content(request: LanguageModelRequest) -> Iterator[tuple[str, AttributeValue]]:
    instructions = [_text(message.content) for message in request.messages if message.role is Role.SYSTEM]
    if instructions:
        yield SYSTEM_INSTRUCTIONS, _json(instructions)
    yield INPUT_MESSAGES, _json([_input(message) for message in request.messages if message.role is not Role.SYSTEM])
    if request.passages:
        documents = [{"id": p.passage_id, "score": p.score, "content": p.text} for p in request.passages]
        yield RETRIEVAL_DOCUMENTS, _json(documents)
    if request.stop:
        yield REQUEST_STOP_SEQUENCES, request.stop
    if request.tools:
        tools = [
            {"type": "function", "name": t.name, "description": t.description, "parameters": dict(t.parameters)}
            for t in request.tools
        ]
        yield TOOL_DEFINITIONS, _json(tools)


def _input(message: ChatMessage) -> dict[str, Any]:
    if message.role is Role.TOOL:
        part = {"type": "tool_call_response", "id": message.tool_call_id, "response": message.content}
        return {"role": str(message.role), "parts": [part]}
    return {"role": str(message.role), "parts": _parts(message.content, message.tool_calls)}


def _output(reply: LanguageModelReply) -> dict[str, Any]:
    parts = _parts(reply.text, reply.tool_calls)
    return {"role": str(Role.ASSISTANT), "parts": parts, "finish_reason": str(reply.finish_reason)}


def _parts(text: str, calls: tuple[ToolCall, ...]) -> list[dict[str, Any]]:
    spoken = [_text(text)] if text else []
    return spoken + [
        {"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments} for call in calls
    ]


def _text(content: str) -> dict[str, Any]:
    return {"type": "text", "content": content}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
