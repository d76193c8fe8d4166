"""The embedded default: answers with the best sentences of the passages, verbatim, and cites each."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from models.embedding.protocol import Embedder
from models.errors import InvalidRequest, ModelRefused, UnsupportedByModel
from models.llm.selection import Candidate, Selection, find_candidates, rank, select
from models.llm.types import (
    Capabilities,
    Citation,
    Delta,
    FinishReason,
    LanguageModelReply,
    LanguageModelRequest,
    Usage,
)
from models.resilience.deadline import Deadline
from models.settings import LanguageModelSettings

_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """One cited sentence of a reply; `text` carries the space or line break that joins it to the piece before."""

    text: str
    citation: Citation


class ExtractiveLanguageModel:
    """Picks and joins sentences of the passages; the same request always gets the same reply.

    It writes nothing of its own, so it cannot invent: a reply is one to four sentences (or one list) in the order of
    the passages. It refuses with `ModelRefused` when no sentence is close enough to the question, and with
    `UnsupportedByModel` what it cannot do: tools, schemas, and answers without passages.
    """

    engine: ClassVar[str] = "extractive"
    capabilities: ClassVar[Capabilities] = Capabilities(
        streaming=True, tools=False, schema=False, free_text=False, external=False
    )

    def __init__(self, embedder: Embedder, *, selection: Selection | None = None) -> None:
        self._embedder = embedder
        self._selection = selection or Selection()

    @classmethod
    def from_settings(cls, settings: LanguageModelSettings, embedder: Embedder) -> Self:
        """The engine has no settings of its own: what it needs is the embedder."""
        return cls(embedder)

    async def generate(self, request: LanguageModelRequest, *, deadline: Deadline) -> LanguageModelReply:
        """The whole reply; raises as the class says, and `DeadlineExceeded`."""
        pieces, cut = await self._answer(request, deadline)
        return self._reply(request, pieces, cut)

    async def stream(self, request: LanguageModelRequest, *, deadline: Deadline) -> AsyncIterator[Delta]:
        """One delta a sentence, then the reply; the deltas joined are the reply's text."""
        pieces, cut = await self._answer(request, deadline)
        for piece in pieces:
            yield Delta(text=piece.text)
        yield Delta(reply=self._reply(request, pieces, cut))

    async def check_health(self) -> None:
        """Return if the embedder can embed; raise `ModelUnavailable` otherwise."""
        await self._embedder.embed(["health"])

    async def close(self) -> None:
        """Nothing to release: the embedder belongs to whoever built it."""

    async def _answer(self, request: LanguageModelRequest, deadline: Deadline) -> tuple[list[_Piece], bool]:
        if not request.messages:
            raise InvalidRequest("a request to a language model needs at least one message")
        question = request.question.strip()
        if request.tools:
            raise UnsupportedByModel("the extractive engine cannot call tools")
        if request.response_schema is not None:
            raise UnsupportedByModel("the extractive engine cannot fill a schema")
        if not request.passages or not question:
            raise UnsupportedByModel(
                "the extractive engine answers a question from passages and has no text of its own"
            )
        candidates = find_candidates(request.passages)
        texts = [question, *(c.sentence.plain for c in candidates), *(c.topic for c in candidates)]
        vectors = await self._embedder.embed(texts, deadline=deadline)
        sentences, topics = vectors[1 : 1 + len(candidates)], vectors[1 + len(candidates) :]
        ranked = rank(question, candidates, vectors[0], sentences, topics, self._selection)
        chosen = select(ranked, sentences, self._selection)
        if not chosen:
            raise ModelRefused("no sentence of the passages is close enough to the question")
        return _pieces(chosen, request.max_tokens)

    def _reply(self, request: LanguageModelRequest, pieces: Sequence[_Piece], cut: bool) -> LanguageModelReply:
        text = "".join(piece.text for piece in pieces)
        prompt = sum(_count(message.content) for message in request.messages)
        prompt += sum(_count(passage.text) for passage in request.passages)
        return LanguageModelReply(
            text=text,
            engine=self.engine,
            model=f"{self.engine}/{self._embedder.model_id}",
            finish_reason=FinishReason.LENGTH if cut else FinishReason.STOP,
            citations=tuple(piece.citation for piece in pieces),
            usage=Usage(prompt_tokens=prompt, completion_tokens=_count(text)),
        )


def _pieces(chosen: Sequence[Candidate], max_tokens: int) -> tuple[list[_Piece], bool]:
    """The chosen sentences as text within the budget, and whether something had to be left out."""
    pieces: list[_Piece] = []
    spent = 0
    for candidate in chosen:
        sentence = candidate.sentence
        cost = _count(sentence.plain)
        if spent + cost > max_tokens:
            if not pieces:
                pieces.append(_piece(candidate, _cut(sentence.text, max_tokens), first=True))
            return pieces, True
        pieces.append(_piece(candidate, sentence.text, first=not pieces))
        spent += cost
    return pieces, False


def _piece(candidate: Candidate, quote: str, *, first: bool) -> _Piece:
    sentence, passage = candidate.sentence, candidate.passage
    plain = sentence.plain if quote == sentence.text else quote
    joint = f"\n{sentence.marker} " if sentence.marker else " "
    citation = Citation(
        passage_id=passage.passage_id,
        document_id=passage.document_id,
        title=passage.title,
        version=passage.version,
        quote=quote,
    )
    return _Piece(text=plain if first else joint + plain, citation=citation)


def _cut(text: str, max_tokens: int) -> str:
    """The longest verbatim beginning of `max_tokens` tokens."""
    ends = [match.end() for match in _TOKEN.finditer(text)]
    return text[: ends[max_tokens - 1]] if 0 < max_tokens <= len(ends) else text[:0]


def _count(text: str) -> int:
    return sum(1 for _ in _TOKEN.finditer(text))
