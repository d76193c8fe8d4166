"""Messages composed from approved wording and verbatim, cited sentences; nothing in them is invented.

A tone frame supplies the wording, retrieved passages supply the sentences. The same inputs give the same message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from models.campaign.frames import ToneFrame
from models.campaign.types import (
    NumberedCitation,
    RetrievedPassage,
    Segment,
    Tone,
    Variant,
    VariantFailure,
    VariantProblem,
)
from models.llm.sentences import SentenceKind, split_sentences
from models.llm.types import Citation

SUBJECT_CHARS = 60
BODY_WORDS = (150, 250)
#: A quote is a whole sentence of this many words, and no longer than a snippet.
QUOTE_WORDS = (7, 36)
QUOTE_CHARS = 200
MIN_QUOTES = 2
_TARGET_WORDS = 190

#: A sentence that begins like this leans on the one before it.
_LEANING = re.compile(r"(?:Its?|This|These|That|Those|The[yn]|Their|S?[Hh]e|Otherwise|However|Also|If so|After that)\b")
_MARKER = re.compile(r"\[(\d+)\]")
_PLACEHOLDER = re.compile(r"\{[a-z_]*\}")


def compose_variants(
    segment: Segment, passages: Sequence[RetrievedPassage], frames: Mapping[Tone, ToneFrame], *, campaign_id: str
) -> list[Variant | VariantFailure]:
    """One variant or typed failure for each of the three tones, in the order of `Tone`."""
    return [_compose(segment, passages, frames.get(tone), tone, campaign_id) for tone in Tone]


def _compose(
    segment: Segment, passages: Sequence[RetrievedPassage], frame: ToneFrame | None, tone: Tone, campaign_id: str
) -> Variant | VariantFailure:
    def failure(*problems: VariantProblem, detail: str = "") -> VariantFailure:
        return VariantFailure(segment=segment.label, tone=tone, problems=problems, detail=detail)

    if frame is None:
        return failure(VariantProblem.NO_FRAME, detail="there is no approved frame for this tone")
    if not passages:
        return failure(VariantProblem.NO_PASSAGES, detail="retrieval found nothing above the score threshold")
    quotes = select_quotes(passages, len(frame.points))
    if len(quotes) < MIN_QUOTES:
        return failure(VariantProblem.TOO_LITTLE_MATERIAL, detail=f"{len(quotes)} of {MIN_QUOTES} sentences found")
    drafts = [_body(frame, segment, quotes[:count]) for count in range(MIN_QUOTES, len(quotes) + 1)]
    body = min(drafts, key=lambda draft: abs(len(draft.split()) - _TARGET_WORDS))
    variant = Variant(
        variant_id=f"{campaign_id}.{segment.label}.{tone.value}",
        segment=segment.label,
        tone=tone,
        subject=frame.subject(segment.label),
        body=body,
        citations=tuple(
            NumberedCitation(
                number=number,
                citation=Citation(
                    passage_id=passage.passage_id,
                    document_id=passage.document_id,
                    title=passage.title,
                    version=passage.version,
                    quote=quote,
                ),
            )
            for number, (passage, quote) in enumerate(quotes, start=1)
            if f"[{number}]" in body
        ),
        frame_id=frame.id,
        frame_version=frame.version,
    )
    problems = validate(variant, passages)
    detail = f"subject {len(variant.subject)} characters, body {variant.words} words"
    return failure(*problems, detail=detail) if problems else variant


def _body(frame: ToneFrame, segment: Segment, quotes: Sequence[tuple[RetrievedPassage, str]]) -> str:
    points = [
        point.replace("{title}", passage.title).replace("{quote}", f"“{quote}” [{number}]")
        for number, (point, (passage, quote)) in enumerate(zip(frame.points, quotes, strict=False), start=1)
    ]
    parts = [frame.opening(segment.label).strip(), *(point.strip() for point in points)]
    closing = frame.closing.strip()
    for sentence in frame.reserve:
        if len(" ".join([*parts, closing]).split()) >= BODY_WORDS[0]:
            break
        parts.append(sentence.strip())
    return "\n\n".join([*parts, closing])


def select_quotes(passages: Sequence[RetrievedPassage], limit: int) -> list[tuple[RetrievedPassage, str]]:
    """At most `limit` different sentences that stand on their own, dealt over the passages in turn."""
    ranked = [(passage, _ranked_sentences(passage)) for passage in passages]
    chosen: list[tuple[RetrievedPassage, str]] = []
    seen: set[str] = set()
    while len(chosen) < limit and any(sentences for _, sentences in ranked):
        for passage, sentences in ranked:
            fresh = next((sentence for sentence in sentences if sentence not in seen), None)
            sentences[:] = sentences[sentences.index(fresh) + 1 :] if fresh else []
            if fresh and len(chosen) < limit:
                seen.add(fresh)
                chosen.append((passage, fresh))
    return chosen


def _ranked_sentences(passage: RetrievedPassage) -> list[str]:
    wanted = _stems(passage.query)
    sentences = [
        sentence.text
        for sentence in split_sentences(passage.text)
        if sentence.kind is SentenceKind.PROSE and not sentence.has_markup and _quotable(sentence.text)
    ]
    return sorted(sentences, key=lambda sentence: -len(wanted & _stems(sentence)))  # stable: first come, first served


def _quotable(sentence: str) -> bool:
    return (
        QUOTE_WORDS[0] <= len(sentence.split()) <= QUOTE_WORDS[1]
        and len(sentence) <= QUOTE_CHARS
        and sentence[0].isupper()
        and sentence.endswith((".", "!"))
        and "\n" not in sentence
        and not _LEANING.match(sentence)
        and not _MARKER.search(sentence)
    )


def _stems(text: str) -> set[str]:
    return {word[:5] for word in re.findall(r"[a-z]{4,}", text.lower())}


def validate(variant: Variant, passages: Sequence[RetrievedPassage]) -> tuple[VariantProblem, ...]:
    """Every rule the message breaks: lengths, placeholders, and markers, sources and quotes that must agree."""
    texts = {passage.passage_id: passage.text for passage in passages}
    problems = []
    if not variant.subject.strip():
        problems.append(VariantProblem.SUBJECT_EMPTY)
    if len(variant.subject) > SUBJECT_CHARS:
        problems.append(VariantProblem.SUBJECT_TOO_LONG)
    if variant.words < BODY_WORDS[0]:
        problems.append(VariantProblem.BODY_TOO_SHORT)
    if variant.words > BODY_WORDS[1]:
        problems.append(VariantProblem.BODY_TOO_LONG)
    if _PLACEHOLDER.search(variant.subject) or _PLACEHOLDER.search(variant.body):
        problems.append(VariantProblem.UNFILLED_PLACEHOLDER)
    if not variant.citations:
        problems.append(VariantProblem.NO_CITATION)
    markers = {int(number) for number in _MARKER.findall(variant.body)}
    numbers = {citation.number for citation in variant.citations}
    if markers - numbers:
        problems.append(VariantProblem.MARKER_WITHOUT_SOURCE)
    if numbers - markers:
        problems.append(VariantProblem.SOURCE_WITHOUT_MARKER)
    quotes = [numbered.citation for numbered in variant.citations]
    if any(q.quote not in variant.body or q.quote not in texts.get(q.passage_id, "") for q in quotes):
        problems.append(VariantProblem.QUOTE_NOT_VERBATIM)
    return tuple(problems)
