"""Reads a model's citation marks, keeps what is verbatim, and takes the marks out of the text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from models.llm.sentences import split_sentences
from models.llm.types import Citation, SourcePassage

# [2 "quote"], [2: “quote”] or a bare [2].
_MARK = re.compile(r"\s*\[(\d{1,2})(?:[\s:,]*[\"“](.*?)[\"”])?\s*\]", re.DOTALL)
# A quote may hold brackets of its own, so only its closing mark ends it.
_MAYBE_MARK = re.compile(r"\s*(?:\[(?:\d{0,2}|\d{1,2}[\s:,]*(?:[\"“].*)?))?\Z", re.DOTALL)
_WORD = re.compile(r"\w+")

#: Share of a claim's words that a sentence must hold to count as the source of a bare [n].
_SUPPORT = 0.6
#: Longest text held back while it may still turn out to be a mark.
_LONGEST_MARK = 600


class MarkFilter:
    """Takes citation marks out of text that arrives in pieces; `raw` is everything as the model wrote it."""

    def __init__(self) -> None:
        self.raw = ""
        self._held = ""

    def feed(self, piece: str) -> str:
        """The text that is certain by now; what may be the beginning of a mark is held back."""
        self.raw += piece
        text = _MARK.sub("", self._held + piece)
        tail = _MAYBE_MARK.search(text)
        cut = tail.start() if tail and len(text) - tail.start() <= _LONGEST_MARK else len(text)
        self._held = text[cut:]
        return text[:cut]

    def close(self) -> str:
        """What was held back and is text after all."""
        rest, self._held = self._held, ""
        return rest.rstrip()


def without_marks(text: str) -> str:
    """The text as a customer reads it."""
    return _MARK.sub("", text).strip()


def cited(text: str, passages: Sequence[SourcePassage]) -> tuple[Citation, ...]:
    """Citations of the marked text, each once, in order.

    A quote that is not in its passage (white space aside) is dropped, and so is a number that no passage has. A bare
    number becomes the sentence of that passage which holds most words of the claim, if it holds enough of them.
    """
    found: dict[tuple[str, str], Citation] = {}
    for mark in _MARK.finditer(text):
        number = int(mark.group(1))
        if not 1 <= number <= len(passages):
            continue
        passage = passages[number - 1]
        claim = text[: mark.start()]
        quote = _verbatim(mark.group(2), passage.text) if mark.group(2) else _supporting(claim, passage.text)
        if quote:
            found.setdefault(
                (passage.passage_id, quote),
                Citation(
                    passage_id=passage.passage_id,
                    document_id=passage.document_id,
                    title=passage.title,
                    version=passage.version,
                    quote=quote,
                ),
            )
    return tuple(found.values())


def _verbatim(quote: str, source: str) -> str:
    """The span of the source that reads like the quote; models re-flow lines, so white space may differ."""
    words = quote.split()
    if not words:
        return ""
    match = re.search(r"\s+".join(re.escape(word) for word in words), source)
    return match.group() if match else ""


def _supporting(before: str, source: str) -> str:
    sentences = split_sentences(_MARK.sub("", before))
    claim = frozenset(_WORD.findall(sentences[-1].text.lower())) if sentences else frozenset()
    if not claim:
        return ""
    shares = [
        (len(claim & frozenset(_WORD.findall(sentence.text.lower()))) / len(claim), -sentence.start, sentence.text)
        for sentence in split_sentences(source)
    ]
    share, _, text = max(shares, default=(0.0, 0, ""))
    return text if share >= _SUPPORT else ""
