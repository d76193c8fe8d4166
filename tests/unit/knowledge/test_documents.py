"""Reading documents: what is accepted, and errors that name the file and the field."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from models.errors import InvalidRequest
from models.knowledge.documents import load_documents, parse_document
from models.knowledge.types import DocumentKind

FRONT = """id: refunds
title: "Refunds"
owner: billing
version: 1.2
approved: true
valid_from: 2026-01-01
valid_until: 2026-12-31
audience: [customer]
topics: [money]
kind: policy"""


def article(front: str = FRONT, body: str = "## How\n\nAsk us.") -> str:
    return f"---\n{front}\n---\n\n{body}\n"


def test_a_document_holds_its_front_matter_and_body() -> None:
    document = parse_document(article(), source="refunds.md")
    assert (document.document_id, document.version, document.kind) == ("refunds", "1.2", DocumentKind.POLICY)
    assert document.valid_until == date(2026, 12, 31)
    assert document.body == "## How\n\nAsk us."


def test_windows_line_ends_and_a_byte_order_mark_change_nothing() -> None:
    odd = "\ufeff" + article().replace("\n", "\r\n")
    assert parse_document(odd, source="a") == parse_document(article(), source="a")


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('title: "Refunds"\n', "", "title"),
        ("approved: true", "approved: perhaps", "approved"),
        ("valid_from: 2026-01-01", "valid_from: soon", "valid_from"),
        ("valid_until: 2026-12-31", "valid_until: 2025-12-31", "valid_until"),
        ("kind: policy", "kind: poem", "kind"),
        ("topics: [money]", "topics: money", "topics"),
        ("owner: billing", "owner: [billing]", "owner"),
        ("owner: billing", "owner: billing\nauthor: me", "author"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(old: str, new: str, field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"refunds.md: {field}") as caught:
        parse_document(article(FRONT.replace(old, new)), source="refunds.md")
    assert caught.value.fields[0].pointer == f"/{field}"


@pytest.mark.parametrize(
    "text", ["no front matter", "---\nid: x\nnever closed", "---\n: [\n---\nbody", "---\n- a\n---\nb"]
)
def test_text_without_proper_front_matter_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^x\.md: "):
        parse_document(text, source="x.md")


def test_an_empty_body_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="body is empty"):
        parse_document(article(body=" "), source="x.md")


def test_two_files_with_one_id_are_refused_and_both_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(article())
    (tmp_path / "b.md").write_text(article())
    with pytest.raises(InvalidRequest, match=r"b\.md: id .*a\.md"):
        load_documents([tmp_path])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"gone\.md"):
        load_documents([tmp_path / "gone.md"])
