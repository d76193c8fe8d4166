"""Stand-ins for what a campaign relies on: knowledge by shared words, a gate by forbidden words, an audit in memory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from batch.engines import Engines
from models.campaign.protocol import Audience
from models.embedding.protocol import Vectors
from models.errors import DatabaseUnavailable, KnowledgeUnavailable
from models.knowledge.protocol import KnowledgeSearch
from models.knowledge.types import Chunk, DocumentKind, Passage
from models.resilience.deadline import Deadline
from models.safety.protocol import SafetyGate
from models.safety.types import AuditRecord, Decision, Finding, Harm, Purpose, Verdict
from providers.database import Database
from providers.systems.audience import SqlAudience


class WordKnowledge:
    """Scores each section of a folder of Markdown articles by the share of the query's words it holds."""

    def __init__(self, folder: Path) -> None:
        self._chunks: list[tuple[str, Chunk]] = []
        for path in sorted(folder.glob("*.md")):
            body = path.read_text(encoding="utf-8").split("---", 2)[-1]
            for position, section in enumerate(part for part in body.split("## ") if part.strip()):
                heading, _, text = section.partition("\n")
                chunk = Chunk(
                    chunk_id=f"{path.stem}#{position}",
                    document_id=path.stem,
                    position=position,
                    heading=heading,
                    text=text.strip(),
                )
                self._chunks.append((path.stem.replace("-", " "), chunk))

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
        wanted = set(re.findall(r"[a-z]{4,}", query.lower()))
        hits = []
        for title, chunk in self._chunks:
            words = set(re.findall(r"[a-z]{4,}", f"{title} {chunk.heading} {chunk.text}".lower()))
            score = len(wanted & words) / len(wanted)
            hits.append(Passage(chunk=chunk, title=title, version="1.0", kind=DocumentKind.HELP, score=score))
        best = sorted(hits, key=lambda hit: (-hit.score, hit.chunk.chunk_id))
        return [hit for hit in best if hit.score >= min_score][:limit]


class SilentKnowledge:
    """A vector store that is away."""

    async def search(self, query: str, **_: object) -> list[Passage]:
        raise KnowledgeUnavailable("the vector store does not answer")


class WordGate:
    """Blocks a text that holds one of the forbidden words, at severity 6; allows every other."""

    def __init__(self, forbidden: Sequence[str]) -> None:
        self._forbidden = tuple(forbidden)

    async def check(
        self,
        texts: Sequence[str],
        *,
        purpose: Purpose,
        vectors: Vectors | None = None,
        deadline: Deadline | None = None,
    ) -> list[Verdict]:
        assert purpose is Purpose.CAMPAIGN
        return [self._verdict(text) for text in texts]

    def _verdict(self, text: str) -> Verdict:
        found = [word for word in self._forbidden if word in text]
        severity = 6 if found else 0
        return Verdict(
            decision=Decision.BLOCK if found else Decision.ALLOW,
            findings=tuple(Finding(harm=harm, severity=severity, probability=severity / 7) for harm in Harm),
            reasons=("violence at 6",) if found else (),
            policy_version="test",
        )


class AuditInMemory:
    """Keeps every record; `away` makes it a database that does not answer."""

    def __init__(self, *, away: bool = False) -> None:
        self.records: list[AuditRecord] = []
        self._away = away

    def record(self, record: AuditRecord) -> None:
        self.records.append(record)

    async def flush(self) -> None:
        if self._away:
            raise DatabaseUnavailable("the database does not answer")


def campaign_engines(
    url: str, articles: Path, *, forbidden: Sequence[str] = (), knowledge_away: bool = False
) -> Engines:
    """The real audience of a database, and fakes for the two models."""
    return Engines(
        audience=partial(_audience, url),
        knowledge=partial(_knowledge, articles, knowledge_away),
        safety=partial(_gate, tuple(forbidden)),
        source="fakes",
    )


async def _audience(url: str) -> Audience:
    return SqlAudience(Database(url, pool_size=1))


async def _knowledge(articles: Path, away: bool) -> KnowledgeSearch:
    return SilentKnowledge() if away else WordKnowledge(articles)


async def _gate(forbidden: Sequence[str]) -> SafetyGate:
    return WordGate(forbidden)
