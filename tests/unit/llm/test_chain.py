"""The chain: who answers, how often it tries, when it gives up, and what it leaves behind."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

import pytest

from models.errors import (
    BudgetExhausted,
    CacheUnavailable,
    ContextLengthExceeded,
    DeadlineExceeded,
    Internal,
    ModelAccessDenied,
    ModelRateLimited,
    ModelRefused,
    ModelReplyBroken,
    ModelUnavailable,
    Overloaded,
    RapportError,
    SafetyUnavailable,
    UnknownModel,
    UnsupportedByModel,
)
from models.llm.chain import LanguageModelChain, describe
from models.llm.spend import MemorySpendLedger, Reservation, Scope, Spending
from models.resilience.deadline import Deadline
from models.safety.types import PIISpan
from tests.fakes.engines import DOLLAR, SILENCE, Remembered, StagedEngine, chain_of, saying, text_of

HELLO = saying("hello")


def soon() -> Deadline:
    return Deadline.after(30)


def down() -> ModelUnavailable:
    return ModelUnavailable("down")


async def test_the_first_engine_answers_and_its_reply_is_priced() -> None:
    first, second = StagedEngine("openai", external=True), StagedEngine("extractive")
    reply = await chain_of(first, second, prices={"openai": DOLLAR}).generate(HELLO, deadline=soon())
    assert (reply.text, reply.engine, reply.degraded, reply.cost_usd) == ("fine", "openai", False, 5.0)
    assert second.requests == []


@pytest.mark.parametrize("streaming", [False, True])
async def test_an_engine_is_tried_three_times_and_then_the_next_one_answers_degraded(streaming: bool) -> None:
    metrics = Remembered()
    first, second = StagedEngine("openai", scenes=[[down()]] * 3), StagedEngine("extractive")
    chain = chain_of(first, second, metrics=metrics)
    if streaming:
        _, reply = await text_of(chain.stream(HELLO, deadline=soon()))
    else:
        reply = await chain.generate(HELLO, deadline=soon())
    assert (reply.engine, reply.degraded, len(first.requests)) == ("extractive", True, 3)
    assert metrics.total("llm_fallbacks_total", preferred="openai", engine="extractive") == 1
    assert metrics.total("llm_calls_total", engine="openai", outcome="MODEL_UNAVAILABLE") == 1
    assert metrics.total("llm_calls_total", engine="extractive", outcome="OK") == 1


async def test_whoever_asked_a_generation_that_failed_is_counted_by_its_code_and_a_refusal_is_not() -> None:
    metrics = Remembered()
    engine = StagedEngine("openai", scenes=[[down()], [down()], [down()], [ModelRefused("nothing")]])
    chain = chain_of(engine, metrics=metrics)
    for error in (ModelUnavailable, ModelRefused):
        with pytest.raises(error):
            await chain.generate(HELLO, deadline=soon())
    assert metrics.total("llm_errors_total") == metrics.total("llm_errors_total", code="MODEL_UNAVAILABLE") == 1


async def test_a_short_outage_is_mended_by_another_try() -> None:
    first = StagedEngine("openai", scenes=[[down()], [ModelReplyBroken("garbage")]])
    reply = await chain_of(first, StagedEngine("extractive")).generate(HELLO, deadline=soon())
    assert (reply.engine, reply.degraded, len(first.requests)) == ("openai", False, 3)


async def test_a_wait_that_the_endpoint_asks_for_is_kept_or_not_begun() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    for retry_after, engine in ((2.0, "openai"), (60.0, "extractive")):
        limited = ModelRateLimited("slow down").with_retry_after(retry_after)
        chain = chain_of(StagedEngine("openai", scenes=[[limited]]), StagedEngine("extractive"), sleep=sleep)
        assert (await chain.generate(HELLO, deadline=soon())).engine == engine
    assert waits == [2.0]


@pytest.mark.parametrize(
    "error",
    [
        ModelAccessDenied("key"),
        UnsupportedByModel("tools"),
        Overloaded("full"),
        Internal("a defect"),
        DeadlineExceeded("slow"),
    ],
)
async def test_what_another_try_cannot_mend_goes_to_the_next_engine_at_once(error: RapportError) -> None:
    first = StagedEngine("openai", scenes=[[error]])
    reply = await chain_of(first, StagedEngine("extractive")).generate(HELLO, deadline=soon())
    assert (reply.engine, len(first.requests)) == ("extractive", 1)


@pytest.mark.parametrize("error", [ModelRefused("no"), ContextLengthExceeded("long"), ValueError("a defect")])
async def test_an_answer_is_an_answer_even_when_it_is_no(error: Exception) -> None:
    first, second = StagedEngine("openai", scenes=[[error]]), StagedEngine("extractive")
    with pytest.raises(type(error)):
        await chain_of(first, second).generate(HELLO, deadline=soon())
    assert (len(first.requests), second.requests) == (1, [])


async def test_the_error_is_that_of_the_most_preferred_engine_that_could_have_answered() -> None:
    for errors, expected in (
        ([ModelAccessDenied("key"), UnsupportedByModel("tools")], ModelAccessDenied),
        ([UnsupportedByModel("tools"), ModelAccessDenied("key")], ModelAccessDenied),
        ([UnsupportedByModel("tools"), UnsupportedByModel("tools")], UnsupportedByModel),
    ):
        engines = [StagedEngine(f"e{place}", scenes=[[error]]) for place, error in enumerate(errors)]
        with pytest.raises(expected):
            await chain_of(*engines).generate(HELLO, deadline=soon())


async def test_once_a_piece_has_reached_the_caller_no_other_engine_takes_over() -> None:
    first, second = StagedEngine("openai", scenes=[["Half a ", ModelReplyBroken("cut")]]), StagedEngine("extractive")
    pieces = chain_of(first, second).stream(HELLO, deadline=soon())
    assert (await anext(pieces)).text == "Half a "
    with pytest.raises(ModelReplyBroken):
        await anext(pieces)
    assert (len(first.requests), second.requests) == (1, [])


async def test_a_whole_reply_that_breaks_off_was_seen_by_nobody_and_is_tried_again() -> None:
    first = StagedEngine("openai", scenes=[["Half a ", ModelReplyBroken("cut")]])
    reply = await chain_of(first).generate(HELLO, deadline=soon())
    assert (reply.text, len(first.requests)) == ("fine", 2)


@pytest.mark.parametrize("streaming", [False, True])
async def test_silence_leaves_time_for_the_next_engine(streaming: bool) -> None:
    first, second = StagedEngine("openai", scenes=[[SILENCE]]), StagedEngine("extractive")
    chain, deadline = chain_of(first, second), Deadline.after(0.1)
    if streaming:
        _, reply = await text_of(chain.stream(HELLO, deadline=deadline))
    else:
        reply = await chain.generate(HELLO, deadline=deadline)
    assert (reply.engine, first.running) == ("extractive", 0)


async def test_silence_of_the_last_engine_ends_at_the_deadline() -> None:
    engine = StagedEngine("openai", scenes=[["Half", SILENCE]])
    with pytest.raises(DeadlineExceeded):
        await text_of(chain_of(engine).stream(HELLO, deadline=Deadline.after(0.05)))
    assert engine.running == 0


async def test_closing_the_stream_ends_the_engines_work() -> None:
    engine = StagedEngine("openai", scenes=[["one", "two", SILENCE]])
    chain = chain_of(engine)
    pieces = chain.stream(HELLO, deadline=soon())
    assert (await anext(pieces)).text == "one"
    assert engine.running == 1
    await pieces.aclose()
    assert engine.running == 0


@pytest.mark.parametrize("streaming", [False, True])
async def test_cancelling_the_caller_ends_the_engines_work(streaming: bool) -> None:
    engine, metrics = StagedEngine("openai", scenes=[[SILENCE]]), Remembered()
    chain = chain_of(engine, StagedEngine("extractive"), metrics=metrics)
    call = text_of(chain.stream(HELLO, deadline=soon())) if streaming else chain.generate(HELLO, deadline=soon())
    task = asyncio.ensure_future(call)
    await engine.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.running == 0
    assert metrics.total("llm_calls_total", outcome="CANCELLED") == 1
    assert metrics.values["llm_running", ()][-1] == 0


async def test_the_hundred_and_first_generation_is_refused_at_once() -> None:
    engine = StagedEngine("openai", scenes=[["go", SILENCE]] * 2)
    chain = chain_of(engine, max_concurrent=2)
    running = [chain.stream(HELLO, deadline=soon()) for _ in range(2)]
    for pieces in running:
        await anext(pieces)
    with pytest.raises(Overloaded) as refused:
        await chain.generate(HELLO, deadline=soon())
    assert refused.value.retry_after_s == 1.0
    assert len(engine.requests) == 2
    await running[0].aclose()
    assert (await chain.generate(HELLO, deadline=soon())).text == "fine"
    await running[1].aclose()


class TestBreaker:
    async def test_it_opens_after_five_outages_and_lets_one_call_try_later(self) -> None:
        now = [0.0]
        first = StagedEngine("openai", scenes=[[ModelAccessDenied("key")] for _ in range(5)])
        chain = chain_of(first, StagedEngine("extractive"), breaker_clock=lambda: now[0])
        for _ in range(7):
            assert (await chain.generate(HELLO, deadline=soon())).engine == "extractive"
        assert len(first.requests) == 5
        assert describe(chain.states()) == "openai: circuit open; extractive answers"
        now[0] = 11.0
        assert (await chain.generate(HELLO, deadline=soon())).engine == "openai"
        assert describe(chain.states()) == "openai answers; extractive stands by"

    async def test_breaking_off_half_way_counts_too(self) -> None:
        first = StagedEngine("openai", scenes=[["Half", ModelReplyBroken("cut")] for _ in range(5)])
        chain = chain_of(first)
        for _ in range(5):
            with pytest.raises(ModelReplyBroken):
                await text_of(chain.stream(HELLO, deadline=soon()))
        assert chain.states()[0].breaker == "open"

    async def test_callers_errors_and_callers_in_a_hurry_do_not_open_it(self) -> None:
        for step, error in ((ContextLengthExceeded("long"), ContextLengthExceeded), (SILENCE, DeadlineExceeded)):
            chain = chain_of(StagedEngine("openai", scenes=[[step]] * 6))
            for _ in range(6):
                with pytest.raises(error):
                    await chain.generate(HELLO, deadline=Deadline.after(0.01))
            assert chain.states()[0].breaker == "closed"

    async def test_an_engine_that_goes_and_comes_back_is_logged_once_each(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        first = StagedEngine("openai", scenes=[[ModelAccessDenied("key")] for _ in range(3)])
        chain = chain_of(first, StagedEngine("extractive"))
        for _ in range(5):
            await chain.generate(HELLO, deadline=soon())
        assert [record.message for record in caplog.records] == ["source went away", "source is back"]


class TestNamedModel:
    def chain(self) -> tuple[LanguageModelChain, StagedEngine, StagedEngine]:
        first, second = StagedEngine("openai"), StagedEngine("scripted")
        return chain_of(first, second), first, second

    async def test_a_named_engine_answers_alone(self) -> None:
        chain, first, second = self.chain()
        reply = await chain.generate(saying("hello", model="scripted:tokens=3"), deadline=soon())
        assert (reply.engine, reply.degraded, first.requests) == ("scripted", False, [])
        assert second.requests[0].model == "scripted:tokens=3"
        second.scenes = [[ModelAccessDenied("key")]]
        with pytest.raises(ModelAccessDenied):
            await chain.generate(saying("hello", model="scripted"), deadline=soon())

    @pytest.mark.parametrize("name", ["vllm", "openai:gpt-5-pro", "gpt-4o", ":", "openai "])
    async def test_any_other_name_is_unknown(self, name: str) -> None:
        chain, *engines = self.chain()
        with pytest.raises(UnknownModel):
            await chain.generate(saying("hello", model=name), deadline=soon())
        assert [engine.requests for engine in engines] == [[], []]

    async def test_variants_share_one_series_of_metrics(self) -> None:
        metrics = Remembered()
        chain = chain_of(StagedEngine("scripted"), metrics=metrics)
        for tokens in range(3):
            await chain.generate(saying("hello", model=f"scripted:tokens={tokens}"), deadline=soon())
        assert metrics.total("llm_calls_total", engine="scripted", model="scripted-1", outcome="OK") == 3


class LostLedger(MemorySpendLedger):
    async def reserve(self, scopes: object, usd: float) -> Reservation:
        raise CacheUnavailable("away")

    async def settle(self, reservation: Reservation, usd: float) -> None:
        raise CacheUnavailable("away")


class TestBudget:
    NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)

    def spending(
        self, ledger: MemorySpendLedger, *, usd_per_day: float | None = None, usd_per_campaign: float | None = None
    ) -> Spending:
        return Spending(ledger, usd_per_day=usd_per_day, usd_per_campaign=usd_per_campaign, clock=lambda: self.NOON)

    async def test_over_the_budget_a_free_engine_answers_and_alone_it_is_refused_until_midnight(self) -> None:
        ledger = MemorySpendLedger(lambda: self.NOON)
        spending = self.spending(ledger, usd_per_day=10.0)
        openai, local = StagedEngine("openai", external=True), StagedEngine("extractive")
        prices = {"openai": DOLLAR}
        reply = await chain_of(openai, local, prices=prices, spending=spending).generate(HELLO, deadline=soon())
        assert (reply.engine, reply.degraded, openai.requests) == ("extractive", True, [])
        with pytest.raises(BudgetExhausted) as refused:
            await chain_of(openai, prices=prices, spending=spending).generate(HELLO, deadline=soon())
        assert refused.value.retry_after_s == 12 * 3600
        assert await ledger.spent("day:2026-05-04") == 0

    async def test_concurrent_calls_never_overshoot(self) -> None:
        ledger = MemorySpendLedger(lambda: self.NOON)
        request = saying("hello", max_tokens=2, account="campaign:cpn_1")
        engine = StagedEngine("openai")
        chain = chain_of(engine, prices={"openai": DOLLAR}, spending=self.spending(ledger, usd_per_campaign=100.0))
        ended = await asyncio.gather(
            *(chain.generate(request, deadline=soon()) for _ in range(50)), return_exceptions=True
        )
        assert {type(end).__name__ for end in ended} == {"LanguageModelReply", "BudgetExhausted"}
        assert await ledger.spent("campaign:cpn_1") == 5 * len(engine.requests) <= 100
        assert await ledger.spent("day:2026-05-04") == 5 * len(engine.requests)

    async def test_a_reply_cut_short_costs_what_was_written(self) -> None:
        ledger, metrics = MemorySpendLedger(lambda: self.NOON), Remembered()
        engine = StagedEngine("openai", scenes=[["12345678", SILENCE]])
        spending = self.spending(ledger, usd_per_day=10_000.0)
        chain = chain_of(engine, prices={"openai": DOLLAR}, spending=spending, metrics=metrics)
        pieces = chain.stream(saying("four"), deadline=soon())
        await anext(pieces)
        assert await ledger.spent("day:2026-05-04") > 500
        await pieces.aclose()
        # Two tokens for the prompt, two for what was written.
        assert await ledger.spent("day:2026-05-04") == 4.0
        assert metrics.total("llm_cost_usd_total", engine="openai") == 4.0

    async def test_a_call_that_never_reached_a_model_costs_nothing(self) -> None:
        ledger = MemorySpendLedger(lambda: self.NOON)
        engine = StagedEngine("openai", scenes=[[down()] for _ in range(3)])
        spending = self.spending(ledger, usd_per_day=10_000.0)
        with pytest.raises(ModelUnavailable):
            await chain_of(engine, prices={"openai": DOLLAR}, spending=spending).generate(HELLO, deadline=soon())
        assert await ledger.spent("day:2026-05-04") == 0

    async def test_what_cannot_be_counted_is_not_spent(self) -> None:
        openai, local = StagedEngine("openai"), StagedEngine("extractive")
        spending, prices = self.spending(LostLedger(), usd_per_day=1e6), {"openai": DOLLAR}
        reply = await chain_of(openai, local, prices=prices, spending=spending).generate(HELLO, deadline=soon())
        assert (reply.engine, openai.requests) == ("extractive", [])
        with pytest.raises(CacheUnavailable):
            await chain_of(openai, prices=prices, spending=spending).generate(HELLO, deadline=soon())

    async def test_without_a_budget_a_lost_ledger_loses_only_sums(self) -> None:
        engine = StagedEngine("openai")
        chain = chain_of(engine, prices={"openai": DOLLAR}, spending=self.spending(LostLedger()))
        assert (await chain.generate(HELLO, deadline=soon())).cost_usd == 5.0

    async def test_a_model_without_a_price_is_counted(self) -> None:
        metrics = Remembered()
        reply = await chain_of(StagedEngine("openai"), prices={"x": DOLLAR}, metrics=metrics).generate(
            HELLO, deadline=soon()
        )
        assert reply.cost_usd is None
        assert metrics.total("llm_unpriced_calls_total", engine="openai") == 1


class Broken:
    """A detector that is out of order."""

    def detect(self, text: str) -> tuple[PIISpan, ...]:
        raise RuntimeError("out of order")

    def redact(self, text: str) -> str:
        raise RuntimeError("out of order")


class TestPersonalData:
    MAIL = saying("write to bob@example.com")

    async def test_only_engines_outside_our_walls_are_spared_it(self) -> None:
        outside = StagedEngine(
            "openai", external=True, scenes=[["I wrote to [EM", "AIL_1]."], [ModelAccessDenied("key")]]
        )
        inside = StagedEngine("vllm")
        chain = chain_of(outside, inside)
        text, reply = await text_of(chain.stream(self.MAIL, deadline=soon()))
        assert outside.requests[0].messages[0].content == "write to [EMAIL_1]"
        assert (text, reply.text) == ("I wrote to bob@example.com.", "I wrote to bob@example.com.")
        await chain.generate(self.MAIL, deadline=soon())
        assert inside.requests[0].messages[0].content == "write to bob@example.com"

    async def test_it_is_a_setting_for_either_side(self) -> None:
        outside, inside = StagedEngine("openai", external=True), StagedEngine("vllm")
        await chain_of(outside, redact_external=False).generate(self.MAIL, deadline=soon())
        await chain_of(inside, redact_local=True).generate(self.MAIL, deadline=soon())
        assert "bob" in outside.requests[0].messages[0].content
        assert "bob" not in inside.requests[0].messages[0].content

    async def test_text_that_nobody_could_search_does_not_leave(self) -> None:
        outside, inside = StagedEngine("openai", external=True), StagedEngine("vllm")
        reply = await chain_of(outside, inside, pii=Broken()).generate(self.MAIL, deadline=soon())
        assert (reply.engine, reply.degraded, outside.requests) == ("vllm", True, [])
        with pytest.raises(SafetyUnavailable):
            await chain_of(outside, pii=Broken()).generate(self.MAIL, deadline=soon())
        assert outside.requests == []


class TestHealth:
    async def test_one_well_engine_is_enough_and_each_is_named(self) -> None:
        now = [0.0]
        first, second = StagedEngine("vllm", health=down()), StagedEngine("openai", external=True)
        chain = chain_of(first, second, health_clock=lambda: now[0])
        await chain.check_health()
        assert describe(await chain.inspect()) == "vllm: MODEL_UNAVAILABLE; openai answers"
        assert [(state.engine, state.external) for state in chain.states()] == [("vllm", False), ("openai", True)]
        second.health = RuntimeError("unforeseen")
        now[0] = 6.0
        with pytest.raises(ModelUnavailable):
            await chain.check_health()

    async def test_however_many_ask_an_engine_is_asked_once_in_five_seconds(self) -> None:
        now, engine = [0.0], StagedEngine("openai", external=True)
        chain = chain_of(engine, health_clock=lambda: now[0])
        await asyncio.gather(*(chain.inspect() for _ in range(20)))
        await chain.check_health()
        assert engine.health_asked == 1
        now[0] = 5.0
        await chain.inspect()
        assert engine.health_asked == 2

    async def test_closing_closes_every_engine(self) -> None:
        engines = [StagedEngine("vllm"), StagedEngine("openai")]
        await chain_of(*engines).close()
        assert all(engine.closed for engine in engines)


async def test_usage_is_counted_by_kind() -> None:
    metrics, engine = Remembered(), StagedEngine("openai")
    chain = chain_of(engine, metrics=metrics)
    await chain.generate(HELLO, deadline=soon())
    counted = [metrics.total("llm_tokens_total", kind=kind) for kind in ("prompt", "completion", "cached")]
    assert counted == [3, 2, 0]


def test_a_scope_without_renewal_gives_no_hope() -> None:
    assert Scope(key="campaign:x", limit_usd=1, keep_s=1).exhausted().retry_after_s is None
