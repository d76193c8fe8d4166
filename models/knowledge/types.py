"""Values of the knowledge contract: Document > Chunk; a hit is a Passage."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from models.llm.types import SourcePassage


class DocumentKind(StrEnum):
    HELP = "help"
    OFFER = "offer"
    SAFETY = "safety"
    POLICY = "policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A text a company stands behind. Only approved documents inside their validity are ever cited."""

    document_id: str
    title: str
    body: str
    owner: str
    version: str
    approved: bool
    valid_from: date
    valid_until: date | None = None
    kind: DocumentKind = DocumentKind.HELP
    topics: tuple[str, ...] = ()
    audience: tuple[str, ...] = ("customer",)

    def citable_on(self, day: date) -> bool:
        """Whether the document may be cited on that day (both ends included)."""
        return self.approved and self.valid_from <= day and (self.valid_until is None or day <= self.valid_until)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A part of one document that is embedded and found as a whole."""

    chunk_id: str
    document_id: str
    position: int
    heading: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A chunk found for a query; `score` is the cosine similarity, -1 to 1."""

    chunk: Chunk
    title: str
    version: str
    kind: DocumentKind
    score: float

    def as_source(self) -> SourcePassage:
        """The passage as a language model may quote it."""
        return SourcePassage(
            passage_id=self.chunk.chunk_id,
            document_id=self.chunk.document_id,
            title=self.title,
            version=self.version,
            text=self.chunk.text,
            score=self.score,
        )
