"""Sentences of Markdown are verbatim spans, cut where a reader would cut."""

from __future__ import annotations

import pytest

from models.llm.sentences import SentenceKind, split_sentences

ARTICLE = """# Refunds

A refund is paid to the card
you used, e.g. a Visa card. It takes 5.5 days! See **Settings** > [Billing](/billing).

Steps to follow:

1. Open Orders.
2. Choose the order, i.e. the newest one.

- Call us from 9 a.m. Monday to Friday. Closed on holidays.

| Plan | Price |
|---|---|

> A quoted note.

```
code. Not a sentence.
```

Ask Dr. Meyer about No. 7. Then wait"""


def test_every_sentence_is_a_substring_at_its_place() -> None:
    for sentence in split_sentences(ARTICLE):
        assert ARTICLE[sentence.start : sentence.end] == sentence.text


def test_a_reader_would_cut_here() -> None:
    found = [(s.kind, s.plain) for s in split_sentences(ARTICLE) if s.kind is not SentenceKind.TABLE]
    assert found == [
        (SentenceKind.HEADING, "Refunds"),
        (SentenceKind.PROSE, "A refund is paid to the card you used, e.g. a Visa card."),
        (SentenceKind.PROSE, "It takes 5.5 days!"),
        (SentenceKind.PROSE, "See Settings > Billing."),
        (SentenceKind.PROSE, "Steps to follow:"),
        (SentenceKind.ITEM, "Open Orders."),
        (SentenceKind.ITEM, "Choose the order, i.e. the newest one."),
        (SentenceKind.ITEM, "Call us from 9 a.m. Monday to Friday."),
        (SentenceKind.ITEM, "Closed on holidays."),
        (SentenceKind.PROSE, "A quoted note."),
        (SentenceKind.PROSE, "Ask Dr. Meyer about No. 7."),
        (SentenceKind.PROSE, "Then wait"),
    ]


def test_only_the_first_sentence_of_an_item_carries_the_mark() -> None:
    marks = [s.marker for s in split_sentences(ARTICLE) if s.kind is SentenceKind.ITEM]
    assert marks == ["1.", "2.", "-", ""]


@pytest.mark.parametrize("text", ["", "\n\n", "...", "# ", "```\nnever closed", "| |", "- ", "1. ", ">"])
def test_odd_input_never_raises_and_stays_verbatim(text: str) -> None:
    assert all(text[s.start : s.end] == s.text and s.text for s in split_sentences(text))
