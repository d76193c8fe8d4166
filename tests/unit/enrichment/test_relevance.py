"""What was asked decides which section matters, and nothing is lost where that cannot be known."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from models.embedding.protocol import Vectors
from models.enrichment.relevance import QUESTIONS, RelevanceScorer
from models.enrichment.types import SECTIONS
from models.errors import ModelUnavailable
from models.resilience.deadline import Deadline
from tests.fakes.embedder import HashingEmbedder

EQUAL: dict[str, int] = dict.fromkeys(SECTIONS, 1)


async def ranked(scorer: RelevanceScorer, message: str, **options: object) -> list[str]:
    vector = await scorer.vector(message, Deadline.after(60))
    assert vector is not None
    return list(scorer.scores(SECTIONS, vector, tiers=EQUAL, freshness={}, **options))  # type: ignore[arg-type]


class SlowEmbedder(HashingEmbedder):
    """Answers only once `gate` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def embed(self, texts: Sequence[str], *, deadline: Deadline | None = None) -> Vectors:
        await self.gate.wait()
        return await super().embed(texts, deadline=deadline)


def test_every_section_has_questions() -> None:
    assert list(QUESTIONS) == list(SECTIONS)
    texts = [question for questions in QUESTIONS.values() for question in questions]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("section", SECTIONS)
async def test_the_section_that_answers_the_message_comes_first(section: str) -> None:
    assert (await ranked(RelevanceScorer(HashingEmbedder()), QUESTIONS[section][0]))[0] == section


async def test_scores_lie_between_0_and_1_and_name_only_what_is_there() -> None:
    scorer = RelevanceScorer(HashingEmbedder())
    vector = await scorer.vector("How many seats do we have?", Deadline.after(60))
    for given in (vector, None):
        scores = scorer.scores(["company_news", "subscription_details"], given, tiers={}, freshness={})
        assert set(scores) == {"company_news", "subscription_details"}
        assert all(0 <= score <= 1 for score in scores.values())
        assert list(scores.values()) == sorted(scores.values(), reverse=True)


@pytest.mark.parametrize(
    "better",
    [
        {"tiers": {"company_news": 0}, "freshness": {}},
        {"tiers": {}, "freshness": {"support_history": 0.2}},
        {"tiers": {}, "freshness": {}, "importance": {"company_news": 0.5}},
    ],
)
def test_between_equals_tier_freshness_and_the_agent_type_decide(better: dict[str, dict[str, float]]) -> None:
    scorer = RelevanceScorer(HashingEmbedder())
    scores = scorer.scores(["support_history", "company_news"], None, **better)  # type: ignore[arg-type]
    assert scores["company_news"] > scores["support_history"]


async def test_a_clear_message_beats_everything_else() -> None:
    scorer = RelevanceScorer(HashingEmbedder())
    message = QUESTIONS["company_news"][0]
    others = {"importance": dict.fromkeys(SECTIONS, 1.0) | {"company_news": 0.0}}
    assert (await ranked(scorer, message, **others))[0] == "company_news"


async def test_the_questions_are_embedded_once_and_a_message_is_remembered() -> None:
    embedder = HashingEmbedder()
    scorer = RelevanceScorer(embedder, remembered=2)
    for message in ("one", "one", "two", "one", "three", "two"):
        assert await scorer.vector(message, Deadline.after(60)) is not None
    assert [len(call) for call in embedder.calls[:1]] == [sum(map(len, QUESTIONS.values()))]
    assert embedder.calls[1:] == [("one",), ("two",), ("three",), ("two",)]


@pytest.mark.parametrize("message", ["", "  \n"])
async def test_no_message_asks_nobody(message: str) -> None:
    embedder = HashingEmbedder()
    assert await RelevanceScorer(embedder).vector(message, Deadline.after(60)) is None
    assert embedder.calls == []


@pytest.mark.parametrize("error", [ModelUnavailable("down"), RuntimeError("a defect")])
async def test_a_failing_embedder_leaves_the_message_out_and_is_asked_again(error: Exception) -> None:
    embedder = HashingEmbedder()
    scorer = RelevanceScorer(embedder)
    embedder.error = error
    assert await scorer.vector("Is the system down?", Deadline.after(60)) is None
    embedder.error = None
    assert (await ranked(scorer, "Is the system down?"))[0] == "product_status"


async def test_a_slow_embedder_costs_no_more_than_its_share_and_warms_up_meanwhile() -> None:
    embedder = SlowEmbedder()
    scorer = RelevanceScorer(embedder)
    assert await scorer.vector("Is the system down?", Deadline.after(0)) is None
    embedder.gate.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(embedder.calls) == 1, "the questions were embedded although nobody waited any more"
    assert (await ranked(scorer, "Is the system down?"))[0] == "product_status"
    assert len(embedder.calls) == 2


async def test_many_first_messages_share_the_questions() -> None:
    embedder = HashingEmbedder()
    scorer = RelevanceScorer(embedder)
    await asyncio.gather(*(scorer.vector(f"message {number}", Deadline.after(60)) for number in range(10)))
    assert sum(len(call) > 1 for call in embedder.calls) == 1


async def test_whoever_leaves_does_not_stop_the_questions_for_the_others() -> None:
    embedder = SlowEmbedder()
    scorer = RelevanceScorer(embedder, at_most_s=60)
    leaving, staying = (asyncio.create_task(scorer.vector("hello", Deadline.after(200))) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    assert leaving.cancelled()
    embedder.gate.set()
    assert await staying is not None
