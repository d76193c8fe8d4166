"""The models behind the OpenAI-compatible surface in ingress tests, each bent by a test through its fields."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from models.embedding.protocol import Vectors
from models.errors import ContextLengthExceeded, FieldError
from models.llm.types import Delta, FinishReason, LanguageModelReply, LanguageModelRequest, ToolCall, Usage
from models.resilience.deadline import Deadline
from models.safety.types import Decision, Finding, Harm, Purpose, Verdict


def echoing(request: LanguageModelRequest) -> LanguageModelReply:
    """Repeats the last user message, word by word."""
    words = request.question.split()
    return LanguageModelReply(
        text=request.question,
        engine="scripted",
        model="scripted-1",
        usage=Usage(prompt_tokens=10, completion_tokens=len(words), cached_tokens=4),
        cost_usd=0.001,
    )


def saying(
    text: str, *, finish: FinishReason = FinishReason.STOP, calls: Sequence[ToolCall] = ()
) -> LanguageModelReply:
    return LanguageModelReply(
        text=text, engine="scripted", model="scripted-1", finish_reason=finish, tool_calls=tuple(calls)
    )


@dataclass
class FakeLanguageModel:
    """Streams each word of what `answer` says. With a `gate` it waits there after the first word, or before a whole
    reply; `fails` is raised at the start, `breaks` after the first word."""

    answer: Callable[[LanguageModelRequest], LanguageModelReply] = echoing
    fails: Exception | None = None
    breaks: Exception | None = None
    gate: asyncio.Event | None = None
    requests: list[LanguageModelRequest] = field(default_factory=list)
    #: What was left of each request's deadline.
    remaining_s: list[float] = field(default_factory=list)
    started: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    cancelled: int = 0
    given_up: asyncio.Event = field(default_factory=asyncio.Event)

    async def generate(self, request: LanguageModelRequest, *, deadline: Deadline) -> LanguageModelReply:
        self.requests.append(request)
        self.remaining_s.append(deadline.remaining_s())
        self.started.release()
        if self.fails is not None:
            raise self.fails
        await self._wait()
        return self.answer(request)

    async def stream(self, request: LanguageModelRequest, *, deadline: Deadline) -> AsyncIterator[Delta]:
        self.requests.append(request)
        self.remaining_s.append(deadline.remaining_s())
        if self.fails is not None:
            raise self.fails
        reply = self.answer(request)
        for number, word in enumerate(reply.text.split(" ") if reply.text else ()):
            yield Delta(text=f" {word}" if number else word)
            if not number:
                self.started.release()
                await self._wait()
                if self.breaks is not None:
                    raise self.breaks
        yield Delta(reply=reply)

    async def _wait(self) -> None:
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            self.given_up.set()
            raise

    async def check_health(self) -> None:
        return None

    async def close(self) -> None:
        return None


@dataclass
class FakeEmbedder:
    """Three numbers for each text; a word is a token, and 8 of them fill the window."""

    model_id: str = "all-minilm-l6-v2"
    fails: Exception | None = None

    async def embed(self, texts: Sequence[str], *, deadline: Deadline | None = None) -> Vectors:
        rows = [[len(text), text.count("e") + 0.1, 1 / 3] for text in texts]
        return np.asarray(rows, dtype=np.float32)

    async def embed_strict(
        self, texts: Sequence[str], *, deadline: Deadline | None = None
    ) -> tuple[Vectors, list[int]]:
        if self.fails is not None:
            raise self.fails
        counts = [len(text.split()) for text in texts]
        for index, count in enumerate(counts):
            if count > 8:
                error = ContextLengthExceeded("the text is longer than the model's window")
                raise error.with_fields(FieldError(f"/input/{index}", f"has {count} tokens; the window is 8"))
        return await self.embed(texts), counts


@dataclass
class FakeGate:
    """Objects to what speaks of hurting; `available` false is a gate that fails closed."""

    available: bool = True

    async def check(
        self,
        texts: Sequence[str],
        *,
        purpose: Purpose,
        vectors: Vectors | None = None,
        deadline: Deadline | None = None,
    ) -> list[Verdict]:
        return [self._verdict("hurt" in text) for text in texts]

    def _verdict(self, violent: bool) -> Verdict:
        if not self.available:
            return Verdict(decision=Decision.ESCALATE, available=False)
        findings = tuple(
            Finding(
                harm=harm, severity=6 if violent and harm is Harm.VIOLENCE else 0, probability=0.9 if violent else 0.1
            )
            for harm in Harm
        )
        if not violent:
            return Verdict(decision=Decision.ALLOW, findings=findings)
        return Verdict(decision=Decision.ESCALATE, findings=findings, harms=(Harm.VIOLENCE,))
