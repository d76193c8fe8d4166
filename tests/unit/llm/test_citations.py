"""Citation marks of a model: kept if verbatim, dropped otherwise, never shown."""

from __future__ import annotations

import pytest

from models.llm.citations import MarkFilter, cited, without_marks
from models.llm.types import SourcePassage

REFUNDS = SourcePassage(
    passage_id="p1",
    document_id="refunds",
    title="Refunds",
    version="2",
    text="Refunds are paid\nwithin five business days. Shipping is not refunded (see terms).",
)
SEATS = SourcePassage(passage_id="p2", document_id="seats", title="Seats", version="1", text="A seat costs $10.")


def quotes(text: str) -> list[tuple[str, str]]:
    return [(c.document_id, c.quote) for c in cited(text, [REFUNDS, SEATS])]


def test_a_quote_is_found_although_the_model_reflowed_its_lines() -> None:
    text = 'You get it soon [1 "paid within five business days"].'
    assert quotes(text) == [("refunds", "paid\nwithin five business days")]


@pytest.mark.parametrize(
    "mark", ['[1 "within two business days"]', '[3 "A seat costs $10."]', '[0 "A seat costs $10."]', '[2 ""]']
)
def test_a_citation_that_is_not_verbatim_or_has_no_source_is_dropped(mark: str) -> None:
    assert quotes(f"Something {mark}.") == []


def test_a_bare_number_cites_the_sentence_that_holds_the_claim() -> None:
    assert quotes("Hello! A seat costs $10 [2].") == [("seats", "A seat costs $10.")]


def test_a_bare_number_beside_an_unsupported_claim_is_dropped() -> None:
    assert quotes("Seats are free for schools and charities [2].") == []


def test_the_same_quote_is_cited_once() -> None:
    assert len(quotes('A [2 "A seat costs $10."]. B [2 "A seat costs $10."].')) == 1


def test_marks_are_not_shown() -> None:
    assert without_marks('It costs $10 [2 "A seat costs $10."]. Fine [1].') == "It costs $10. Fine."


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_streamed_text_is_the_text_without_marks_however_it_is_cut(size: int) -> None:
    raw = 'It costs $10 [2 "A seat costs $10."] per seat [see below] and array[0] stays. Done [1]'
    marks = MarkFilter()
    shown = "".join(marks.feed(raw[at : at + size]) for at in range(0, len(raw), size)) + marks.close()
    assert shown == without_marks(raw)
    assert marks.raw == raw


def test_no_piece_shows_the_beginning_of_a_mark() -> None:
    marks = MarkFilter()
    assert marks.feed('Ten dollars [2 "A se') == "Ten dollars"


@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_quote_with_brackets_of_its_own_is_not_shown_while_it_arrives(size: int) -> None:
    text = 'Write to us [1 "write to [EMAIL_1] or press [Enter] now"] any time.'
    marks = MarkFilter()
    shown = "".join(marks.feed(text[at : at + size]) for at in range(0, len(text), size)) + marks.close()
    assert shown == "Write to us any time."
