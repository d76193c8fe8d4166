"""Cuts a document into the parts that are embedded and found."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from models.knowledge.types import Chunk, Document
from models.llm.sentences import SentenceKind, split_sentences

#: Part of every fingerprint: raise it when the same document would be cut or embedded differently.
CHUNKING_VERSION = "1"

_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkSize:
    """Sections shorter than `min_words` join their neighbour; longer than `max_words` are cut at sentence ends.

    180 words with title and heading stay inside MiniLM's window of 256 tokens for English prose.
    """

    min_words: int = 30
    max_words: int = 160


@dataclass(slots=True)
class _Section:
    heading: str
    start: int
    end: int


def chunk_document(document: Document, size: ChunkSize | None = None) -> list[Chunk]:
    """Chunks in order; each text is a verbatim substring of the body, and together they hold every sentence of it.

    Ids carry a digest of the text, so a changed document never reuses the id of other words.
    """
    size = size or ChunkSize()
    body = document.body
    chunks: list[Chunk] = []
    for section in _merge_small(body, _sections(body), size):
        for start, end in _cut(body, section, size.max_words):
            text = body[start:end].strip()
            if not text:
                continue
            digest = hashlib.sha256(f"{document.version}\n{section.heading}\n{text}".encode()).hexdigest()[:12]
            chunks.append(
                Chunk(
                    chunk_id=f"{document.document_id}#{len(chunks)}-{digest}",
                    document_id=document.document_id,
                    position=len(chunks),
                    heading=section.heading,
                    text=text,
                )
            )
    return chunks


def embedding_text(document: Document, chunk: Chunk) -> str:
    """What is embedded for a chunk: the title and heading give the words their topic."""
    return "\n".join(part for part in (document.title, chunk.heading, chunk.text) if part)


def _sections(body: str) -> Iterator[_Section]:
    """Spans from one heading line to the next; words before the first heading are a section of their own."""
    current = _Section("", 0, 0)
    for sentence in split_sentences(body):
        if sentence.kind is not SentenceKind.HEADING:
            continue
        line = body.rfind("\n", 0, sentence.start) + 1
        current.end = line
        if body[current.start : current.end].strip():
            yield current
        current = _Section(sentence.plain, line, line)
    current.end = len(body)
    if body[current.start :].strip():
        yield current


def _merge_small(body: str, sections: Iterator[_Section], size: ChunkSize) -> Iterator[_Section]:
    open_section: _Section | None = None
    for section in sections:
        if open_section is None:
            open_section = section
            continue
        held = _words(body, open_section.start, open_section.end)
        joined = _words(body, open_section.start, section.end)
        if min(held, joined - held) < size.min_words and joined <= size.max_words:
            heading = open_section.heading or section.heading
            open_section = _Section(heading, open_section.start, section.end)
        else:
            yield open_section
            open_section = section
    if open_section is not None:
        yield open_section


def _cut(body: str, section: _Section, max_words: int) -> Iterator[tuple[int, int]]:
    """The section whole, or in pieces of at most `max_words` that begin at sentences."""
    if _words(body, section.start, section.end) <= max_words:
        yield section.start, section.end
        return
    starts = [section.start + s.start for s in split_sentences(body[section.start : section.end])[1:]]
    left = section.start
    last_fit = left
    for at in [*starts, section.end]:
        if _words(body, left, at) > max_words and last_fit > left:
            yield left, last_fit
            left = last_fit
        while _words(body, left, at) > max_words:  # one sentence longer than a chunk
            words = list(_WORD.finditer(body, left, at))
            yield left, words[max_words - 1].end()
            left = words[max_words].start()
        last_fit = at
    if left < section.end:
        yield left, section.end


def _words(body: str, start: int, end: int) -> int:
    return sum(1 for _ in _WORD.finditer(body, start, end))
