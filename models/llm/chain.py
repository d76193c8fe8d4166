"""The one language model that the rest of Rapport sees: engines in order of preference."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace

from models.errors import (
    BudgetExhausted,
    ConfigurationError,
    DeadlineExceeded,
    DependencyUnavailable,
    Internal,
    ModelRefused,
    ModelReplyBroken,
    ModelUnavailable,
    Overloaded,
    RapportError,
    UnknownModel,
    UnsupportedByModel,
)
from models.llm.call import Bill
from models.llm.engines import served_by
from models.llm.guarded import GuardedEngine
from models.llm.spend import MemorySpendLedger, Spending
from models.llm.tracing import CallTracer, NoTracing
from models.llm.types import Delta, EngineState, LanguageModelReply, LanguageModelRequest
from models.resilience.breaker import BreakerState
from models.resilience.deadline import Deadline
from models.telemetry import Metrics, NoMetrics

#: Share of the remaining time that an engine gets, while others stand behind it, to send its first piece or, when
#: nothing is streamed, its whole reply.
FIRST_PIECE_SHARE = 0.5
WHOLE_REPLY_SHARE = 0.75
_HEALTH_TIMEOUT_S = 1.5
#: How long an engine's word that it is well is believed: whoever may ask us must not spend its quota.
_HEALTH_TTL_S = 5.0
#: What another engine may do better. A refusal and a request that is too long or malformed are answers.
_NEXT = (DependencyUnavailable, DeadlineExceeded, Overloaded, UnsupportedByModel, BudgetExhausted, Internal)


class LanguageModelChain:
    """Asks the first engine, and the next one where it cannot answer; the reply is then `degraded`.

    A request that names an engine is answered by that one alone. At most `max_concurrent` generations run, the next
    one is `Overloaded` at once: nothing is queued. An engine has `timeout_s` within the request's deadline; while
    others stand behind it, half of that to send its first piece (three quarters for a whole reply), so that its silence
    leaves them time. Once a piece has reached the caller no other engine takes over: a failure is raised as it is.
    When no engine answers, the error is the first one that is not `UnsupportedByModel`. A reply's and an error's
    `cost_usd` is the sum over all tries and engines, `None` if one of them has no known price.
    """

    def __init__(
        self,
        engines: Sequence[GuardedEngine],
        *,
        max_concurrent: int = 100,
        timeout_s: float = 30.0,
        metrics: Metrics | None = None,
        tracer: CallTracer | None = None,
        spending: Spending | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not engines:
            raise ConfigurationError("a chain of language models needs at least one engine")
        self._engines = tuple(engines)
        self._max_concurrent = max_concurrent
        self._timeout_s = timeout_s
        self._metrics = metrics or NoMetrics()
        self._tracer = tracer or NoTracing()
        self._spending = spending or Spending(MemorySpendLedger())
        self._clock = clock
        self._running = 0
        self._inspecting = asyncio.Lock()
        self._inspect_from: float | None = None

    async def generate(self, request: LanguageModelRequest, *, deadline: Deadline) -> LanguageModelReply:
        """The whole reply. Raises as the protocol says, and `UnknownModel`, `Overloaded`, `BudgetExhausted`,
        `CacheUnavailable` (a budget cannot be kept), `SafetyUnavailable` (personal data cannot be redacted).
        """
        async with aclosing(self._answer(request, deadline, whole=True)) as pieces:
            async for piece in pieces:
                if piece.reply is not None:
                    return piece.reply
        raise ModelReplyBroken("the chain ended without a reply")

    def stream(self, request: LanguageModelRequest, *, deadline: Deadline) -> AsyncGenerator[Delta]:
        """Pieces as they come, the last one carrying the reply; closing the iterator ends the engine's work.

        Raises as `generate`, once it is iterated.
        """
        return self._answer(request, deadline, whole=False)

    def states(self) -> tuple[EngineState, ...]:
        """Each engine in order of preference, as calls and health checks found it last."""
        return tuple(engine.state for engine in self._engines)

    async def inspect(self) -> tuple[EngineState, ...]:
        """The same, after asking each engine how it is; never raises for an engine.

        However many ask, engines are asked once at a time and no more than once in five seconds.
        """
        async with self._inspecting:
            if self._inspect_from is None or self._clock() >= self._inspect_from:
                await asyncio.gather(*(engine.inspect(timeout_s=_HEALTH_TIMEOUT_S) for engine in self._engines))
                self._inspect_from = self._clock() + _HEALTH_TTL_S
        return self.states()

    async def spent(self, account: str) -> float:
        """USD spent or set aside under this account, as far as this chain's ledger knows. Raises `CacheUnavailable`."""
        return await self._spending.spent(account)

    async def check_health(self) -> None:
        """Return if an engine can answer now; raise `ModelUnavailable` otherwise."""
        if not any(answers(state) for state in await self.inspect()):
            raise ModelUnavailable("no language model answers")

    async def close(self) -> None:
        """Close every engine, and send the last spans."""
        for engine in self._engines:
            await engine.close()
        await asyncio.to_thread(self._tracer.close)

    async def _answer(self, request: LanguageModelRequest, deadline: Deadline, *, whole: bool) -> AsyncGenerator[Delta]:
        bill = Bill()
        try:
            with self._admitted():
                async with aclosing(self._asked(request, deadline, whole=whole, bill=bill)) as pieces:
                    async for piece in pieces:
                        yield piece
        except RapportError as exc:
            exc.cost_usd = bill.usd
            if not isinstance(exc, ModelRefused):  # that there is no grounded answer is one
                self._metrics.count("llm_errors_total", code=exc.code)
            raise

    async def _asked(
        self, request: LanguageModelRequest, deadline: Deadline, *, whole: bool, bill: Bill
    ) -> AsyncGenerator[Delta]:
        chosen = self._chosen(request.model)
        errors: list[RapportError] = []
        for engine in chosen:
            if errors and deadline.expired:
                break
            budget = deadline.child(self._timeout_s)
            share = WHOLE_REPLY_SHARE if whole else FIRST_PIECE_SHARE
            begin_by = budget if engine is chosen[-1] else budget.child(budget.remaining_s() * share)
            begun = False
            call = engine.call(request, budget=budget, begin_by=begin_by, whole=whole, bill=bill)
            try:
                async with aclosing(call) as pieces:
                    async for piece in pieces:
                        begun = True
                        yield piece if piece.reply is None else self._marked(piece.reply, chosen[0], engine, bill)
                return
            except _NEXT as exc:
                if begun:
                    raise
                errors.append(exc)
        raise next((error for error in errors if not isinstance(error, UnsupportedByModel)), errors[0])

    def _marked(self, reply: LanguageModelReply, preferred: GuardedEngine, engine: GuardedEngine, bill: Bill) -> Delta:
        """The reply with what it cost in all; one by another engine than the preferred one says so."""
        if engine is not preferred:
            self._metrics.count("llm_fallbacks_total", preferred=preferred.engine, engine=engine.engine)
        return Delta(reply=replace(reply, cost_usd=bill.usd, degraded=reply.degraded or engine is not preferred))

    def _chosen(self, model: str) -> tuple[GuardedEngine, ...]:
        if not model:
            return self._engines
        name = served_by(model, [engine.name for engine in self._engines])
        if name is None:
            raise UnknownModel("no configured language model has this name")
        return tuple(engine for engine in self._engines if engine.name == name)

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        if self._running >= self._max_concurrent:
            self._metrics.count("llm_rejected_total")
            raise Overloaded("too many generations run at the same time").with_retry_after(1.0)
        self._running += 1
        self._metrics.observe("llm_running", self._running)
        try:
            yield
        finally:
            self._running -= 1
            self._metrics.observe("llm_running", self._running)


def answers(state: EngineState) -> bool:
    """Whether an engine in this state would be asked, and answered when it was last."""
    return state.breaker != BreakerState.OPEN and not state.failing


def describe(states: Sequence[EngineState]) -> str:
    """Every engine and who answers, for people: `vllm: circuit open; openai answers`."""
    parts: list[str] = []
    for state in states:
        if state.breaker == BreakerState.OPEN:
            parts.append(f"{state.engine}: circuit open")
        elif state.failing:
            parts.append(f"{state.engine}: {state.failing}")
        else:
            parts.append(f"{state.engine} {'stands by' if any(map(answers, states[: len(parts)])) else 'answers'}")
    return "; ".join(parts)
