"""Chunks: verbatim, complete, of bounded size, under their headings."""

from __future__ import annotations

import re
from datetime import date

import pytest

from models.knowledge.chunking import ChunkSize, chunk_document, embedding_text
from models.knowledge.types import Document
from models.llm.sentences import split_sentences

SIZE = ChunkSize(min_words=10, max_words=40)


def document(body: str, version: str = "1") -> Document:
    return Document(
        document_id="d",
        title="Title",
        body=body,
        owner="o",
        version=version,
        approved=True,
        valid_from=date(2026, 1, 1),
    )


def prose(sentences: int, words: int = 8) -> str:
    return " ".join(f"Sentence {n} has " + "word " * (words - 4) + "end." for n in range(sentences))


BODIES = {
    "sections": f"Intro words.\n\n## First\n\n{prose(3)}\n\n## Second\n\n{prose(3)}\n",
    "long section": f"## Only\n\n{prose(30)}\n",
    "one endless sentence": "## Only\n\n" + "word " * 200,
    "list": "## Steps\n\n" + "\n".join(f"{n}. Step {n} is to do a thing." for n in range(1, 25)),
    "no heading": prose(3),
    "code": "## Code\n\n```\n" + "x = 1\n" * 60 + "```\n\nThe end is here.",
    "many tiny sections": "\n\n".join(f"## H{n}\n\nTiny text {n}." for n in range(30)),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_chunks_are_verbatim_bounded_and_hold_every_word_in_order(body: str) -> None:
    chunks = chunk_document(document(body), SIZE)
    assert all(chunk.text in body for chunk in chunks)
    assert all(len(chunk.text.split()) <= SIZE.max_words for chunk in chunks)
    assert " ".join(chunk.text for chunk in chunks).split() == body.split()
    assert [chunk.position for chunk in chunks] == list(range(len(chunks)))
    assert len({chunk.chunk_id for chunk in chunks}) == len(chunks)


def test_a_long_section_is_cut_at_sentences_and_keeps_its_heading() -> None:
    body = BODIES["long section"]
    chunks = chunk_document(document(body), SIZE)
    assert len(chunks) > 1
    assert {chunk.heading for chunk in chunks} == {"Only"}
    whole = {s.text for s in split_sentences(body)}
    assert all(s.text in whole for chunk in chunks for s in split_sentences(chunk.text))


def test_sections_of_good_size_stand_alone_under_their_heading() -> None:
    chunks = chunk_document(document(BODIES["sections"]), SIZE)
    assert [re.findall(r"## (\w+)", chunk.text) for chunk in chunks] == [["First"], ["Second"]]


def test_the_embedded_text_names_title_and_heading() -> None:
    one = document(BODIES["long section"])
    assert embedding_text(one, chunk_document(one, SIZE)[0]).startswith("Title\nOnly\n")


def test_ids_are_stable_and_change_with_text_and_version() -> None:
    ids = [
        {c.chunk_id for c in chunk_document(document(prose(3, words), version))}
        for words, version in ((8, "1"), (8, "1"), (9, "1"), (8, "2"))
    ]
    assert ids[0] == ids[1]
    assert not ids[0] & ids[2]
    assert not ids[0] & ids[3]
