"""Finds the sentences of a Markdown text as spans, so that a sentence is always a verbatim substring."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class SentenceKind(StrEnum):
    PROSE = "prose"
    ITEM = "item"
    HEADING = "heading"
    TABLE = "table"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """`text` is `source[start:end]`. `marker` is the list mark that stood before the first sentence of an item."""

    text: str
    start: int
    end: int
    kind: SentenceKind
    marker: str = ""

    @property
    def plain(self) -> str:
        """The sentence as a reader of plain text wants it: one line, without Markdown marks."""
        text = _LINK.sub(r"\1", self.text)
        text = _EMPHASIS.sub(r"\2", text)
        return re.sub(r"\s+", " ", text.replace("`", "")).strip()

    @property
    def has_markup(self) -> bool:
        return self.plain != re.sub(r"\s+", " ", self.text)

    @property
    def introduces_list(self) -> bool:
        return self.kind is not SentenceKind.HEADING and self.text.endswith(":")


_LINE = re.compile(r"[^\n]*(?:\n|\Z)")
_FENCE = re.compile(r"\s*(?:```|~~~)")
_HEADING = re.compile(r"\s{0,3}#{1,6}\s+(?P<body>.+?)\s*#*\s*$")
_ITEM = re.compile(r"\s*(?P<mark>[-*+]|\d{1,3}[.)])\s+(?=\S)")
_QUOTE = re.compile(r"\s*>\s?")
_TABLE = re.compile(r"\s*\|")
_RULE = re.compile(r"\s*(?:-{3,}|\*{3,}|_{3,})\s*$")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_EMPHASIS = re.compile(r"(?<!\w)(\*\*|__|\*|_)(?=\S)(.+?)(?<=\S)\1(?!\w)", re.DOTALL)

# A sentence ends at . ! ? (with closing quotes or brackets) before white space and a capital, a digit or an opener.
_END = re.compile(r"[.!?…]+[\"'”’)\]*_]*(?=\s+[\"'“‘(\[*_`]*[A-Z0-9])")
_NEVER_ENDS = re.compile(
    r"(?:^|[\s(\[\"'“‘])(?:e\.g|i\.e|cf|vs|approx|incl|excl|ref|ext|tel|mr|mrs|ms|dr|prof|st|(?:[a-z]\.)+[a-z])\.$",
    re.IGNORECASE,
)
_BEFORE_NUMBER = re.compile(r"\b(?:no|nos|art|sec|fig|p|pp|ch)\.$", re.IGNORECASE)
_CLOCK = re.compile(r"\b[ap]\.m\.$", re.IGNORECASE)
_WEEKDAY = re.compile(r"\s+(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day")


@functools.lru_cache(maxsize=8192)
def split_sentences(source: str) -> tuple[Sentence, ...]:
    """The sentences of a Markdown text in order.

    Headings, list items and table rows end where they end; a paragraph's wrapped lines belong together; fenced code is
    left out; abbreviations, initials and clock times do not end a sentence.
    """
    found: list[Sentence] = []
    for start, end, kind, marker in _blocks(source):
        if kind in (SentenceKind.HEADING, SentenceKind.TABLE):
            found.append(Sentence(text=source[start:end], start=start, end=end, kind=kind))
            continue
        for index, (left, right) in enumerate(_split_block(source, start, end)):
            mark = marker if index == 0 else ""
            found.append(Sentence(text=source[left:right], start=left, end=right, kind=kind, marker=mark))
    return tuple(found)


def _blocks(source: str) -> Iterator[tuple[int, int, SentenceKind, str]]:
    """Spans of headings, rows, items and paragraphs, without their leading marks."""
    open_block: tuple[int, int, SentenceKind, str] | None = None
    fenced = False
    for match in _LINE.finditer(source):
        line, at = match.group(), match.start()
        if not line:
            continue
        if _FENCE.match(line):
            fenced = not fenced
            line = ""
        elif fenced:
            continue
        quoted = _QUOTE.match(line)
        if quoted:
            at += quoted.end()
            line = line[quoted.end() :]
        start = at + len(line) - len(line.lstrip())
        end = at + len(line.rstrip())
        heading, item, row = _HEADING.match(line), _ITEM.match(line), _TABLE.match(line)
        starts_block = bool(not line.strip() or heading or item or row or _RULE.match(line) or quoted)
        if open_block and not starts_block:
            open_block = (open_block[0], end, *open_block[2:])
            continue
        if open_block:
            yield open_block
            open_block = None
        if not line.strip() or _RULE.match(line):
            continue
        if heading:
            yield at + heading.start("body"), at + heading.end("body"), SentenceKind.HEADING, ""
        elif row:
            yield start, end, SentenceKind.TABLE, ""
        elif item:
            open_block = (at + item.end(), end, SentenceKind.ITEM, item.group("mark"))
        elif quoted:
            # The next line's quote mark must not fall inside the span, so a quoted line stands alone.
            yield start, end, SentenceKind.PROSE, ""
        else:
            open_block = (start, end, SentenceKind.PROSE, "")
    if open_block:
        yield open_block


def _split_block(source: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    left = start
    for match in _END.finditer(source, start, end):
        if _continues(source, left, match.end(), end):
            continue
        yield left, match.end()
        left = match.end() + len(source[match.end() : end]) - len(source[match.end() : end].lstrip())
    if left < end:
        yield left, end


def _continues(source: str, left: int, dot: int, end: int) -> bool:
    """Whether what looks like the end of a sentence is an abbreviation inside it."""
    before = source[left:dot]
    if _CLOCK.search(before):
        return bool(_WEEKDAY.match(source, dot, end))
    if _BEFORE_NUMBER.search(before):
        return source[dot:end].lstrip()[:1].isdigit()
    return bool(_NEVER_ENDS.search(before))
