"""One engine under guard: what a chain is made of."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing

from models.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    ModelRefused,
    ModelUnavailable,
    RapportError,
    UnsupportedByModel,
)
from models.llm.call import Bill, EngineCall, Surroundings
from models.llm.engines import variant_of
from models.llm.protocol import Engine
from models.llm.redaction import Redaction, searched
from models.llm.types import Delta, EngineState, LanguageModelRequest
from models.resilience.breaker import BreakerState, CircuitBreaker
from models.resilience.deadline import Deadline
from models.telemetry import Transition

logger = logging.getLogger(__name__)

#: Silence shorter than this tells more about the caller's hurry than about the engine.
_FAIR_WAIT_S = 1.0
#: Texts longer than this are searched for personal data beside the event loop.
_LONG_CHARS = 2_048
#: Variants of one engine whose failures are remembered; beyond that the one not asked for longest is forgotten.
_VARIANTS = 64
#: How long an engine may take to say that it is well, after a reply that did not come in time.
_PROBE_S = 1.0


class GuardedEngine:
    """Calls one engine: breaker, redaction, budget, tries, spans and metrics, in this order.

    `model` is the configured one, by which calls are priced and counted; never a name out of a request or a reply.
    A variant that a request names has a breaker of its own: its failures say nothing about the engine's state.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        around: Surroundings,
        *,
        model: str,
        redact: bool,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        self.name = name
        self.engine = engine.engine
        self.model = model
        self._engine = engine
        self._around = around
        self._redact = redact
        self._breaker = breaker or _breaker(name)
        self._of_variants: OrderedDict[str, CircuitBreaker] = OrderedDict()
        self._labels = {"engine": self.engine, "model": model}
        self._seen = Transition(f"language model {name}", logger)
        self._failing = ""
        self._show_breaker()

    @property
    def state(self) -> EngineState:
        """As calls and health checks found it last."""
        return EngineState(
            engine=self.name,
            breaker=str(self._breaker.state),
            external=self._engine.capabilities.external,
            failing=self._failing,
        )

    async def call(
        self, request: LanguageModelRequest, *, budget: Deadline, begin_by: Deadline, whole: bool, bill: Bill
    ) -> AsyncGenerator[Delta]:
        """Text as it comes, then the reply with its cost; with `whole` only the reply. All costs go on the `bill`.

        The first piece must be there at `begin_by`, the last one within `budget`. An engine that fails before its first
        piece is tried again while that can help; later failures are raised as they are. Raises as
        `LanguageModel.generate`, and `BudgetExhausted`, `CacheUnavailable` (a budget cannot be kept),
        `SafetyUnavailable` (personal data cannot be redacted).
        """
        outcome = "CANCELLED"
        given_s = begin_by.remaining_s()
        call: EngineCall | None = None
        silent = False
        breaker = self._breaker_of(request.model)
        try:
            with breaker.guard(counts=lambda error: _speaks_against(error, silent=silent)):
                redacted, redaction = await self._redacted(request, begin_by)
                call = EngineCall(self._engine, self._around, self._labels, redacted, redaction, bill)
                try:
                    async with aclosing(call.run(budget=budget, begin_by=begin_by, whole=whole)) as texts:
                        async for text in texts:
                            yield Delta(text=text)
                except DeadlineExceeded:
                    silent = given_s >= _FAIR_WAIT_S and not call.heard and not (whole and await self._is_well())
                    raise
            outcome = "OK"
            self._note(None, breaker)
        except Exception as exc:
            outcome = _code(exc)
            if isinstance(exc, ModelUnavailable):
                exc.with_detail(_seen_from_outside(self.name, exc, breaker))
            if (against := _speaks_against(exc, silent=silent)) is not None:
                self._note(exc if against else None, breaker)
            if isinstance(exc, UnsupportedByModel):
                logger.info("a language model cannot do what was asked of it", extra={"engine": self.name})
            raise
        finally:
            self._around.metrics.count("llm_calls_total", 1.0, outcome=outcome, **self._labels)
            self._show_breaker()
        # Outside of the guard: what the caller does with the reply is no business of the engine's.
        if call.rest:
            yield Delta(text=call.rest)
        yield Delta(reply=call.reply)

    async def inspect(self, *, timeout_s: float) -> EngineState:
        """Its state after asking it how it is; never raises for the engine's failure."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._engine.check_health()
        except Exception as exc:
            self._failing = _code(exc)
        else:
            self._failing = ""
        self._show_breaker()
        return self.state

    async def close(self) -> None:
        await self._engine.close()

    async def _is_well(self) -> bool:
        """What a reply that nobody saw coming cannot tell: whether its engine is away, or only not done yet.

        What we stream anyway (`Attempt.first`) needs no asking: nothing came.
        """
        if self._engine.capabilities.external:
            return False
        try:
            async with asyncio.timeout(_PROBE_S):
                await self._engine.check_health()
        except Exception:
            return False
        return True

    async def _redacted(
        self, request: LanguageModelRequest, begin_by: Deadline
    ) -> tuple[LanguageModelRequest, Redaction | None]:
        if not self._redact:
            return request, None
        if sum(map(len, searched(request))) > _LONG_CHARS:
            async with begin_by.enforce("the search for personal data"):
                redaction = await asyncio.to_thread(Redaction, request, self._around.pii)
        else:
            redaction = Redaction(request, self._around.pii)
        return redaction.request, redaction

    def _breaker_of(self, model: str) -> CircuitBreaker:
        if not variant_of(model) or model == self.name:
            return self._breaker
        breaker = self._of_variants.setdefault(model, _breaker(f"{self.engine} variant"))
        self._of_variants.move_to_end(model)
        if len(self._of_variants) > _VARIANTS:
            self._of_variants.popitem(last=False)
        return breaker

    def _note(self, outage: Exception | None, breaker: CircuitBreaker) -> None:
        if breaker is not self._breaker:
            return
        self._failing = "" if outage is None else _code(outage)
        if outage is None:
            self._seen.up()
        else:
            self._seen.down(outage)

    def _show_breaker(self) -> None:
        is_open = self._breaker.state is not BreakerState.CLOSED
        self._around.metrics.observe("llm_breaker_open", float(is_open), engine=self.name)


def _breaker(name: str) -> CircuitBreaker:
    return CircuitBreaker(f"language model {name}", refusal=ModelUnavailable)


def _seen_from_outside(name: str, error: ModelUnavailable, breaker: CircuitBreaker) -> str:
    if breaker.state is BreakerState.OPEN:
        return f"The language model {name} is not asked for now: its circuit is open after repeated failures."
    return f"The language model {name} does not answer ({error.code})."


def _code(error: Exception) -> str:
    return error.code if isinstance(error, RapportError) else type(error).__name__


def _speaks_against(error: BaseException, *, silent: bool) -> bool | None:
    """Whether an error is an outage of the engine; `None` if it says nothing about it.

    A deadline is one only for an engine that had a fair time and was `silent`: long replies are no outage.
    """
    match error:
        case DeadlineExceeded():
            return True if silent else None
        case ModelUnavailable():
            return True
        case ModelRefused() | ContextLengthExceeded():
            return False
        case _:
            return None
