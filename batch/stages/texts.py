"""Every row's conversation gets the model's next message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from batch.columns import TEXTS, Row
from batch.engines import Build
from batch.prompts import messages_of
from batch.stages.stage import Stage
from models.errors import ModelRateLimited, Overloaded, RapportError
from models.llm.types import LanguageModelReply, LanguageModelRequest
from models.resilience.deadline import Deadline
from models.resilience.retry import RetryPolicy


class Generator(Protocol):
    """The part of `models.llm.protocol.LanguageModel` that a batch needs."""

    async def generate(self, request: LanguageModelRequest, *, deadline: Deadline) -> LanguageModelReply: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions:
    """What all rows of a job have in common; `timeout_s` is for one row, waiting for a busy model included."""

    model: str = ""
    max_tokens: int = 512
    response_schema: Mapping[str, Any] | None = None
    account: str = ""
    timeout_s: float = 120.0
    concurrency: int = 16


def is_busy(error: Exception) -> bool:
    """Whether the model only asks for patience; anything worse it has met with retries and fallbacks of its own."""
    return isinstance(error, Overloaded | ModelRateLimited)


#: Bounded by the row's deadline.
PATIENCE = RetryPolicy(retries=1_000, base_s=0.2, max_s=5.0, retryable=is_busy)


class GenerateTexts(Stage):
    """`concurrency` rows at a time, so that a model which batches continuously always has a full batch."""

    out = TEXTS
    holds_resources = True
    attempts = 1

    def __init__(self, build: Build[Generator], options: GenerationOptions) -> None:
        super().__init__()
        self.concurrency = options.concurrency
        self._build, self._options = build, options

    async def open(self) -> None:
        self._model = await self._build()

    async def map_row(self, row: Row) -> list[Row]:
        options = self._options
        request = LanguageModelRequest(
            messages=messages_of(row),
            model=options.model,
            max_tokens=options.max_tokens,
            response_schema=options.response_schema,
            account=options.account,
        )
        deadline = Deadline.after(options.timeout_s)
        reply = await PATIENCE.run(lambda: self._model.generate(request, deadline=deadline), deadline=deadline)
        return [{**row, "messages": None, **_columns(reply)}]

    def _as_failed(self, row: Row, exc: Exception) -> Row:
        # A row without a text may have cost one.
        return {**super()._as_failed(row, exc), "cost_usd": exc.cost_usd if isinstance(exc, RapportError) else None}


def _columns(reply: LanguageModelReply) -> Row:
    return {
        "text": reply.text.encode("utf-8", "replace").decode(),  # half a surrogate pair would fail the whole block
        "engine": reply.engine,
        "model": reply.model,
        "degraded": reply.degraded,
        "finish_reason": reply.finish_reason.value,
        "prompt_tokens": reply.usage.prompt_tokens,
        "completion_tokens": reply.usage.completion_tokens,
        "cached_tokens": reply.usage.cached_tokens,
        "cost_usd": reply.cost_usd,
    }
