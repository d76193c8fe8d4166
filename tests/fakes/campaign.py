"""Stand-ins for what a campaign relies on: contexts by id, knowledge and gate by words, an audit in memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from batch.engines import Engines
from models.campaign.protocol import Audience
from models.embedding.protocol import Vectors
from models.enrichment.protocol import ContextSource
from models.enrichment.types import AccountHealth, ContextRequest, EnrichedContext, SupportHistory
from models.errors import ContextEnrichmentError, DatabaseUnavailable, KnowledgeUnavailable
from models.knowledge.protocol import KnowledgeSearch
from models.knowledge.types import Chunk, DocumentKind, Passage
from models.resilience.deadline import Deadline
from models.safety.protocol import SafetyGate
from models.safety.types import AuditRecord, Decision, Finding, Harm, Purpose, Verdict
from providers.database import Database
from providers.systems.audience import SqlAudience


class ContextsById:
    """Everyone is well, but for those of whom one thing or another is told.

    Of `partial` nothing but the account's health is read; the first `failures` calls are answered with none of it.
    """

    def __init__(
        self,
        *,
        overdue: Collection[str] = (),
        tickets: Collection[str] = (),
        partial: Collection[str] = (),
        unknown: Collection[str] = (),
        failures: int = 0,
    ) -> None:
        self._overdue, self._tickets, self._partial, self._unknown = overdue, tickets, partial, unknown
        self._failures = failures
        self.asked: list[tuple[list[str], ContextRequest]] = []

    async def enrich(self, customer_id: str, request: ContextRequest) -> EnrichedContext:
        return (await self.enrich_many([customer_id], request))[customer_id]

    async def enrich_many(self, customer_ids: Sequence[str], request: ContextRequest) -> dict[str, EnrichedContext]:
        self.asked.append((list(customer_ids), request))
        failing, self._failures = self._failures > 0, self._failures - 1
        return {one: self._context(one, request, failing) for one in customer_ids if one not in self._unknown}

    def _context(self, customer_id: str, request: ContextRequest, failing: bool) -> EnrichedContext:
        flags = ("High churn risk", *(["Payment overdue"] if customer_id in self._overdue else []))
        health = AccountHealth(red_flags=flags, yellow_flags=(), green_flags=())
        support = SupportHistory(
            total_conversations=0,
            avg_csat=None,
            open_tickets=3 if customer_id in self._tickets else 2,
            last_conversation_at=None,
            common_topics=(),
        )
        asked = () if failing or request.providers is None else request.providers
        return EnrichedContext(
            customer_id=customer_id,
            agent_type=request.agent_type,
            context_version="1",
            enriched_at=datetime(2026, 11, 1, tzinfo=UTC),
            outcomes=(),
            account_health=health if "account_health" in asked else None,
            support_history=support if "support_history" in asked and customer_id not in self._partial else None,
        )


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

    async def record_durably(self, records: Sequence[AuditRecord], *, timeout_s: float) -> None:
        self.records += records
        await self.flush()

    async def flush(self) -> None:
        if self._away:
            raise DatabaseUnavailable("the database does not answer")


def campaign_engines(
    url: str,
    articles: Path,
    *,
    forbidden: Sequence[str] = (),
    knowledge_away: bool = False,
    contexts: ContextSource | None = None,
    closed: Path | None = None,
) -> Engines:
    """The real audience of a database, and fakes for the rest.

    Without `contexts` they are away; the file `closed` is there once they have been closed.
    """
    return Engines(
        audience=partial(_audience, url),
        contexts=partial(_contexts, contexts, closed),
        knowledge=partial(_knowledge, articles, knowledge_away),
        safety=partial(_gate, tuple(forbidden)),
        source="fakes",
    )


async def _audience(url: str) -> Audience:
    return SqlAudience(Database(url, pool_size=1))


@asynccontextmanager
async def _contexts(contexts: ContextSource | None, closed: Path | None) -> AsyncIterator[ContextSource]:
    if contexts is None:
        raise ContextEnrichmentError("the application is away")
    yield contexts
    if closed is not None:
        await asyncio.to_thread(closed.touch)


async def _knowledge(articles: Path, away: bool) -> KnowledgeSearch:
    return SilentKnowledge() if away else WordKnowledge(articles)


async def _gate(forbidden: Sequence[str]) -> SafetyGate:
    return WordGate(forbidden)
