"""Retrieval and composition: what may be quoted, how, and what makes a message unusable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from models.campaign.config import Retrieval, load_campaign_config
from models.campaign.frames import ToneFrame, load_frames
from models.campaign.generation import compose_variants, select_quotes, validate
from models.campaign.retrieval import queries_for, retrieve, snippet
from models.campaign.types import (
    FEATURE_NAMES,
    RetrievedPassage,
    Segment,
    Tone,
    Variant,
    VariantFailure,
    VariantProblem,
)
from models.embedding.protocol import Vectors
from models.errors import ConfigurationError
from models.knowledge.types import Chunk, DocumentKind, Passage
from models.resilience.deadline import Deadline

ROOT = Path(__file__).resolve().parents[3]
CONFIG = load_campaign_config(ROOT / "config" / "campaign" / "demo.yaml")
FRAMES = load_frames(ROOT / "config" / "campaign" / "frames")

TEXT = """## Adding seats

You can add seats at any time under Settings > Billing > Seats. Seats added during a billing period are charged by the
day for the rest of that period. An Owner or Billing manager must confirm the new price before the seats are added.
It takes effect at once after the confirmation has been given by them. Is there anything else that you want to know now?

- A list item is never quoted, however long and complete the sentence in it may be.

Removed seats stay available until the end of the current billing period and are not billed after that."""


def segment(label: str = "loyal", **features: float) -> Segment:
    return Segment(label=label, size=10, share=1.0, characteristics={**dict.fromkeys(FEATURE_NAMES, 0.0), **features})


def passage(number: int = 1, text: str = TEXT) -> RetrievedPassage:
    return RetrievedPassage(
        passage_id=f"p{number}",
        document_id=f"d{number}",
        title="How seats work",
        version="1.4",
        text=text,
        snippet=snippet(text),
        score=0.7,
        query="charged price of seats",
    )


class Shelf:
    """Answers every query with its passages, whatever the threshold."""

    def __init__(self, **scores: float) -> None:
        self.asked: list[tuple[str, ...]] = []
        self._scores = scores

    async def search(
        self,
        query: str,
        *,
        limit: int = 5,
        min_score: float = 0.0,
        kinds: Sequence[DocumentKind] = (),
        vector: Vectors | None = None,
        deadline: Deadline | None = None,
    ) -> list[Passage]:
        self.asked.append((query, *kinds))
        return [
            Passage(
                chunk=Chunk(chunk_id=name, document_id=name, position=0, heading="", text=TEXT),
                title=name,
                version="1",
                kind=DocumentKind.HELP,
                score=score,
            )
            for name, score in self._scores.items()
        ]


async def test_retrieval_keeps_what_scores_above_the_threshold_best_first() -> None:
    shelf = Shelf(a=0.5, b=0.51, c=0.9, d=0.2)
    found = await retrieve(segment(), shelf, CONFIG.retrieval)
    assert [hit.passage_id for hit in found] == ["c", "b"]
    assert all(asked[1:] == (DocumentKind.HELP, DocumentKind.OFFER) for asked in shelf.asked)
    assert len(shelf.asked) == CONFIG.retrieval.queries


async def test_retrieval_takes_at_most_five() -> None:
    found = await retrieve(segment(), Shelf(**dict.fromkeys("abcdefgh", 0.8)), CONFIG.retrieval)
    assert len(found) == 5


def test_queries_follow_the_segments_features() -> None:
    options = Retrieval.model_validate(
        {
            "queries": 2,
            "themes": [{"query": "cancel", "when": {"churn_risk": {"min": 0.5}}}, {"query": "how seats work"}],
        }
    )
    assert queries_for(segment(churn_risk=0.6), options) == ("cancel", "how seats work")
    assert queries_for(segment(churn_risk=0.4), options) == ("how seats work",)


@pytest.mark.parametrize("limit", [40, 77, 120, 200])
def test_a_snippet_ends_between_words(limit: int) -> None:
    cut = snippet(TEXT, limit)
    assert len(cut) <= limit
    whole = " ".join(TEXT.replace("## Adding seats", "").replace("- A", "A").split())
    assert cut.endswith("…")
    assert whole.startswith(cut[:-1])
    assert not whole[len(cut) - 1].isalnum()


def test_short_text_is_its_own_snippet_and_a_long_word_is_cut() -> None:
    assert snippet("Seats are free.") == "Seats are free."
    assert snippet("x" * 300) == "x" * 199 + "…"


def test_quotes_are_whole_sentences_that_stand_alone_most_relevant_first() -> None:
    quotes = [quote for _, quote in select_quotes([passage()], 10)]
    assert quotes == [
        "An Owner or Billing manager must confirm the new price before the seats are added.",
        "You can add seats at any time under Settings > Billing > Seats.",
        "Removed seats stay available until the end of the current billing period and are not billed after that.",
    ]


def test_quotes_are_dealt_over_passages_without_repeats() -> None:
    chosen = select_quotes(
        [passage(1), passage(2), passage(3, "Parcels leave our warehouse on the same working day.")], 3
    )
    assert [source.passage_id for source, _ in chosen] == ["p1", "p2", "p3"]
    assert len({quote for _, quote in chosen}) == 3


def compose(passages: list[RetrievedPassage], label: str = "loyal") -> list[Variant | VariantFailure]:
    return compose_variants(segment(label), passages, FRAMES, campaign_id="cpn_1")


@pytest.mark.parametrize("label", [*(rule.label for rule in CONFIG.segmentation.rules), "cluster_4"])
def test_the_shipped_frames_give_three_valid_variants_for_every_segment(label: str) -> None:
    sources = [passage(1), passage(2, "Parcels leave our warehouse on the same working day. We send a message then.")]
    variants = compose(sources, label)
    assert [variant.tone for variant in variants] == list(Tone)
    for variant in variants:
        assert isinstance(variant, Variant)
        assert validate(variant, sources) == ()
        assert len({numbered.number for numbered in variant.citations}) == len(variant.citations) >= 2
        assert variant.frame_version
    assert compose(sources, label) == variants


def test_without_material_the_failure_is_typed() -> None:
    assert {f.problems for f in compose([]) if isinstance(f, VariantFailure)} == {(VariantProblem.NO_PASSAGES,)}
    thin = compose([passage(1, "Parcels leave our warehouse on the same working day.")])
    assert {f.problems for f in thin if isinstance(f, VariantFailure)} == {(VariantProblem.TOO_LITTLE_MATERIAL,)}
    bare = compose_variants(segment(), [passage()], {}, campaign_id="c")
    assert {f.problems for f in bare if isinstance(f, VariantFailure)} == {(VariantProblem.NO_FRAME,)}


def good() -> Variant:
    variant = compose([passage()])[0]
    assert isinstance(variant, Variant)
    return variant


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"subject": "x" * 61}, VariantProblem.SUBJECT_TOO_LONG),
        ({"subject": " "}, VariantProblem.SUBJECT_EMPTY),
        ({"subject": "Dear {name}"}, VariantProblem.UNFILLED_PLACEHOLDER),
        ({"citations": ()}, VariantProblem.NO_CITATION),
        ({"body": "[1] too short"}, VariantProblem.BODY_TOO_SHORT),
        ({"body": "word " * 251}, VariantProblem.BODY_TOO_LONG),
        ({"body": "no marker"}, VariantProblem.SOURCE_WITHOUT_MARKER),
        ({"body": "[9]"}, VariantProblem.MARKER_WITHOUT_SOURCE),
        ({"body": "another wording of it all"}, VariantProblem.QUOTE_NOT_VERBATIM),
    ],
)
def test_every_broken_rule_is_named(change: dict[str, object], problem: VariantProblem) -> None:
    assert problem in validate(replace(good(), **change), [passage()])  # type: ignore[arg-type]  # one table of changes to different fields


def test_a_quote_must_stand_in_the_passage_itself() -> None:
    assert validate(good(), [passage(1, "Something else entirely.")]) == (VariantProblem.QUOTE_NOT_VERBATIM,)


def frame_text(**changes: object) -> str:
    import yaml

    frame = FRAMES[Tone.URGENT].model_dump(mode="json")
    return yaml.safe_dump({**frame, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"approved": False},
        {"tone": "angry"},
        {"points": ["no place for a quote", "{quote}"]},
        {"subjects": {"default": "x" * 61}},
        {"openings": {"loyal": "only for some"}},
        {"surprise": 1},
    ],
)
def test_a_frame_that_may_not_be_used_stops_the_start(changes: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "urgent.yaml").write_text(frame_text(**changes), encoding="utf-8")
    with pytest.raises(ConfigurationError):
        load_frames(tmp_path)


def test_two_approved_frames_of_one_tone_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(frame_text(), encoding="utf-8")
    assert isinstance(load_frames(tmp_path)[Tone.URGENT], ToneFrame)
    (tmp_path / "b.yaml").write_text(frame_text(version="2"), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="two approved frames"):
        load_frames(tmp_path)
