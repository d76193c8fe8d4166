"""An answer out of approved passages: searched, generated, checked for verbatim quotes, and moderated."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from models.embedding.protocol import Vectors
from models.errors import (
    BudgetExhausted,
    DeadlineExceeded,
    DependencyUnavailable,
    ModelRefused,
    Overloaded,
    UnsupportedByModel,
)
from models.knowledge.protocol import KnowledgeSearch
from models.knowledge.types import DocumentKind
from models.llm.protocol import LanguageModel
from models.llm.types import ChatMessage, Citation, LanguageModelReply, LanguageModelRequest, SourcePassage, Usage
from models.resilience.deadline import Deadline
from models.safety.protocol import SafetyGate
from models.safety.types import Purpose
from models.telemetry import Transition

logger = logging.getLogger(__name__)

#: No answer from a part, for whichever reason: a full queue or an empty purse is one of them.
_AWAY = (DependencyUnavailable, DeadlineExceeded, Overloaded, BudgetExhausted)


#: An offer is for campaigns: who asks for support must not be sold something instead.
_ANSWERING = (DocumentKind.HELP, DocumentKind.SAFETY, DocumentKind.POLICY)


class AnswerState(StrEnum):
    """How the search for an answer ended."""

    ANSWERED = "answered"
    NO_MATCH = "no_match"
    UNGROUNDED = "ungrounded"
    BLOCKED = "blocked"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A moderated text with its quotes, or the reason why there is none; `text` is set only when answered.

    `cost_usd` is `None` when a language model was asked and nobody knows what it cost.
    """

    state: AnswerState
    path: tuple[str, ...]
    text: str | None = None
    citations: tuple[Citation, ...] = ()
    engine: str = ""
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = 0.0
    degraded: tuple[str, ...] = ()
    timings_ms: dict[str, float] = field(default_factory=dict)


class KnowledgeAnswerer:
    """Answers only with what a passage says: a reply without a verbatim quote is no answer."""

    def __init__(
        self,
        knowledge: KnowledgeSearch,
        language_model: LanguageModel,
        safety_gate: SafetyGate,
        *,
        limit: int = 5,
        min_score: float = 0.45,
        max_tokens: int = 512,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._knowledge = knowledge
        self._language_model = language_model
        self._safety_gate = safety_gate
        self._limit = limit
        self._min_score = min_score
        self._max_tokens = max_tokens
        self._timer = timer
        self._knowledge_seen = Transition("knowledge", logger)
        self._model_seen = Transition("language_model", logger)

    async def answer(
        self,
        query: str,
        messages: Sequence[ChatMessage],
        *,
        vector: Vectors | None,
        deadline: Deadline,
        request_id: str = "",
        own_passages: Sequence[SourcePassage] = (),
    ) -> Answer:
        """Search with `query`, then generate from `messages`; never raises for an unavailable or overloaded part.

        `own_passages` are facts of the caller that an answer may quote beside what the search finds.
        """
        timings: dict[str, float] = {}
        started = self._timer()
        try:
            passages = await self._knowledge.search(
                query,
                limit=self._limit,
                min_score=self._min_score,
                kinds=_ANSWERING,
                vector=None if vector is None else vector[0],
                deadline=deadline,
            )
        except _AWAY as exc:
            self._knowledge_seen.down(exc)
            return Answer(state=AnswerState.UNAVAILABLE, path=("knowledge_unavailable",), degraded=("knowledge",))
        finally:
            timings["retrieve"] = _ms(self._timer() - started)
        self._knowledge_seen.up()
        sources = (*(passage.as_source() for passage in passages), *own_passages)
        if not sources:
            return Answer(state=AnswerState.NO_MATCH, path=("knowledge_searched", "no_match"), timings_ms=timings)
        started = self._timer()
        request = LanguageModelRequest(
            messages=tuple(messages),
            passages=sources,
            max_tokens=self._max_tokens,
            metadata={"request_id": request_id},
        )
        path: tuple[str, ...] = ("knowledge_searched", "match_found")
        try:
            reply = await self._language_model.generate(request, deadline=deadline)
        except (ModelRefused, UnsupportedByModel) as exc:
            timings["generate"] = _ms(self._timer() - started)
            path = (*path, "model_refused")
            return Answer(state=AnswerState.UNGROUNDED, path=path, cost_usd=exc.cost_usd, timings_ms=timings)
        except _AWAY as exc:
            self._model_seen.down(exc)
            return Answer(
                state=AnswerState.UNAVAILABLE,
                path=(*path, "language_model_unavailable"),
                cost_usd=exc.cost_usd,
                degraded=("language_model",),
                timings_ms=timings,
            )
        self._model_seen.up()
        timings["generate"] = _ms(self._timer() - started)
        return await self._moderated(reply, sources, path, timings, deadline)

    async def _moderated(
        self,
        reply: LanguageModelReply,
        passages: Sequence[SourcePassage],
        path: tuple[str, ...],
        timings: dict[str, float],
        deadline: Deadline,
    ) -> Answer:
        degraded = ("language_model",) if reply.degraded else ()
        citations = tuple(citation for citation in reply.citations if _verbatim(citation, passages))
        if not reply.text.strip() or not citations:
            return Answer(
                state=AnswerState.UNGROUNDED,
                path=(*path, "ungrounded"),
                engine=reply.engine,
                usage=reply.usage,
                cost_usd=reply.cost_usd,
                degraded=degraded,
                timings_ms=timings,
            )
        started = self._timer()
        allowed, available = await check_reply(self._safety_gate, reply.text, deadline=deadline)
        timings["moderate_reply"] = _ms(self._timer() - started)
        return Answer(
            state=AnswerState.ANSWERED if allowed else AnswerState.BLOCKED,
            path=(*path, "answered" if allowed else "reply_blocked"),
            text=reply.text if allowed else None,
            citations=citations if allowed else (),
            engine=reply.engine,
            usage=reply.usage,
            cost_usd=reply.cost_usd,
            degraded=degraded if available else (*degraded, "moderation"),
            timings_ms=timings,
        )


async def check_reply(gate: SafetyGate, text: str, *, deadline: Deadline) -> tuple[bool, bool]:
    """Whether the text may be sent, and whether moderation ran; a gate that fails in any way blocks."""
    try:
        verdict = (await gate.check([text], purpose=Purpose.REPLY, deadline=deadline))[0]
    except Exception as exc:  # whatever it is, nobody looked at the reply
        logger.warning("a reply was withheld unmoderated", extra={"error": type(exc).__name__})
        return False, False
    return verdict.allowed, verdict.available


def _verbatim(citation: Citation, passages: Sequence[SourcePassage]) -> bool:
    return bool(citation.quote.strip()) and any(
        passage.passage_id == citation.passage_id and citation.quote in passage.text for passage in passages
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
