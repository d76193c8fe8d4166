"""An engine that plays given scenes, metrics that remember, and chains made of such engines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from models.errors import ModelUnavailable
from models.llm.call import TRIES, Surroundings, is_worth_another_try
from models.llm.chain import LanguageModelChain
from models.llm.guarded import GuardedEngine
from models.llm.pricing import Price, PriceRow, PriceTable
from models.llm.spend import MemorySpendLedger, Spending
from models.llm.tracing import CallTracer, NoTracing
from models.llm.types import (
    Capabilities,
    ChatMessage,
    Delta,
    LanguageModelReply,
    LanguageModelRequest,
    Role,
    Usage,
)
from models.resilience.breaker import CircuitBreaker
from models.resilience.deadline import Deadline
from models.resilience.retry import RetryPolicy
from models.safety.pii import PatternPIIDetector
from models.safety.protocol import PIIDetector

#: In a scene: says nothing until it is cancelled.
SILENCE = "<silence>"

#: One dollar a token, written or read.
DOLLAR = Price(prompt=1e6, cached=0.5e6, completion=1e6)


@dataclass
class StagedEngine:
    """Plays one scene a call: pieces of text, errors to raise, `SILENCE`; afterwards it answers `fine`.

    `reply` is what a scene ends in, with the scene's text unless `text` is set. `name` is the configured one, where
    that is not the engine's.
    """

    engine: str = "staged"
    name: str = ""
    external: bool = False
    scenes: list[Sequence[str | Exception]] = field(default_factory=list)
    reply: LanguageModelReply | None = None
    requests: list[LanguageModelRequest] = field(default_factory=list)
    running: int = 0
    closed: bool = False
    health: Exception | None = None
    health_asked: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(streaming=True, tools=True, schema=True, free_text=True, external=self.external)

    async def generate(self, request: LanguageModelRequest, *, deadline: Deadline) -> LanguageModelReply:
        reply: LanguageModelReply | None = None
        async for delta in self.stream(request, deadline=deadline):
            reply = delta.reply
        assert reply is not None
        return reply

    async def stream(self, request: LanguageModelRequest, *, deadline: Deadline) -> AsyncIterator[Delta]:
        self.requests.append(request)
        scene = self.scenes.pop(0) if self.scenes else ["fine"]
        self.running += 1
        self.asked.set()
        try:
            await asyncio.sleep(0)
            for step in scene:
                if isinstance(step, Exception):
                    raise step
                if step == SILENCE:
                    await asyncio.Event().wait()
                yield Delta(text=step)
            text = "".join(step for step in scene if isinstance(step, str))
            reply = self.reply or LanguageModelReply(
                text="", engine=self.engine, model=f"{self.engine}-1", usage=Usage(prompt_tokens=3, completion_tokens=2)
            )
            yield Delta(reply=replace(reply, text=reply.text or text))
        finally:
            self.running -= 1

    async def check_health(self) -> None:
        self.health_asked += 1
        if self.health is not None:
            raise self.health

    async def close(self) -> None:
        self.closed = True


@dataclass
class Remembered:
    """Metrics as `(name, sorted labels)` -> total or last value."""

    counts: dict[tuple[str, tuple[tuple[str, str], ...]], float] = field(default_factory=dict)
    values: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]] = field(default_factory=dict)

    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        key = (name, tuple(sorted(labels.items())))
        self.counts[key] = self.counts.get(key, 0.0) + value

    def observe(self, name: str, value: float, **labels: str) -> None:
        self.values.setdefault((name, tuple(sorted(labels.items()))), []).append(value)

    def total(self, name: str, **labels: str) -> float:
        """The sum over all series of that name that carry these labels."""
        return sum(
            value for (found, given), value in self.counts.items() if found == name and labels.items() <= set(given)
        )


class Nobody:
    """A `PIIDetector` that finds nothing."""

    def detect(self, text: str) -> tuple[()]:
        return ()

    def redact(self, text: str) -> str:
        return text


async def no_wait(seconds: float) -> None:
    return None


def chain_of(
    *engines: StagedEngine,
    prices: Mapping[str, Price] | None = None,
    spending: Spending | None = None,
    metrics: Remembered | None = None,
    tracer: CallTracer | None = None,
    pii: PIIDetector | None = None,
    redact_external: bool = True,
    redact_local: bool = False,
    sleep: Callable[[float], object] = no_wait,
    breaker_clock: Callable[[], float] = time.monotonic,
    health_clock: Callable[[], float] = time.monotonic,
    max_concurrent: int = 100,
    timeout_s: float = 30.0,
) -> LanguageModelChain:
    """A chain over these engines; without `prices` each is free."""
    table = PriceTable(
        version="1",
        as_of="2026-05-01",
        rows=tuple(
            PriceRow(engines=(name,), model="*", price=price)
            for name, price in (prices or {e.engine: Price(prompt=0, cached=0, completion=0) for e in engines}).items()
        ),
    )
    around = Surroundings(
        pii=pii or PatternPIIDetector(),
        prices=table,
        spending=spending or Spending(MemorySpendLedger()),
        metrics=metrics or Remembered(),
        tracer=tracer or NoTracing(),
        retry=RetryPolicy(retries=TRIES - 1, retryable=is_worth_another_try, sleep=sleep),  # type: ignore[arg-type]  # awaited
        timer=lambda: 0.0,
    )
    guarded = [
        GuardedEngine(
            engine.name or engine.engine,
            engine,
            around,
            model=f"{engine.engine}-1",
            redact=redact_external if engine.external else redact_local,
            breaker=CircuitBreaker(engine.engine, refusal=ModelUnavailable, clock=breaker_clock),
        )
        for engine in engines
    ]
    return LanguageModelChain(
        guarded,
        max_concurrent=max_concurrent,
        timeout_s=timeout_s,
        metrics=around.metrics,
        tracer=around.tracer,
        spending=around.spending,
        clock=health_clock,
    )


def saying(text: str, **fields: object) -> LanguageModelRequest:
    """A request with one message of a user."""
    return LanguageModelRequest(messages=(ChatMessage(role=Role.USER, content=text),), **fields)  # type: ignore[arg-type]  # fields by name


async def text_of(pieces: AsyncIterator[Delta]) -> tuple[str, LanguageModelReply]:
    """The pieces joined, and the reply."""
    text, reply = "", None
    async for piece in pieces:
        text += piece.text
        reply = piece.reply or reply
    assert reply is not None
    return text, reply
