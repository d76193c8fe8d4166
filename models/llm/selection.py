"""Which sentences answer a question: scoring, and picking a few that read well together."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.embedding.protocol import Vectors
from models.llm.sentences import Sentence, SentenceKind, split_sentences
from models.llm.types import SourcePassage


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """How sentences are scored and picked.

    The weights add up to one, so that a score stays on the scale of a cosine. `min_score` is the score under which the
    best sentence does not answer: the value with the largest Youden index (answered of the answerable minus answered of
    the unanswerable) on the calibration part of `bench/knowledge_questions.yaml`, which no test uses.
    """

    sentence_weight: float = 0.5
    topic_weight: float = 0.15
    passage_weight: float = 0.2
    lexical_weight: float = 0.15
    min_score: float = 0.43
    #: Share of the best score that a further sentence must reach.
    further_share: float = 0.87
    #: Cosine above which two sentences say the same.
    duplicate: float = 0.9
    max_sentences: int = 4
    #: Steps belong together: a numbered list is given whole up to this many.
    max_steps: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A sentence of a passage; `order` is the passage's place in the request, `topic` the heading it stands under."""

    passage: SourcePassage
    order: int
    sentence: Sentence
    topic: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A candidate, its row in the vectors, and its score."""

    candidate: Candidate
    row: int
    score: float


_WORD = re.compile(r"[a-z0-9]+")
_STOP = frozenset(
    _WORD.findall(
        "a an the i you he she it we they my your our their me us them this that these those and or but if so to of in "
        "on at for from with by as is are was were be been am do does did can could will would should may might must "
        "have has had how what when where which who why not no yes there here about into than then any some please"
    )
)
# Words that lean on the sentence before.
_LEANS = re.compile(
    r"(?:it|its|this|that|these|those|they|them|their|he|she|then|however|also|otherwise|instead|but|and|so|afterwards|"
    r"after that|in that case|if so|if not)\b",
    re.IGNORECASE,
)


def find_candidates(passages: Sequence[SourcePassage]) -> list[Candidate]:
    """Every sentence once, with the heading above it (or the title) as its topic; tables are context, not text."""
    found: list[Candidate] = []
    seen: set[str] = set()
    for order, passage in enumerate(passages):
        topic = passage.title
        for sentence in split_sentences(passage.text):
            if sentence.kind is SentenceKind.HEADING:
                topic = f"{passage.title}: {sentence.plain}"
                continue
            if sentence.kind is SentenceKind.TABLE or sentence.plain in seen or not re.search(r"\w", sentence.plain):
                continue
            seen.add(sentence.plain)
            found.append(Candidate(passage=passage, order=order, sentence=sentence, topic=topic))
    return found


def rank(
    question: str,
    candidates: Sequence[Candidate],
    asked: Vectors,
    sentences: Vectors,
    topics: Vectors,
    selection: Selection,
) -> list[Ranked]:
    """Every candidate with its score, in the order given; vectors are rows beside the candidates."""
    if not candidates:
        return []
    near, about = sentences @ asked, topics @ asked
    words = [_words(candidate.sentence.plain) for candidate in candidates]
    wanted = _weights(_words(question), words)
    best_in_passage: dict[int, float] = {}
    for row, candidate in enumerate(candidates):
        best_in_passage[candidate.order] = max(best_in_passage.get(candidate.order, -1.0), float(near[row]))
    ranked = []
    for row, candidate in enumerate(candidates):
        overlap = sum(weight for word, weight in wanted.items() if word in words[row])
        # A request may carry passages that were chosen by hand and bear no score.
        passage = candidate.passage.score or best_in_passage[candidate.order]
        score = (
            selection.sentence_weight * float(near[row])
            + selection.topic_weight * float(about[row])
            + selection.passage_weight * passage
            + selection.lexical_weight * overlap
        )
        # Batches round differently in the last bits; a reply must not depend on who else was asking.
        ranked.append(Ranked(candidate=candidate, row=row, score=round(score, 5)))
    return ranked


def select(ranked: Sequence[Ranked], sentences: Vectors, selection: Selection) -> list[Candidate]:
    """The sentences of the reply in the order of the passages; empty if the best one does not reach `min_score`."""
    eligible = [r for r in ranked if not r.candidate.sentence.text.endswith("?")]
    if not eligible:
        return []
    by_score = sorted(eligible, key=lambda r: (-r.score, r.row))
    best = by_score[0]
    if best.score < selection.min_score:
        return []
    chosen: list[Ranked] = []
    for ranked_one in by_score:
        if chosen and (
            ranked_one.score < best.score * selection.further_share or len(chosen) >= selection.max_sentences
        ):
            break
        if ranked_one in chosen or _repeats(ranked_one, chosen, sentences, selection):
            continue
        unit = [r for r in _unit(ranked, ranked_one, selection) if r not in chosen]
        if not chosen or len(chosen) + len(unit) <= selection.max_sentences:
            chosen.extend(unit)
    return [r.candidate for r in sorted(chosen, key=lambda r: r.row)]


def _repeats(one: Ranked, chosen: Sequence[Ranked], sentences: Vectors, selection: Selection) -> bool:
    if not chosen:
        return False
    rows = sentences[[r.row for r in chosen]]
    return bool(np.max(rows @ sentences[one.row]) > selection.duplicate)


def _unit(ranked: Sequence[Ranked], one: Ranked, selection: Selection) -> list[Ranked]:
    """What must be read with this sentence: the steps of its list, its lead-in, or the sentence it leans on."""
    sentence = one.candidate.sentence
    if sentence.introduces_list:
        return [one, *_list_around(ranked, one.row + 1)[: selection.max_steps]]
    if sentence.kind is SentenceKind.ITEM:
        items = _list_around(ranked, one.row)
        lead = _before(ranked, items[0])
        lead_in = [lead] if lead is not None and lead.candidate.sentence.introduces_list else []
        steps = any(r.candidate.sentence.marker[:1].isdigit() for r in items)
        if steps and len(items) <= selection.max_steps:
            return [*lead_in, *items]
        return [*lead_in, one] if sentence.marker else [*lead_in, *_with_support(ranked, one)]
    return _with_support(ranked, one)


def _with_support(ranked: Sequence[Ranked], one: Ranked) -> list[Ranked]:
    previous = _before(ranked, one)
    if previous is not None and _LEANS.match(one.candidate.sentence.plain):
        return [previous, one]
    return [one]


def _list_around(ranked: Sequence[Ranked], row: int) -> list[Ranked]:
    """The run of items of one list in which `row` stands."""
    if row >= len(ranked) or ranked[row].candidate.sentence.kind is not SentenceKind.ITEM:
        return []
    first = last = row
    while first > 0 and _same_list(ranked[first - 1], ranked[first]):
        first -= 1
    while last + 1 < len(ranked) and _same_list(ranked[last], ranked[last + 1]):
        last += 1
    return list(ranked[first : last + 1])


def _same_list(left: Ranked, right: Ranked) -> bool:
    a, b = left.candidate, right.candidate
    if a.order != b.order or a.topic != b.topic:
        return False
    if a.sentence.kind is not SentenceKind.ITEM or b.sentence.kind is not SentenceKind.ITEM:
        return False
    return b.sentence.marker not in ("1.", "1)")


def _before(ranked: Sequence[Ranked], one: Ranked) -> Ranked | None:
    """The sentence just before in the same passage under the same heading."""
    if one.row == 0:
        return None
    previous = ranked[one.row - 1]
    same = previous.candidate.order == one.candidate.order and previous.candidate.topic == one.candidate.topic
    return previous if same else None


def _weights(wanted: frozenset[str], sentences: Sequence[frozenset[str]]) -> dict[str, float]:
    """The asked words with weights that add up to one; a word weighs more the fewer sentences hold it (smoothed idf).

    A word that no sentence holds weighs most: what was asked may not be in the passages at all.
    """
    counts = Counter(word for sentence in sentences for word in sentence & wanted)
    raw = {word: math.log((1 + len(sentences)) / (1 + counts[word])) + 1 for word in sorted(wanted)}
    total = sum(raw.values())
    return {word: weight / total for word, weight in raw.items()}


def _words(text: str) -> frozenset[str]:
    """Content words, crudely stemmed: enough to notice that a sentence names what was asked."""
    return frozenset(_stem(word) for word in _WORD.findall(text.lower()) if word not in _STOP)


def _stem(word: str) -> str:
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word
