"""One call of one engine: its tries, the money set aside for each, and what is told about it."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field, replace

from models.errors import (
    InvalidRequest,
    ModelAccessDenied,
    ModelRateLimited,
    ModelReplyBroken,
    ModelUnavailable,
    NotFound,
    Overloaded,
    UnsupportedByModel,
)
from models.llm.pricing import PriceTable, about, at_most
from models.llm.protocol import Engine
from models.llm.redaction import Redaction
from models.llm.spend import Reservation, Spending
from models.llm.tracing import CallTracer, NoTracing
from models.llm.types import Delta, LanguageModelReply, LanguageModelRequest, Usage
from models.resilience.deadline import Deadline
from models.resilience.retry import RetryPolicy
from models.safety.protocol import PIIDetector
from models.telemetry import Metrics, NoMetrics

#: The first try and two more.
TRIES = 3
#: Failures after which an endpoint has no tokens to bill.
_FREE_OF_CHARGE = (UnsupportedByModel, InvalidRequest, NotFound, Overloaded, ModelRateLimited, ModelAccessDenied)


def is_worth_another_try(error: Exception) -> bool:
    """Whether the same engine may answer now what it failed to answer a moment ago."""
    return isinstance(error, ModelUnavailable) and error.retryable


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all engines of a chain share."""

    pii: PIIDetector
    prices: PriceTable
    spending: Spending
    metrics: Metrics = field(default_factory=NoMetrics)
    tracer: CallTracer = field(default_factory=NoTracing)
    retry: RetryPolicy = field(default_factory=lambda: RetryPolicy(retries=TRIES - 1, retryable=is_worth_another_try))
    timer: Callable[[], float] = time.perf_counter


@dataclass(slots=True)
class Bill:
    """USD of one generation over all its tries and engines; `None` once one of them cost nobody knows what."""

    usd: float | None = 0.0

    def add(self, cost: float | None) -> None:
        self.usd = None if cost is None or self.usd is None else self.usd + cost


class EngineCall:
    """One call with all its tries. After `run`, `reply` is the reply and `rest` the text still to be shown."""

    def __init__(
        self,
        engine: Engine,
        around: Surroundings,
        labels: dict[str, str],
        request: LanguageModelRequest,
        redaction: Redaction | None,
        bill: Bill,
    ) -> None:
        self.reply: LanguageModelReply | None = None
        self.rest = ""
        self._engine = engine
        self._around = around
        self._labels = labels
        self._request = request
        self._redaction = redaction
        self._bill = bill
        self._attempt: Attempt | None = None
        self._started = around.timer()
        self._span = around.tracer.start(engine.engine, labels["model"], request, external=engine.capabilities.external)

    @property
    def heard(self) -> bool:
        """Whether the engine has begun to answer its last try, as far as can be seen."""
        return self._attempt is not None and self._attempt.heard

    async def run(self, *, budget: Deadline, begin_by: Deadline, whole: bool) -> AsyncGenerator[str]:
        """Certain text as it comes; nothing of the reply when it ends in an error."""
        reply: LanguageModelReply | None = None
        error: BaseException | None = None
        restorer = None if self._redaction is None else self._redaction.restorer()
        attempt: Attempt | None = None
        try:
            begun, delta = await self._around.retry.run(
                lambda: self._begin(budget=budget, begin_by=begin_by, whole=whole), deadline=begin_by
            )
            attempt = begun
            if not whole:
                self._note_first_piece()
            while delta is not None:
                text = delta.text if restorer is None else restorer.feed(delta.text)
                if delta.reply is not None:
                    reply = delta.reply
                    self.rest = text if restorer is None else text + restorer.close()
                    break
                if text:
                    yield text
                delta = await begun.next(budget)
            if reply is None:
                raise ModelReplyBroken(f"{self._engine.engine} ended its reply without finishing it")
        except GeneratorExit:
            raise
        except BaseException as exc:
            error = exc
            raise
        finally:
            cost = None if attempt is None else await self._end(attempt, reply=reply, error=error)
            if reply is not None:
                reply = replace(reply, cost_usd=cost)
            self._span.end(reply=reply if error is None else None, error=error)
            self._around.metrics.observe("llm_duration_seconds", self._around.timer() - self._started, **self._labels)
        self.reply = reply if self._redaction is None else self._redaction.reply(reply)

    async def _begin(self, *, budget: Deadline, begin_by: Deadline, whole: bool) -> tuple[Attempt, Delta | None]:
        self._attempt = attempt = Attempt(self._engine, self._around, self._labels, self._request)
        try:
            await attempt.reserve()
            return attempt, await attempt.first(budget=budget, begin_by=begin_by, whole=whole)
        except BaseException as exc:
            self._span.try_failed(exc)
            await self._end(attempt, reply=None, error=exc)
            raise

    async def _end(
        self, attempt: Attempt, *, reply: LanguageModelReply | None, error: BaseException | None
    ) -> float | None:
        self._count_tokens(_counted(reply, error))
        cost = await attempt.end(reply=reply, error=error)
        self._bill.add(cost)
        return cost

    def _note_first_piece(self) -> None:
        waited = self._around.timer() - self._started
        self._span.first_piece(waited)
        self._around.metrics.observe("llm_first_token_seconds", waited, **self._labels)

    def _count_tokens(self, usage: Usage) -> None:
        counts = {"prompt": usage.prompt_tokens, "cached": usage.cached_tokens, "completion": usage.completion_tokens}
        for kind, tokens in counts.items():
            self._around.metrics.count("llm_tokens_total", tokens, kind=kind, **self._labels)


class Attempt:
    """One try: the money set aside for it, the engine's stream, and what it came to cost; `heard` once a piece came."""

    def __init__(
        self, engine: Engine, around: Surroundings, labels: dict[str, str], request: LanguageModelRequest
    ) -> None:
        self._engine = engine
        self._around = around
        self._labels = labels
        self._request = request
        self._price = around.prices.price(engine.engine, labels["model"])
        self._reservation: Reservation | None = None
        self._stream: AsyncIterator[Delta] | None = None
        self.heard = False
        self._written = 0

    async def reserve(self) -> None:
        most = 0.0 if self._price is None else self._price.of(at_most(self._request))
        self._reservation = await self._around.spending.reserve(most, account=self._request.account)

    async def first(self, *, budget: Deadline, begin_by: Deadline, whole: bool) -> Delta | None:
        """The first piece, or `None` when there is none."""
        async with begin_by.enforce(f"the first piece from {self._engine.engine}"):
            if whole and not self._engine.capabilities.external:
                return Delta(reply=await self._engine.generate(self._request, deadline=begin_by))
            # What is billed by the token is always streamed: only so a reply that breaks off tells what it cost.
            self._stream = self._engine.stream(self._request, deadline=begin_by if whole else budget)
            piece = self._noted(await anext(self._stream, None))
            while whole and piece is not None and piece.reply is None:
                piece = self._noted(await anext(self._stream, None))
            return replace(piece, text="") if whole and piece is not None else piece

    async def next(self, budget: Deadline) -> Delta | None:
        """The piece after the last one, or `None` when there is none."""
        if self._stream is None:
            return None
        async with budget.enforce(f"a reply from {self._engine.engine}"):
            return self._noted(await anext(self._stream, None))

    def _noted(self, piece: Delta | None) -> Delta | None:
        if piece is not None:
            self.heard = True
            self._written += len(piece.text)
        return piece

    async def end(self, *, reply: LanguageModelReply | None, error: BaseException | None) -> float | None:
        """Stop the engine's work, and settle: by its own count, or by an estimate where it gave none."""
        close = getattr(self._stream, "aclose", None)
        if close is not None:
            await close()
        if self._reservation is None:
            return 0.0
        cost = self._cost(reply, error)
        await self._around.spending.settle(self._reservation, cost or 0.0)
        if cost is not None:
            self._around.metrics.count("llm_cost_usd_total", cost, **self._labels)
        elif reply is not None:
            self._around.metrics.count("llm_unpriced_calls_total", 1.0, **self._labels)
        return cost

    def _cost(self, reply: LanguageModelReply | None, error: BaseException | None) -> float | None:
        if reply is not None:
            price = self._price or self._around.prices.price(self._engine.engine, reply.model)
            # Some endpoints count nothing.
            usage = reply.usage if reply.usage.total_tokens else about(self._request, len(reply.text))
            return None if price is None else price.of(usage)
        counted = _counted(reply, error)
        if counted.total_tokens:
            return None if self._price is None else self._price.of(counted)
        # Whoever broke off has paid for the prompt and for what was written; an endpoint that refused bills nothing.
        if isinstance(error, _FREE_OF_CHARGE) or (type(error) is ModelUnavailable and not self.heard):
            return 0.0
        if self._price is None:
            return None
        # Nobody saw what a reply held that was not streamed.
        return self._price.of(at_most(self._request) if self._stream is None else about(self._request, self._written))


def _counted(reply: LanguageModelReply | None, error: BaseException | None) -> Usage:
    """The engine's own count, which also a reply that it had to withdraw may carry; zero if there is none."""
    usage = getattr(error, "usage", None) if reply is None else reply.usage
    return usage if isinstance(usage, Usage) else Usage()
