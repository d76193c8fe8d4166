"""Cuts texts into pieces that an embedding can tell apart.

A vector averages all it is made from: one harmful sentence among three harmless ones no longer shows in the vector of
the whole. So every sentence is looked at alone, and longer windows keep the context that single sentences lose.
"""

from __future__ import annotations

import re

WINDOW_CHARS = 400
SENTENCE_CHARS = 160
#: Fragments up to this length ("Yes." or "Dr.") say nothing alone and stay with what follows.
FRAGMENT_CHARS = 12

_SENTENCE = re.compile(r"[^.!?\n]*[.!?\n]+\s*|[^.!?\n]+")


def split_windows(text: str) -> tuple[str, ...]:
    """The pieces of a text to be judged, worst one counting: windows of sentences first, then each sentence alone.

    A text of at most `WINDOW_CHARS` is its own first window; of a single sentence, its only one. No piece is blank or
    longer than its limit, and a sentence or word beyond the limit is cut, so that together they hold every word.
    """
    if not text.strip():
        return ()
    sentences = [part for sentence in _sentences(text) for part in _cut(sentence)]
    windows = [text] if len(text) <= WINDOW_CHARS else _pack(sentences, WINDOW_CHARS)
    if len(sentences) > 1:
        windows += [sentence.strip() for sentence in sentences]
    return tuple(dict.fromkeys(window for window in windows if window.strip()))


def _sentences(text: str) -> list[str]:
    joined: list[str] = []
    pending = ""
    for sentence in _SENTENCE.findall(text):
        pending += sentence
        if len(pending.strip()) > FRAGMENT_CHARS:
            joined.append(pending)
            pending = ""
    if pending:
        joined.append(pending)
    return joined


def _cut(sentence: str) -> list[str]:
    """The sentence in parts of at most `SENTENCE_CHARS`, cut after a comma if there is one, else between words."""
    parts: list[str] = []
    while len(sentence) > SENTENCE_CHARS:
        half = SENTENCE_CHARS // 2
        at = max(sentence.rfind(mark, half, SENTENCE_CHARS) for mark in (",", ";", ":"))
        if at < 0:
            at = sentence.rfind(" ", 1, SENTENCE_CHARS)
        end = at + 1 if at > 0 else SENTENCE_CHARS
        parts.append(sentence[:end])
        sentence = sentence[end:]
    parts.append(sentence)
    return parts


def _pack(sentences: list[str], limit: int) -> list[str]:
    windows = [""]
    for sentence in sentences:
        if windows[-1] and len(windows[-1]) + len(sentence) > limit:
            windows.append("")
        windows[-1] += sentence
    return [window.strip() for window in windows]
