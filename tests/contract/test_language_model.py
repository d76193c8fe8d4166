"""What every language model promises: the extractive engine on MiniLM, the OpenAI engine over its real wire format."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import pytest

from models.embedding.sentence_transformers import SentenceTransformerEmbedder
from models.errors import (
    ConfigurationError,
    ContextLengthExceeded,
    DeadlineExceeded,
    ModelRefused,
    ModelUnavailable,
    UnsupportedByModel,
)
from models.llm.engines import build_language_model, engines
from models.llm.extractive import ExtractiveLanguageModel
from models.llm.openai import OpenAILanguageModel, is_outage, is_transient
from models.llm.protocol import LanguageModel
from models.llm.types import (
    ChatMessage,
    FinishReason,
    LanguageModelReply,
    LanguageModelRequest,
    Role,
    SourcePassage,
    ToolSpec,
)
from models.resilience.breaker import CircuitBreaker
from models.resilience.deadline import Deadline
from models.resilience.retry import RetryPolicy
from models.settings import LanguageModelSettings
from tests.fakes.openai_server import OpenAIServer, text_chunks, tool_chunks


def passage(name: str, text: str, score: float = 0.0) -> SourcePassage:
    return SourcePassage(
        passage_id=f"{name}#0", document_id=name, title=name.capitalize(), version="1", text=text, score=score
    )


PASSAGES = (
    passage(
        "refunds",
        "## How long a refund takes\n\nMedley sends a product refund within five business days after the return has "
        "arrived. It is paid to the card that was used. Your bank may need a few more days.\n\n"
        "## Who can ask\n\nEvery customer can ask for a refund in the chat.",
    ),
    passage("copy", "Medley sends a product refund within five business days after the return has arrived."),
    passage(
        "invites",
        "To invite a colleague:\n\n1. Open **Settings** and choose Team.\n2. Select Invite.\n3. Enter the address.\n",
    ),
    passage(
        "calendar", "The calendar shows every appointment of the day.\n\n| Day | Hours |\n|---|---|\n| Monday | 9 |"
    ),
)
SCRIPT = (
    "A refund takes five business",
    ' days [1 "within five business days after the return has',
    ' arrived"]. Nice weather [3 "made up words"].',
)


def asking(question: str, **options: object) -> LanguageModelRequest:
    fields: dict[str, object] = {
        "messages": (ChatMessage(role=Role.USER, content=question),),
        "passages": PASSAGES,
        **options,
    }
    return LanguageModelRequest(**fields)  # type: ignore[arg-type]  # fields of the request by name


@dataclass
class Stage:
    """An engine, and how to make it ready to answer the next question."""

    model: LanguageModel
    prepare: Callable[[], object]
    prepare_refusal: Callable[[], object]


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    running = OpenAIServer()
    yield running
    running.close()
    assert running.unused == 0, "the engine made fewer calls than the test scripted"


@pytest.fixture
async def openai_model(server: OpenAIServer) -> AsyncIterator[OpenAILanguageModel]:
    async def at_once(_: float) -> None:
        return None

    retry = RetryPolicy(retryable=is_transient, random=random.Random(1), sleep=at_once)
    model = OpenAILanguageModel("wire-model", api_key="k", base_url=server.base_url, retry=retry)
    yield model
    await model.close()


@pytest.fixture
def extractive(minilm: SentenceTransformerEmbedder) -> ExtractiveLanguageModel:
    return ExtractiveLanguageModel(minilm)


@pytest.fixture(params=["extractive", "openai"])
def stage(request: pytest.FixtureRequest) -> Stage:
    if request.param == "extractive":
        return Stage(request.getfixturevalue("extractive"), lambda: None, lambda: None)
    server: OpenAIServer = request.getfixturevalue("server")
    model: OpenAILanguageModel = request.getfixturevalue("openai_model")
    return Stage(
        model,
        lambda: server.streams(text_chunks(*SCRIPT)),
        lambda: server.streams(text_chunks("NO_", "ANSWER")),
    )


QUESTION = "How long does a refund take?"


def test_every_engine_of_the_table_stands_in_this_suite() -> None:
    assert set(engines) == {"extractive", "openai"}


async def test_a_reply_names_its_engine_and_cites_verbatim(stage: Stage) -> None:
    stage.prepare()
    reply = await stage.model.generate(asking(QUESTION), deadline=Deadline.after(30))
    assert "five business days" in reply.text
    assert reply.engine == stage.model.engine
    assert reply.finish_reason is FinishReason.STOP
    assert reply.usage.prompt_tokens > 0
    assert reply.usage.completion_tokens > 0
    texts = {p.passage_id: p.text for p in PASSAGES}
    assert reply.citations
    assert all(citation.quote in texts[citation.passage_id] for citation in reply.citations)
    assert {citation.document_id for citation in reply.citations} == {"refunds"}


async def test_streamed_pieces_joined_are_the_reply_s_text(stage: Stage) -> None:
    stage.prepare()
    pieces, reply = await streamed(stage.model, asking(QUESTION))
    stage.prepare()
    assert "".join(pieces) == reply.text
    assert reply == await stage.model.generate(asking(QUESTION), deadline=Deadline.after(30))


async def test_passages_without_the_answer_are_refused_and_nothing_is_shown(stage: Stage) -> None:
    stage.prepare_refusal()
    with pytest.raises(ModelRefused):
        await anext(stage.model.stream(asking("How tall is Mount Everest?"), deadline=Deadline.after(30)))


async def test_a_spent_deadline_is_named(stage: Stage) -> None:
    with pytest.raises(DeadlineExceeded):
        await stage.model.generate(asking("Never asked before: refunds?"), deadline=Deadline.after(0))


async def test_health_is_answered(stage: Stage) -> None:
    await stage.model.check_health()


async def streamed(model: LanguageModel, request: LanguageModelRequest) -> tuple[list[str], LanguageModelReply]:
    deltas = [delta async for delta in model.stream(request, deadline=Deadline.after(30))]
    reply = deltas[-1].reply
    assert reply is not None
    assert all(delta.reply is None for delta in deltas[:-1])
    return [delta.text for delta in deltas], reply


# The extractive engine


async def test_the_same_request_always_gets_the_same_reply(
    extractive: ExtractiveLanguageModel, minilm: SentenceTransformerEmbedder
) -> None:
    first = await extractive.generate(asking(QUESTION), deadline=Deadline.after(30))
    fresh_embedder = SentenceTransformerEmbedder(max_batch=3, threads=1)
    fresh = ExtractiveLanguageModel(fresh_embedder)
    noise = asyncio.gather(*(fresh_embedder.embed([f"noise {n} " * n]) for n in range(1, 12)))
    assert await fresh.generate(asking(QUESTION), deadline=Deadline.after(60)) == first
    await noise
    await fresh_embedder.close()


async def test_what_several_passages_say_is_said_once(extractive: ExtractiveLanguageModel) -> None:
    reply = await extractive.generate(asking(QUESTION), deadline=Deadline.after(30))
    assert reply.text.count("five business days") == 1
    assert 1 <= len(reply.citations) <= 4


async def test_sentences_keep_the_order_of_the_passages(extractive: ExtractiveLanguageModel) -> None:
    reply = await extractive.generate(
        asking("How long does a refund take and where is it paid?"), deadline=Deadline.after(30)
    )
    places = [PASSAGES[0].text.find(citation.quote) for citation in reply.citations]
    assert places == sorted(places)


async def test_a_sentence_that_leans_on_another_brings_it_along(extractive: ExtractiveLanguageModel) -> None:
    reply = await extractive.generate(asking("To which card is it paid?"), deadline=Deadline.after(30))
    assert reply.text.startswith("Medley sends a product refund")
    assert "It is paid to the card that was used." in reply.text


async def test_steps_are_given_whole_in_order_and_as_plain_text(extractive: ExtractiveLanguageModel) -> None:
    reply = await extractive.generate(asking("How do I invite a colleague?"), deadline=Deadline.after(30))
    assert reply.text == (
        "To invite a colleague:\n1. Open Settings and choose Team.\n2. Select Invite.\n3. Enter the address."
    )
    assert [citation.quote for citation in reply.citations][1] == "Open **Settings** and choose Team."


async def test_a_budget_of_tokens_is_kept_and_said(extractive: ExtractiveLanguageModel) -> None:
    whole = await extractive.generate(asking("How do I invite a colleague?"), deadline=Deadline.after(30))
    short = await extractive.generate(
        asking("How do I invite a colleague?", max_tokens=12), deadline=Deadline.after(30)
    )
    tiny = await extractive.generate(asking(QUESTION, max_tokens=3), deadline=Deadline.after(30))
    assert whole.text.startswith(short.text)
    assert (short.finish_reason, tiny.finish_reason) == (FinishReason.LENGTH, FinishReason.LENGTH)
    assert short.usage.completion_tokens <= 14  # the marks of a list are not counted against the budget
    assert tiny.text == "Medley sends a"


@pytest.mark.parametrize(
    "request_",
    [
        asking(QUESTION, passages=()),
        asking(QUESTION, tools=(ToolSpec(name="t", description="d", parameters={}),)),
        asking(QUESTION, response_schema={"type": "object"}),
        asking("  "),
        asking(QUESTION, messages=()),
    ],
    ids=["no passages", "tools", "schema", "empty question", "no message"],
)
async def test_what_it_cannot_do_is_said(extractive: ExtractiveLanguageModel, request_: LanguageModelRequest) -> None:
    with pytest.raises(UnsupportedByModel):
        await extractive.generate(request_, deadline=Deadline.after(30))


async def test_passages_without_a_sentence_are_refused(extractive: ExtractiveLanguageModel) -> None:
    odd = (passage("a", "# Only a heading"), passage("b", "| a | table |"), passage("c", ""))
    with pytest.raises(ModelRefused):
        await extractive.generate(asking(QUESTION, passages=odd), deadline=Deadline.after(30))


# The OpenAI engine over the wire


async def test_passages_travel_as_numbered_sources_and_marks_are_not_shown(
    server: OpenAIServer, openai_model: OpenAILanguageModel
) -> None:
    server.streams(text_chunks(*SCRIPT))
    reply = await openai_model.generate(asking(QUESTION), deadline=Deadline.after(30))
    assert reply.text == "A refund takes five business days. Nice weather."
    (sent,) = server.requests
    assert sent["messages"][0]["role"] == "system"
    assert f"[2] Copy\n{PASSAGES[1].text}" in sent["messages"][0]["content"]
    assert sent["messages"][-1] == {"role": "user", "content": QUESTION}
    assert sent["max_tokens"] == 512


async def test_text_without_passages_is_left_as_it_is(server: OpenAIServer, openai_model: OpenAILanguageModel) -> None:
    server.streams(text_chunks("See [1] ", "and NO_ANSWER"))
    pieces, reply = await streamed(openai_model, asking("Hello", passages=()))
    assert "".join(pieces) == reply.text == "See [1] and NO_ANSWER"
    assert reply.model == "wire-model"


async def test_tool_calls_are_put_together(server: OpenAIServer, openai_model: OpenAILanguageModel) -> None:
    server.streams(tool_chunks("find_order", '{"order', '": "A1"}'))
    tool = ToolSpec(name="find_order", description="Finds an order", parameters={"type": "object"})
    reply = await openai_model.generate(asking("Where is A1?", passages=(), tools=(tool,)), deadline=Deadline.after(30))
    (call,) = reply.tool_calls
    assert (call.id, call.name, call.arguments) == ("call_1", "find_order", '{"order": "A1"}')
    assert reply.finish_reason is FinishReason.TOOL_CALLS
    assert server.requests[0]["tools"][0]["function"]["name"] == "find_order"


async def test_a_transient_failure_before_the_first_token_is_tried_again(
    server: OpenAIServer, openai_model: OpenAILanguageModel
) -> None:
    server.fails(500)
    server.fails(429, headers={"retry-after": "1"})
    server.fails(503)
    server.streams(text_chunks("Here."))
    reply = await openai_model.generate(asking("Hi", passages=()), deadline=Deadline.after(30))
    assert reply.text == "Here."
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (401, "invalid_api_key", ModelUnavailable),
        (403, None, ModelUnavailable),
        (404, "model_not_found", ModelUnavailable),
        (429, "insufficient_quota", ModelUnavailable),
        (400, "context_length_exceeded", ContextLengthExceeded),
        (400, None, UnsupportedByModel),
        (422, None, UnsupportedByModel),
    ],
)
async def test_what_another_try_cannot_mend_is_typed_at_once(
    server: OpenAIServer, openai_model: OpenAILanguageModel, status: int, code: str | None, expected: type[Exception]
) -> None:
    server.fails(status, code=code)
    with pytest.raises(expected) as caught:
        await openai_model.generate(asking("Hi", passages=()), deadline=Deadline.after(30))
    assert len(server.requests) == 1
    assert "secret upstream text" not in str(caught.value)


async def test_a_server_that_keeps_failing_is_given_up_after_three_retries(
    server: OpenAIServer, openai_model: OpenAILanguageModel
) -> None:
    for _ in range(4):
        server.fails(500)
    with pytest.raises(ModelUnavailable):
        await openai_model.generate(asking("Hi", passages=()), deadline=Deadline.after(30))


async def test_an_endpoint_that_keeps_failing_is_left_alone_until_a_trial_gets_through(server: OpenAIServer) -> None:
    now = 0.0
    breaker = CircuitBreaker(
        "model", failures=2, reset_after_s=10, counts=is_outage, refusal=ModelUnavailable, clock=lambda: now
    )
    model = OpenAILanguageModel(
        "wire-model",
        api_key="k",
        base_url=server.base_url,
        retry=RetryPolicy(retries=0, retryable=is_transient),
        breaker=breaker,
    )
    question = asking("Hi", passages=())
    # What the endpoint refuses is not its outage, so the count begins anew.
    for status in (500, 400, 500, 503):
        server.fails(status)
        with pytest.raises((ModelUnavailable, UnsupportedByModel)):
            await model.generate(question, deadline=Deadline.after(30))
    with pytest.raises(ModelUnavailable, match="circuit open") as refused:
        await model.generate(question, deadline=Deadline.after(30))
    assert (len(server.requests), refused.value.retry_after_s) == (4, 10)
    now = 10.0
    server.streams(text_chunks("Here."))
    assert (await model.generate(question, deadline=Deadline.after(30))).text == "Here."
    await model.close()


async def test_every_engine_has_a_breaker_of_its_own(server: OpenAIServer, openai_model: OpenAILanguageModel) -> None:
    for _ in range(5):
        server.fails(500)
    question = asking("Hi", passages=())
    for _ in range(3):  # four tries, one more, and none
        with pytest.raises(ModelUnavailable):
            await openai_model.generate(question, deadline=Deadline.after(30))
    assert len(server.requests) == 5


async def test_no_endpoint_is_unavailable(openai_model: OpenAILanguageModel, server: OpenAIServer) -> None:
    server.close()
    with pytest.raises(ModelUnavailable):
        await openai_model.generate(asking("Hi", passages=()), deadline=Deadline.after(30))
    with pytest.raises(ModelUnavailable):
        await openai_model.check_health()


@pytest.mark.parametrize("chunks", [[], text_chunks("Begun")[:1]], ids=["before the first token", "in the middle"])
async def test_a_silent_endpoint_meets_the_deadline_and_is_hung_up_on(
    server: OpenAIServer, openai_model: OpenAILanguageModel, chunks: list[dict[str, object]]
) -> None:
    server.streams(chunks, then_hangs=True)
    with pytest.raises(DeadlineExceeded):
        await openai_model.generate(asking("Hi", passages=()), deadline=Deadline.after(0.5))
    assert await asyncio.to_thread(server.hung_up.wait, 5)


async def test_closing_the_stream_cancels_the_model_s_work(
    server: OpenAIServer, openai_model: OpenAILanguageModel
) -> None:
    server.streams(text_chunks("Begun")[:1], then_hangs=True)
    deltas = openai_model.stream(asking("Hi", passages=()), deadline=Deadline.after(30))
    assert (await anext(deltas)).text == "Begun"
    await deltas.aclose()  # type: ignore[attr-defined]  # an async generator, as every engine's stream is
    assert await asyncio.to_thread(server.hung_up.wait, 5)


# Building from settings


def test_engines_are_built_from_settings(minilm: SentenceTransformerEmbedder) -> None:
    assert build_language_model(LanguageModelSettings(), minilm).engine == "extractive"
    own = LanguageModelSettings(engine="openai", openai_base_url="http://127.0.0.1:1/v1")
    assert build_language_model(own, minilm).engine == "openai"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (LanguageModelSettings(engine="openai"), "OPENAI_API_KEY"),
        (LanguageModelSettings(engine="parrot"), "extractive, openai"),
    ],
)
def test_a_misconfigured_engine_says_what_to_mend(
    settings: LanguageModelSettings, named: str, minilm: SentenceTransformerEmbedder
) -> None:
    with pytest.raises(ConfigurationError, match=named):
        build_language_model(settings, minilm)
