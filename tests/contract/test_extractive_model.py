"""What the extractive engine promises beside the contract: sentences of the passages, verbatim, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from models.embedding.sentence_transformers import SentenceTransformerEmbedder
from models.errors import ModelRefused, UnsupportedByModel
from models.llm.extractive import ExtractiveLanguageModel
from models.llm.types import FinishReason, LanguageModelRequest, ToolSpec
from models.resilience.deadline import Deadline
from tests.fakes.language_model import PASSAGES, QUESTION, asking, passage


@pytest.fixture
def extractive(minilm: SentenceTransformerEmbedder) -> ExtractiveLanguageModel:
    return ExtractiveLanguageModel(minilm)


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
    ],
    ids=["no passages", "tools", "schema", "empty question"],
)
async def test_what_it_cannot_do_is_said(extractive: ExtractiveLanguageModel, request_: LanguageModelRequest) -> None:
    with pytest.raises(UnsupportedByModel):
        await extractive.generate(request_, deadline=Deadline.after(30))


async def test_passages_without_a_sentence_are_refused(extractive: ExtractiveLanguageModel) -> None:
    odd = (passage("a", "# Only a heading"), passage("b", "| a | table |"), passage("c", ""))
    with pytest.raises(ModelRefused):
        await extractive.generate(asking(QUESTION, passages=odd), deadline=Deadline.after(30))
