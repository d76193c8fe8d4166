"""What every engine of this process promises; those behind an endpoint over their real wire format."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import jsonschema
import pytest

from models.embedding.protocol import Embedder
from models.errors import ConfigurationError, DeadlineExceeded, InvalidRequest, ModelRefused
from models.llm.engines import build_engine, engine_of, names
from models.llm.protocol import Engine
from models.llm.types import ChatMessage, FinishReason, Role, ToolChoice, ToolSpec
from models.resilience.deadline import Deadline
from models.settings import LanguageModelSettings
from tests.fakes.embedder import HashingEmbedder
from tests.fakes.language_model import PASSAGES, QUESTION, asking, streamed
from tests.fakes.openai_server import Event, OpenAIServer, text_chunks, text_events, tool_chunks, tool_events

CITED = (
    "A refund takes five business",
    ' days [1 "within five business days after the return has',
    ' arrived"]. Nice weather [3 "made up words"].',
)
SCHEMA = {
    "type": "object",
    "properties": {"stars": {"type": "integer", "minimum": 1}, "why": {"type": "string"}},
    "required": ["stars", "why"],
    "additionalProperties": False,
}
TOOLS = (
    ToolSpec(name="cancel_order", description="Cancels an order", parameters={"type": "object"}),
    ToolSpec(
        name="find_order",
        description="Finds an order",
        parameters={"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]},
    ),
)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """An engine, and how to make it ready to answer the next question."""

    model: Engine
    says: Callable[..., object]
    calls: Callable[..., object]


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    running = OpenAIServer()
    yield running
    running.close()
    assert running.unused == 0, "the engine made fewer calls than the test scripted"


def settings_for(server: OpenAIServer, engine: str, api: str) -> LanguageModelSettings:
    return LanguageModelSettings.model_validate(
        {
            "engine": engine,
            "openai_api": api,
            "azure_api": api,
            "openai_base_url": server.base_url,
            "openai_model": "wire-model",
            "azure_endpoint": server.endpoint,
            "azure_deployment": "wire-model",
            "azure_api_key": "azure-key",
        }
    )


WIRE: dict[str, tuple[str, str]] = {
    "openai chat": ("openai", "chat"),
    "openai responses": ("openai", "responses"),
    "azure chat": ("azure_openai", "chat"),
    "azure responses": ("azure_openai", "responses"),
}

#: Engines with words of their own, tools and schemas; the extractive one only quotes.
GENERATIVE = ("scripted", *WIRE)


@pytest.fixture(params=["extractive", *GENERATIVE])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def embedder(request: pytest.FixtureRequest, name: str) -> Embedder:
    """The real one for the engine that needs it."""
    chosen: Embedder = request.getfixturevalue("minilm") if name == "extractive" else HashingEmbedder()
    return chosen


@pytest.fixture
async def stage(request: pytest.FixtureRequest, name: str, embedder: Embedder) -> AsyncIterator[Stage]:
    def nothing(*_: object, **__: object) -> None:
        return None

    if name not in WIRE:
        yield Stage(model=build_engine(name, LanguageModelSettings(), embedder), says=nothing, calls=nothing)
        return
    engine, api = WIRE[name]
    server: OpenAIServer = request.getfixturevalue("server")
    text: Callable[..., list[Event]] = text_chunks if api == "chat" else text_events
    tool: Callable[..., list[Event]] = tool_chunks if api == "chat" else tool_events
    model = build_engine(engine, settings_for(server, engine, api), embedder)
    yield Stage(
        model=model,
        says=lambda *pieces, **options: server.streams(text(*pieces, **options)),
        calls=lambda *pieces: server.streams(tool(*pieces)),
    )
    await model.close()


def test_every_engine_of_the_table_stands_in_this_suite() -> None:
    assert set(names()) == {"extractive", "scripted", "vllm", *(engine for engine, _ in WIRE.values())}


async def test_a_reply_names_its_engine_counts_tokens_and_cites_verbatim(stage: Stage) -> None:
    stage.says(*CITED)
    reply = await stage.model.generate(asking(QUESTION), deadline=Deadline.after(30))
    assert "five business days" in reply.text
    assert "[" not in reply.text
    assert reply.engine == stage.model.engine
    assert reply.finish_reason is FinishReason.STOP
    assert reply.usage.prompt_tokens > 0
    assert reply.usage.completion_tokens > 0
    texts = {p.passage_id: p.text for p in PASSAGES}
    assert reply.citations
    assert all(citation.quote in texts[citation.passage_id] for citation in reply.citations)
    assert {citation.document_id for citation in reply.citations} == {"refunds"}


async def test_streamed_pieces_joined_are_the_reply_s_text(stage: Stage) -> None:
    stage.says(*CITED)
    pieces, reply = await streamed(stage.model, asking(QUESTION))
    stage.says(*CITED)
    assert "".join(pieces) == reply.text
    assert reply == await stage.model.generate(asking(QUESTION), deadline=Deadline.after(30))


async def test_passages_without_the_answer_are_refused_and_nothing_is_shown(stage: Stage) -> None:
    question = asking("How tall is Mount Everest?", model="scripted:text=NO_ANSWER")
    stage.says("NO_", "ANSWER")
    with pytest.raises(ModelRefused):
        await anext(stage.model.stream(question, deadline=Deadline.after(30)))


async def test_a_spent_deadline_is_named(stage: Stage) -> None:
    with pytest.raises(DeadlineExceeded):
        await stage.model.generate(asking("Never asked before: refunds?"), deadline=Deadline.after(0))


async def test_a_request_without_messages_is_the_caller_s_mistake(stage: Stage) -> None:
    with pytest.raises(InvalidRequest):
        await stage.model.generate(asking("", messages=()), deadline=Deadline.after(30))


async def test_half_of_a_character_breaks_nothing(stage: Stage) -> None:
    stage.says("A refund takes five business days \ud83d", "\ude00 and \ud800 more.")
    pieces, reply = await streamed(stage.model, asking(f"{QUESTION} \ud83d"))
    assert "".join(pieces) == reply.text
    reply.text.encode()


async def test_a_cut_reply_says_so(stage: Stage) -> None:
    stage.says("A refund", finish="length")
    reply = await stage.model.generate(asking(QUESTION, max_tokens=2), deadline=Deadline.after(30))
    assert reply.finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize("name", GENERATIVE, indirect=True)
async def test_text_without_passages_is_left_as_it_is(stage: Stage) -> None:
    stage.says("See [1] ", "and NO_ANSWER")
    question = asking("Hello", passages=(), model="scripted:text=See%20[1]%20and%20NO_ANSWER")
    pieces, reply = await streamed(stage.model, question)
    assert "".join(pieces) == reply.text == "See [1] and NO_ANSWER"
    assert reply.citations == ()


@pytest.mark.parametrize("name", GENERATIVE, indirect=True)
async def test_a_demanded_tool_is_called_with_arguments_that_parse(stage: Stage) -> None:
    stage.calls("find_order", '{"order', '": "A1"}')
    demand = asking("Where is A1?", passages=(), tools=TOOLS, tool_choice=ToolChoice(name="find_order"))
    pieces, reply = await streamed(stage.model, demand)
    (call,) = reply.tool_calls
    assert call.id
    assert call.name == "find_order"
    jsonschema.validate(json.loads(call.arguments), TOOLS[1].parameters)
    assert reply.finish_reason is FinishReason.TOOL_CALLS
    assert "".join(pieces) == reply.text == ""
    stage.says("It is on its way.")
    answered = asking(
        "",
        passages=(),
        tools=TOOLS,
        messages=(
            *demand.messages,
            ChatMessage(role=Role.ASSISTANT, content="", tool_calls=reply.tool_calls),
            ChatMessage(role=Role.TOOL, content='{"state": "sent"}', tool_call_id=call.id),
        ),
    )
    after = await stage.model.generate(answered, deadline=Deadline.after(30))
    assert after.text
    assert after.tool_calls == ()


@pytest.mark.parametrize("name", GENERATIVE, indirect=True)
async def test_a_schema_is_filled_and_not_taken_for_citations(stage: Stage) -> None:
    stage.says('{"stars": 4, "why"', ': "the fast [1] refund"}')
    request = asking(QUESTION, response_schema=SCHEMA)
    pieces, reply = await streamed(stage.model, request)
    assert "".join(pieces) == reply.text
    jsonschema.validate(json.loads(reply.text), SCHEMA)


async def test_health_is_answered(stage: Stage) -> None:
    await stage.model.check_health()


# Building from settings


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"engine": "openai"}, "OPENAI_API_KEY"),
        ({"engine": "parrot"}, "azure_openai, extractive, openai, scripted, vllm"),
        ({"engine": "vllm"}, "deployment of the graph"),
        ({"engine": "vllm:ADAPTER"}, "deployment of the graph"),
        ({"engine": "parrot:tokens=3"}, "parrot"),
        ({"engine": "scripted:tokens=many"}, "tokens"),
        ({"engine": "azure_openai"}, "AZURE_OPENAI_ENDPOINT"),
        ({"engine": "azure_openai", "azure_endpoint": "https://r.openai.azure.com"}, "AZURE_DEPLOYMENT"),
        (
            {"engine": "azure_openai", "azure_endpoint": "https://r.openai.azure.com", "azure_deployment": "d"},
            "AZURE_OPENAI_API_KEY",
        ),
        (
            {"engine": "azure_openai", "azure_endpoint": "http://far.example", "azure_deployment": "d"},
            "https",
        ),
    ],
)
def test_a_misconfigured_engine_says_what_to_mend(settings: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        build_engine(settings["engine"], LanguageModelSettings.model_validate(settings), HashingEmbedder())


def test_a_variant_is_part_of_the_name_and_not_of_the_engine() -> None:
    assert engine_of("scripted:tokens=3,text=a:b") == "scripted"


def test_an_engine_built_by_name_has_the_variant_of_that_name() -> None:
    settings = LanguageModelSettings(engine="extractive", fallbacks=("scripted:external=1",))
    assert build_engine("scripted:external=1", settings, HashingEmbedder()).capabilities.external
    assert not build_engine("scripted", settings, HashingEmbedder()).capabilities.external
