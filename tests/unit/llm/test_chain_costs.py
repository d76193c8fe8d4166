"""What a generation costs in all: failed tries, engines fallen from, replies that were withdrawn."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from models.errors import (
    BudgetExhausted,
    DeadlineExceeded,
    ModelRefused,
    ModelReplyBroken,
    ModelUnavailable,
    RapportError,
)
from models.llm.chain import LanguageModelChain
from models.llm.pricing import Price
from models.llm.spend import MemorySpendLedger, Spending
from models.llm.types import Usage
from models.resilience.deadline import Deadline
from tests.fakes.engines import DOLLAR, SILENCE, Remembered, StagedEngine, chain_of, saying, text_of

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
DAY = "day:2026-05-04"
FOUR = saying("four")  # two tokens by estimate
BROKEN: list[str | Exception] = ["12345678", ModelReplyBroken("cut")]
FREE = Price(prompt=0, cached=0, completion=0)


class World:
    """A chain of one priced engine and, as a rule, a free one behind it."""

    def __init__(self, *engines: StagedEngine, **budget: float) -> None:
        self.ledger, self.metrics = MemorySpendLedger(lambda: NOON), Remembered()
        prices = {engine.engine: FREE if engine.engine == "extractive" else DOLLAR for engine in engines}
        spending = Spending(self.ledger, clock=lambda: NOON, metrics=self.metrics, **budget)
        self.chain: LanguageModelChain = chain_of(*engines, prices=prices, spending=spending, metrics=self.metrics)

    async def fail(self, *, streaming: bool = False, seconds: float = 30.0) -> RapportError:
        deadline = Deadline.after(seconds)
        chain = self.chain
        call = text_of(chain.stream(FOUR, deadline=deadline)) if streaming else chain.generate(FOUR, deadline=deadline)
        with pytest.raises(RapportError) as failed:
            await call
        return failed.value


@pytest.mark.parametrize("streaming", [False, True])
async def test_an_abandoned_generation_costs_the_same_whole_and_streamed(streaming: bool) -> None:
    world = World(StagedEngine("openai", external=True, scenes=[["12345678", SILENCE]]))
    error = await world.fail(streaming=streaming, seconds=0.05)
    assert isinstance(error, DeadlineExceeded)
    assert (await world.ledger.spent(DAY), error.cost_usd) == (4.0, 4.0)


async def test_a_whole_reply_that_nobody_saw_costs_the_most_it_can() -> None:
    world = World(StagedEngine("vllm", scenes=[["12345678", SILENCE]]), usd_per_day=10_000.0)
    error = await world.fail(seconds=0.05)
    # Four bytes and the format around two messages; all of max_tokens.
    assert error.cost_usd == await world.ledger.spent(DAY) == 4 + 16 + 512


async def test_every_try_of_a_reply_that_breaks_off_is_paid_and_is_in_the_sum() -> None:
    world = World(StagedEngine("openai", external=True, scenes=[BROKEN, BROKEN]))
    reply = await world.chain.generate(FOUR, deadline=Deadline.after(30))
    assert reply.cost_usd == await world.ledger.spent(DAY) == 4.0 + 4.0 + 5.0


async def test_an_engine_fallen_from_is_in_the_sum() -> None:
    world = World(StagedEngine("openai", external=True, scenes=[BROKEN] * 3), StagedEngine("extractive"))
    reply = await world.chain.generate(FOUR, deadline=Deadline.after(30))
    assert (reply.engine, reply.degraded, reply.cost_usd) == ("extractive", True, 12.0)
    free = World(StagedEngine("openai", scenes=[[ModelUnavailable("down")]] * 3), StagedEngine("extractive"))
    assert (await free.chain.generate(FOUR, deadline=Deadline.after(30))).cost_usd == 0.0


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_refusal_costs_what_the_endpoint_counted(streaming: bool) -> None:
    refusal = ModelRefused("no answer")
    refusal.usage = Usage(prompt_tokens=40, completion_tokens=2)
    world = World(StagedEngine("openai", external=True, scenes=[[refusal]]))
    error = await world.fail(streaming=streaming)
    assert error.cost_usd == await world.ledger.spent(DAY) == 42.0
    assert world.metrics.total("llm_tokens_total", kind="prompt") == 40


async def test_what_was_never_sent_costs_nothing_and_an_unknown_price_is_not_guessed() -> None:
    world = World(StagedEngine("openai", external=True), usd_per_day=1.0)
    error = await world.fail()
    assert (type(error), error.cost_usd) == (BudgetExhausted, 0.0)
    unpriced = chain_of(StagedEngine("openai", scenes=[[ModelReplyBroken("cut")]]), prices={"other": DOLLAR})
    assert (await unpriced.generate(FOUR, deadline=Deadline.after(30))).cost_usd is None


async def test_the_campaigns_budget_gives_no_hope_and_the_days_does() -> None:
    for budget, hope in (({"usd_per_campaign": 1.0}, None), ({"usd_per_day": 1.0}, 12 * 3600)):
        world = World(StagedEngine("openai"), **budget)
        with pytest.raises(BudgetExhausted) as refused:
            await world.chain.generate(saying("hi", account="campaign:c"), deadline=Deadline.after(30))
        assert (refused.value.retry_after_s, refused.value.retryable) == (hope, False)


async def test_the_sum_of_the_day_and_its_limit_are_shown() -> None:
    world = World(StagedEngine("openai"), usd_per_day=10_000.0, usd_per_campaign=2_000.0)
    for _ in range(2):
        await world.chain.generate(saying("hi", account="campaign:c"), deadline=Deadline.after(30))
    assert world.metrics.values["llm_spend_usd", (("scope", "day"),)] == [5.0, 10.0]
    assert world.metrics.values["llm_budget_usd", (("scope", "day"),)] == [10_000.0]
    assert world.metrics.values["llm_budget_usd", (("scope", "campaign"),)] == [2_000.0]
    assert await world.chain.spent("campaign:c") == 10.0
