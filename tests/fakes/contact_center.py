"""The world around workflows and conversations: company systems, models and safety, all scripted.

Every fake writes what happens into one `journal`, so that a test can tell what came before what.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from models.classification.types import Category, Classification, Intent
from models.embedding.protocol import Vectors
from models.errors import NotFound
from models.knowledge.types import Chunk, DocumentKind, Passage
from models.llm.types import Citation, Delta, LanguageModelReply, LanguageModelRequest, Usage
from models.resilience.deadline import Deadline
from models.safety.types import Decision, Finding, PIISpan, PIIType, Purpose, Verdict
from models.workflows.types import Channel, OrderSummary, Severity

EMAIL = re.compile(r"[\w.]+@[\w.]+\w")


class ScriptedClassifier:
    """The first phrase found in a message decides its label; everything else is informational at 0.9."""

    def __init__(self, labels: Mapping[str, Classification] | None = None) -> None:
        self.labels = dict(labels or {})
        self.error: Exception | None = None
        self.vectors: list[Vectors | None] = []

    async def classify(
        self, messages: Sequence[str], *, vectors: Vectors | None = None, deadline: Deadline | None = None
    ) -> list[Classification]:
        if self.error is not None:
            raise self.error
        self.vectors.append(vectors)
        return [self._label(message) for message in messages]

    def _label(self, message: str) -> Classification:
        for phrase, label in self.labels.items():
            if phrase.lower() in message.lower():
                return label
        return labelled(Category.INFORMATIONAL)


def labelled(
    category: Category, *, confidence: float = 0.9, intent: Intent | None = None, abstained: bool = False
) -> Classification:
    return Classification(
        category=category,
        confidence=confidence,
        reasoning="scripted",
        abstained=abstained,
        intent=intent,
        intent_confidence=0.9 if intent else 0.0,
        engine="scripted",
    )


@dataclass
class ScriptedGate:
    """Allows everything but texts that contain a scripted phrase."""

    journal: list[str]
    decisions: dict[str, tuple[Decision, tuple[Finding, ...]]] = field(default_factory=dict)
    available: bool = True
    error: Exception | None = None
    vectors: list[Vectors | None] = field(default_factory=list)

    async def check(
        self,
        texts: Sequence[str],
        *,
        purpose: Purpose,
        vectors: Vectors | None = None,
        deadline: Deadline | None = None,
    ) -> list[Verdict]:
        if self.error is not None:
            raise self.error
        self.vectors.append(vectors)
        self.journal.append(f"checked:{purpose}")
        return [self._verdict(text, purpose) for text in texts]

    def _verdict(self, text: str, purpose: Purpose) -> Verdict:
        if not self.available:
            closed = Decision.ESCALATE if purpose is Purpose.CUSTOMER_MESSAGE else Decision.BLOCK
            return Verdict(decision=closed, available=False)
        for phrase, (decision, findings) in self.decisions.items():
            if phrase.lower() in text.lower():
                return Verdict(decision=decision, findings=findings)
        return Verdict(decision=Decision.ALLOW)


class EmailDetector:
    """Knows one kind of personal data."""

    error: Exception | None = None

    def detect(self, text: str) -> tuple[PIISpan, ...]:
        return tuple(PIISpan(type=PIIType.EMAIL, start=m.start(), end=m.end()) for m in EMAIL.finditer(text))

    def redact(self, text: str) -> str:
        if self.error is not None:
            raise self.error
        return EMAIL.sub("[EMAIL]", text)


def passage(text: str, *, document_id: str = "doc_1", title: str = "An article", score: float = 0.8) -> Passage:
    chunk = Chunk(chunk_id=f"{document_id}#0", document_id=document_id, position=0, heading="", text=text)
    return Passage(chunk=chunk, title=title, version="3", kind=DocumentKind.HELP, score=score)


@dataclass
class KeywordKnowledge:
    """A passage is found by every query that contains its keyword."""

    passages: dict[str, Passage] = field(default_factory=dict)
    error: Exception | None = None
    queries: list[str] = field(default_factory=list)
    vectors: list[Vectors | None] = field(default_factory=list)

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
        if self.error is not None:
            raise self.error
        self.queries.append(query)
        self.vectors.append(vector)
        found = [hit for keyword, hit in self.passages.items() if keyword in query.lower() and hit.score >= min_score]
        return found[:limit]


@dataclass
class QuotingLanguageModel:
    """Quotes its first passage whole; `error` is raised, and `text` or `quote` bend what it says."""

    error: Exception | None = None
    text: str | None = None
    quote: str | None = None
    requests: list[LanguageModelRequest] = field(default_factory=list)
    engine = "quoting"

    async def generate(self, request: LanguageModelRequest, *, deadline: Deadline) -> LanguageModelReply:
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        source = request.passages[0]
        quote = self.quote if self.quote is not None else source.text
        citation = Citation(
            passage_id=source.passage_id,
            document_id=source.document_id,
            title=source.title,
            version=source.version,
            quote=quote,
        )
        return LanguageModelReply(
            text=self.text if self.text is not None else quote,
            engine=self.engine,
            model="quoting-1",
            citations=(citation,),
            usage=Usage(prompt_tokens=7, completion_tokens=5),
            cost_usd=0.002,
        )

    async def stream(self, request: LanguageModelRequest, *, deadline: Deadline) -> AsyncIterator[Delta]:
        yield Delta(reply=await self.generate(request, deadline=deadline))

    async def check_health(self) -> None:
        return None

    async def close(self) -> None:
        return None


@dataclass
class Orders:
    """Orders by owner."""

    owned: dict[str, list[OrderSummary]] = field(default_factory=dict)
    error: Exception | None = None

    async def find(self, order_id: str, *, customer_id: str) -> OrderSummary | None:
        if self.error is not None:
            raise self.error
        return next((order for order in self.owned.get(customer_id, []) if order.order_id == order_id), None)

    async def recent(self, customer_id: str, *, limit: int = 5) -> list[OrderSummary]:
        if self.error is not None:
            raise self.error
        return self.owned.get(customer_id, [])[:limit]


def order(order_id: str, *, status: str = "placed", tracking_number: str | None = None) -> OrderSummary:
    return OrderSummary(
        order_id=order_id,
        status=status,
        placed_at=datetime(2026, 5, 1, tzinfo=UTC),
        total=42.5,
        currency="EUR",
        tracking_number=tracking_number,
        items=("Vitamin D3",),
    )


@dataclass
class Customers:
    known: set[str] = field(default_factory=set)
    error: Exception | None = None

    async def exists(self, customer_id: str) -> bool:
        if self.error is not None:
            raise self.error
        return customer_id in self.known


@dataclass
class Compliance:
    """The compliance register; `gate` holds a commit back until a test lets it go."""

    journal: list[str]
    records: list[dict[str, object]] = field(default_factory=list)
    error: Exception | None = None
    gate: asyncio.Event | None = None
    started: asyncio.Event = field(default_factory=asyncio.Event)
    committed: asyncio.Event = field(default_factory=asyncio.Event)

    async def record(
        self,
        *,
        customer_id: str | None,
        channel: Channel,
        severity: Severity,
        redacted_text: str,
        due_in: timedelta,
        queue: str,
        request_id: str,
    ) -> str:
        self.journal.append("recording")
        self.started.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.records.append(
            {
                "customer_id": customer_id,
                "channel": channel,
                "severity": severity,
                "text": redacted_text,
                "due_in": due_in,
                "queue": queue,
                "request_id": request_id,
            }
        )
        self.journal.append("recorded")
        self.committed.set()
        return f"cmp_{len(self.records)}"


@dataclass
class Tickets:
    journal: list[str]
    opened: list[dict[str, object]] = field(default_factory=list)
    comments: list[tuple[str, str]] = field(default_factory=list)
    error: Exception | None = None

    async def open(
        self, *, customer_id: str | None, subject: str, body: str, channel: Channel, priority: str, reason: str
    ) -> str:
        if self.error is not None:
            raise self.error
        self.opened.append({"customer_id": customer_id, "subject": subject, "body": body, "reason": reason})
        self.journal.append("ticket")
        return f"tck_{len(self.opened)}"

    async def comment(self, ticket_id: str, body: str) -> None:
        if self.error is not None:
            raise self.error
        if ticket_id not in {f"tck_{number}" for number in range(1, len(self.opened) + 1)}:
            raise NotFound("there is no such ticket")
        self.comments.append((ticket_id, body))


@dataclass
class CountingMetrics:
    """Remembers counts and observations by name."""

    counts: dict[str, float] = field(default_factory=dict)
    observed: dict[str, list[float]] = field(default_factory=dict)

    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        self.counts[name] = self.counts.get(name, 0.0) + value

    def observe(self, name: str, value: float, **labels: str) -> None:
        self.observed.setdefault(name, []).append(value)
