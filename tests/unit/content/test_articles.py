"""The articles of the demo company: complete, valid, coherent, and quotable sentence by sentence."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from models.campaign.generation import QUOTE_CHARS
from models.knowledge.documents import load_documents
from models.knowledge.types import Document, DocumentKind
from models.llm.sentences import SentenceKind, split_sentences

ROOT = Path(__file__).parents[3]
ARTICLES = ROOT / "demo" / "articles"
#: The day of the documented Acme Corp example, and one long after it.
DAYS = (date(2024, 11, 13), date(2026, 11, 1))

_SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_BANNED = re.compile(
    r"lorem ipsum|\btodo\b|\btbd\b|click here|guarantee|risk[- ]free|100 ?% safe|no side effects|clinically proven|"
    r"miracle|\bcures?\b|act now|hurry|last chance|limited time|while (?:stocks|supplies) last|best in the world|"
    r"e\.g\.|i\.e\.|\b[ap]\.m\.|!",
    re.IGNORECASE,
)
#: A sentence that begins like this needs the one before it, so it cannot be quoted alone.
_LEANS = re.compile(
    r"(?:It|Its|They|Their|This|That|These|Those|Then|Also|However|Otherwise|Instead|He|She|There|Both|Such|Here|"
    r"And|But|So|Or|Afterwards)\b"
)


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return load_documents([ARTICLES])


@pytest.fixture(scope="module")
def citable(documents: list[Document]) -> list[Document]:
    return [document for document in documents if document.citable_on(DAYS[-1])]


def _words(document: Document) -> int:
    return len(re.sub(r"^## ", "", document.body, flags=re.MULTILINE).split())


def _sentences(document: Document) -> list[str]:
    return [s.text for s in split_sentences(document.body) if s.kind is SentenceKind.PROSE]


@pytest.mark.parametrize("day", DAYS, ids=str)
def test_enough_articles_may_be_cited(documents: list[Document], day: date) -> None:
    assert sum(document.citable_on(day) for document in documents) >= 60


def test_front_matter_says_who_stands_behind_each_article_for_whom_and_about_what(documents: list[Document]) -> None:
    for document in documents:
        assert _SLUG.fullmatch(document.document_id), document.document_id
        assert (ARTICLES / f"{document.document_id}.md").is_file(), document.document_id
        assert re.fullmatch(r"\d+\.\d+", document.version), document.document_id
        assert document.audience, document.document_id
        assert set(document.audience) <= {"customer", "prospect"}, document.document_id
        assert document.topics, document.document_id
        assert re.fullmatch(r"[a-z]+", document.owner), document.document_id


def test_titles_and_ids_are_unique(documents: list[Document]) -> None:
    assert len({document.title for document in documents}) == len(documents)
    assert len({document.document_id for document in documents}) == len(documents)


def test_every_kind_is_there_and_offers_suffice_for_a_campaign(citable: list[Document]) -> None:
    kinds = [document.kind for document in citable]
    assert set(kinds) == set(DocumentKind)
    assert kinds.count(DocumentKind.OFFER) >= 10


def test_articles_are_neither_stubs_nor_essays(documents: list[Document]) -> None:
    wrong = {d.document_id: _words(d) for d in documents if not 180 <= _words(d) <= 400}
    assert not wrong


def test_no_banned_phrases(documents: list[Document]) -> None:
    found = {d.document_id: m.group() for d in documents if (m := _BANNED.search(f"{d.title}\n{d.body}"))}
    assert not found


def test_every_sentence_stands_alone(documents: list[Document]) -> None:
    leaning = [(d.document_id, s) for d in documents for s in _sentences(d) if _LEANS.match(s)]
    assert not leaning


def test_every_sentence_fits_a_snippet_and_ends(documents: list[Document]) -> None:
    wrong = [(d.document_id, s) for d in documents for s in _sentences(d) if len(s) > QUOTE_CHARS or s[-1] not in ".?"]
    assert not wrong


def test_drafts_and_expired_articles_stand_beside_valid_ones_on_the_same_topic(
    documents: list[Document], citable: list[Document]
) -> None:
    drafts = [document for document in documents if not document.approved]
    expired = [d for d in documents if d.valid_until is not None and d.valid_until.year == 2024]
    assert len(drafts) == 2
    assert len(expired) == 2
    for withheld in drafts + expired:
        assert not any(withheld.citable_on(day) for day in DAYS), withheld.document_id
        assert any(set(withheld.topics) & set(other.topics) for other in citable), withheld.document_id


@pytest.mark.parametrize(
    ("pattern", "allowed"),
    [
        pytest.param(r"Basic plan costs \$(\d+) ", {"12"}, id="Basic price"),
        pytest.param(r"Standard plan costs \$(\d+) ", {"16"}, id="Standard price"),
        pytest.param(r"Premium (?:plan|seat) costs \$(\d+) per (?:seat per )?month", {"25"}, id="Premium price"),
        pytest.param(r"Enterprise plan costs \$(\d+) ", {"39"}, id="Enterprise price"),
        pytest.param(r"[Uu]nopened .{0,40}within (\d+) days of delivery", {"30"}, id="return window"),
        pytest.param(r"open Monday to Friday from (\d\d:\d\d to \d\d:\d\d)", {"08:00 to 20:00"}, id="support hours"),
        pytest.param(r"Standard delivery takes (\d+ to \d+) business days", {"2 to 4"}, id="delivery time"),
        pytest.param(r"pharmacist calls back within (\d+ \w+)", {"15 minutes", "2 hours"}, id="pharmacist"),
        pytest.param(r"(\d+) loyalty points? for each dollar", {"1"}, id="loyalty points"),
        pytest.param(r"credit of (\$\d+) when a new customer", {"$50"}, id="referral credit"),
        pytest.param(r"orders of (\$\d+) or more|Orders of (\$\d+) or more", {"$49"}, id="free delivery"),
        pytest.param(r"up to (\d+) requests per minute|limited to (\d+) requests", {"120"}, id="API limit"),
        pytest.param(r"trial is free for (\d+) days|The (\d+)-day trial", {"14"}, id="trial"),
    ],
)
def test_the_articles_agree_on_the_facts(citable: list[Document], pattern: str, allowed: set[str]) -> None:
    stated = {
        next(group for group in match.groups() if group)
        for document in citable
        for match in re.finditer(pattern, document.body)
    }
    assert stated == allowed
