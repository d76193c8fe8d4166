"""What a segment's messages may be built from: approved passages that speak to its features."""

from __future__ import annotations

from models.campaign.config import Retrieval
from models.campaign.types import RetrievedPassage, Segment
from models.knowledge.protocol import KnowledgeSearch
from models.knowledge.types import Passage
from models.resilience.deadline import Deadline


def queries_for(segment: Segment, options: Retrieval) -> tuple[str, ...]:
    """The queries of the first themes whose conditions the segment's mean features meet, at most `options.queries`."""
    matching = [theme.query for theme in options.themes if theme.matches(segment.characteristics)]
    return tuple(dict.fromkeys(matching))[: options.queries]


async def retrieve(
    segment: Segment, search: KnowledgeSearch, options: Retrieval, *, deadline: Deadline | None = None
) -> tuple[RetrievedPassage, ...]:
    """At most `options.limit` passages scoring above `options.min_score`, best first.

    Every query places its best passage before any places its second, so that no theme crowds out the others. Raises
    `KnowledgeUnavailable`, `ModelUnavailable`, `DeadlineExceeded`.
    """
    found: list[list[tuple[str, Passage]]] = []
    for query in queries_for(segment, options):
        passages = await search.search(
            query, limit=options.limit, min_score=options.min_score, kinds=options.kinds, deadline=deadline
        )
        found.append([(query, passage) for passage in passages if passage.score > options.min_score])
    chosen: dict[str, RetrievedPassage] = {}
    for rank in range(max(map(len, found), default=0)):
        for hits in found:
            if rank < len(hits) and len(chosen) < options.limit:
                query, passage = hits[rank]
                chosen.setdefault(passage.chunk.chunk_id, _retrieved(passage, query, options.snippet_chars))
    return tuple(sorted(chosen.values(), key=lambda passage: (-passage.score, passage.passage_id)))


def _retrieved(passage: Passage, query: str, snippet_chars: int) -> RetrievedPassage:
    return RetrievedPassage(
        passage_id=passage.chunk.chunk_id,
        document_id=passage.chunk.document_id,
        title=passage.title,
        version=passage.version,
        text=passage.chunk.text,
        snippet=snippet(passage.chunk.text, snippet_chars),
        score=round(float(passage.score), 6),
        query=query,
    )


def snippet(text: str, limit: int = 200) -> str:
    """The beginning of the text without headings on one line, at most `limit` characters, cut between words."""
    prose = (line.strip().lstrip(">*- ") for line in text.splitlines() if not line.lstrip().startswith("#"))
    line = " ".join(" ".join(prose).split())
    if len(line) <= limit:
        return line
    cut = line[: limit - 1]
    if line[limit - 1] != " " and " " in cut:
        cut = cut[: cut.rindex(" ")]
    return cut.rstrip(" .,;:-") + "…"
