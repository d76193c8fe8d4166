from __future__ import annotations

import re

import pytest

from models.safety.windows import SENTENCE_CHARS, WINDOW_CHARS, split_windows

PROSE = "The parcel came on Monday. One box was missing! Can you look into it? " * 30


def test_a_short_text_comes_first_as_it_is_then_its_sentences() -> None:
    text = "  The parcel came on Monday. One box was missing."
    assert split_windows(text) == (text, "The parcel came on Monday.", "One box was missing.")


def test_a_single_sentence_is_judged_once() -> None:
    assert split_windows("The parcel came on Monday") == ("The parcel came on Monday",)


@pytest.mark.parametrize("text", ["", "   ", "\n\t\n"])
def test_blank_text_has_no_windows(text: str) -> None:
    assert split_windows(text) == ()


@pytest.mark.parametrize(
    "text",
    [PROSE, "word " * 1200, "x" * 5000, "a, b; c: " * 600, "?!.\n" * 1250, "one two three four " * 40 + "." + PROSE],
    ids=["prose", "no punctuation", "one word", "clauses", "only punctuation", "mixed"],
)
def test_windows_hold_every_word_within_their_limit(text: str) -> None:
    windows = split_windows(text)
    assert all(0 < len(window) <= WINDOW_CHARS for window in windows)
    held = "".join("".join(windows).split())
    assert set(re.findall(r"\w{1,20}", text)) <= set(re.findall(r"\w{1,20}", " ".join(windows)))
    assert len(held) >= min(len("".join(text.split())), SENTENCE_CHARS)


def test_a_fragment_stays_with_what_follows() -> None:
    assert "Yes. I am going to the pharmacy." in split_windows("Yes. I am going to the pharmacy. It opens at nine.")
