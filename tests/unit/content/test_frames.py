"""The tone frames of campaigns: approved wording, within the limits, for whatever the articles yield."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import pytest

from models.campaign.config import load_campaign_config
from models.campaign.frames import ToneFrame, load_frames
from models.campaign.generation import BODY_WORDS, SUBJECT_CHARS, compose_variants
from models.campaign.types import RetrievedPassage, Segment, Tone, Variant
from models.knowledge.chunking import chunk_document
from models.knowledge.documents import load_documents
from models.knowledge.types import DocumentKind

ROOT = Path(__file__).parents[3]
CAMPAIGN = ROOT / "config" / "campaign" / "demo.yaml"
DAY = date(2026, 11, 1)

_PRESSURE = re.compile(
    r"act now|hurry|last chance|limited|only today|today only|expires|deadline|don't miss|guarantee|risk[- ]free|free!",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def frames() -> Mapping[Tone, ToneFrame]:
    return load_frames(CAMPAIGN.parent / "frames")


def _wordings(frame: ToneFrame) -> list[str]:
    return [*frame.subjects.values(), *frame.openings.values(), *frame.points, *frame.reserve, frame.closing]


def test_every_tone_has_an_approved_frame(frames: Mapping[Tone, ToneFrame]) -> None:
    assert set(frames) == set(Tone)
    for frame in frames.values():
        assert frame.approved_by
        assert frame.approved_on <= DAY
        assert re.fullmatch(r"\d+\.\d+", frame.version)


def test_subjects_fit_and_hold_no_placeholder(frames: Mapping[Tone, ToneFrame]) -> None:
    for frame in frames.values():
        for subject in frame.subjects.values():
            assert len(subject) <= SUBJECT_CHARS
            assert "{" not in subject


def test_frames_name_only_segments_of_the_campaign(frames: Mapping[Tone, ToneFrame]) -> None:
    labels = {rule.label for rule in load_campaign_config(CAMPAIGN).segmentation.rules} | {"default"}
    for frame in frames.values():
        assert set(frame.subjects) | set(frame.openings) <= labels


def test_nothing_but_title_and_quote_is_to_be_filled_in(frames: Mapping[Tone, ToneFrame]) -> None:
    for frame in frames.values():
        assert all(point.count("{quote}") == 1 for point in frame.points)
        assert {name for text in _wordings(frame) for name in re.findall(r"\{(\w*)\}", text)} <= {"title", "quote"}


def test_wording_puts_no_pressure_on_anyone_and_offers_a_way_out(frames: Mapping[Tone, ToneFrame]) -> None:
    for frame in frames.values():
        assert not [text for text in _wordings(frame) if _PRESSURE.search(text)]
        assert "unsubscribe" in frame.closing
        assert not re.search(r"\d", " ".join([*frame.openings.values(), *frame.reserve, frame.closing])), (
            "facts are quoted"
        )


def test_frame_text_leaves_room_for_the_quotes(frames: Mapping[Tone, ToneFrame]) -> None:
    for frame in frames.values():
        for opening in frame.openings.values():
            assert 100 <= len(f"{opening} {frame.closing}".split()) <= 130


@pytest.mark.parametrize("passages_per_message", [1, 3, 5])
def test_any_articles_make_a_valid_message_in_every_tone(
    frames: Mapping[Tone, ToneFrame], passages_per_message: int
) -> None:
    documents = [
        document
        for document in load_documents([ROOT / "demo" / "articles"])
        if document.citable_on(DAY) and document.kind in (DocumentKind.HELP, DocumentKind.OFFER)
    ]
    passages = [
        RetrievedPassage(
            passage_id=chunk.chunk_id,
            document_id=document.document_id,
            title=document.title,
            version=document.version,
            text=chunk.text,
            snippet="",
            score=0.6,
            query=document.title,
        )
        for document in documents
        for chunk in chunk_document(document)
    ]
    labels = [rule.label for rule in load_campaign_config(CAMPAIGN).segmentation.rules]
    for start in range(0, len(passages) - passages_per_message, 7):
        segment = Segment(label=labels[start % len(labels)], size=10, share=0.1, characteristics={})
        chosen = passages[start : start + passages_per_message]
        for variant in compose_variants(segment, chosen, frames, campaign_id="camp"):
            assert isinstance(variant, Variant), variant
            assert BODY_WORDS[0] <= variant.words <= BODY_WORDS[1]
