"""What stands behind the routes in ingress tests: each fake keeps the contract's promises in memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import httpx2
import orjson
from openai import AsyncOpenAI

from deployments.ingress.http import build_api, build_context_api
from deployments.ingress.metrics_page import LocalCounterMemory, MetricsPage
from deployments.ingress.services import (
    ApiServices,
    CampaignReport,
    ContextServices,
    DependencyReport,
    DependencyState,
)
from models.enrichment.events import Event
from models.enrichment.history import FieldChange, HistoryPage, diff
from models.enrichment.types import ContextReading, ContextRequest, HistoryEntry, ReadFormat, ServedFrom
from models.errors import (
    Conflict,
    IdempotencyMismatch,
    InProgress,
    NotFound,
    UnknownAgentType,
    UnknownCustomer,
)
from models.settings import Settings
from providers.systems.campaigns import CampaignRun, CampaignStatus
from providers.systems.events import Accepted
from providers.systems.idempotency import Fresh, Replay
from tests.fakes.models import FakeEmbedder, FakeGate, FakeLanguageModel
from tests.fakes.talks import NOW, FakeConversation, FakeRouter


@dataclass
class FakeReader:
    """Knows `customer_123` only; the second read of a format comes from L1."""

    body: bytes = b'{"customer_id":"customer_123", "complete":true}'
    fails: BaseException | None = None
    masked: bool = False
    strategy: str = ""
    calls: list[ContextRequest] = field(default_factory=list)

    async def read(self, customer_id: str, request: ContextRequest) -> ContextReading:
        if self.fails is not None:
            raise self.fails
        if customer_id != "customer_123":
            raise UnknownCustomer("there is no customer with this id")
        if request.agent_type == "astrologer":
            raise UnknownAgentType("there is no such agent type")
        hit = any(call.format is request.format for call in self.calls) and not request.force_refresh
        self.calls.append(request)
        prompt = request.format is ReadFormat.PROMPT
        return ContextReading(
            body=b"Customer: Acme Corp" if prompt else self.body,
            media_type="text/plain; charset=utf-8" if prompt else "application/json",
            served_from=ServedFrom.L1 if hit else ServedFrom.ORIGIN,
            complete=True,
            age_ms=2500 if hit else 0,
            ttl_ms=27_900,
            context_version="v-1",
            cache_hit=hit,
            elapsed_ms=0.1,
            masked=self.masked,
            strategy=self.strategy,
        )

    async def read_many(self, customer_ids: Sequence[str], request: ContextRequest) -> bytes:
        if self.fails is not None:
            raise self.fails
        self.calls.append(request)
        return orjson.dumps({"contexts": [], "unknown": list(customer_ids), "complete": True})


@dataclass
class FakeContextDesk:
    """Reads through the reader; remembers what was invalidated, and accepts an event id once."""

    reader: FakeReader
    read: list[list[str]] = field(default_factory=list)
    invalidated: list[tuple[list[str], list[str]]] = field(default_factory=list)
    events: dict[str, Event] = field(default_factory=dict)
    fails: BaseException | None = None

    async def read_many(self, customer_ids: Sequence[str], request: ContextRequest) -> bytes:
        self.read.append(list(customer_ids))
        return await self.reader.read_many(customer_ids, request)

    async def invalidate(self, customer_ids: Sequence[str], tags: Sequence[str]) -> None:
        if self.fails is not None:
            raise self.fails
        self.invalidated.append((list(customer_ids), list(tags)))

    async def accept(self, events: Sequence[Event]) -> Accepted:
        if self.fails is not None:
            raise self.fails
        named = [
            replace(event, event_id=event.event_id or f"evt_made_{number}")
            for number, event in enumerate(events, len(self.events))
        ]
        new = {event.event_id: event for event in named if event.event_id not in self.events}
        self.events |= new
        return Accepted(event_ids=tuple(event.event_id for event in named), new=tuple(new.values()))


@dataclass
class FakeHistory:
    """The versions of `customer_123`, the newest first; nobody else is known."""

    entries: list[HistoryEntry] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def resolve(self, agent_type: str) -> str:
        return agent_type or "general"

    async def page(self, customer_id: str, *, agent_type: str, limit: int, cursor: str | None) -> HistoryPage:
        self.asked.append((customer_id, agent_type))
        if customer_id != "customer_123":
            raise UnknownCustomer("there is no such customer")
        start = int(cursor or 0)
        rest = self.entries[start + limit :]
        return HistoryPage(
            entries=tuple(self.entries[start : start + limit]),
            preceding=rest[0] if rest else None,
            next_cursor=str(start + limit) if rest else None,
        )

    async def compare(self, customer_id: str, *, agent_type: str, older: str, newer: str) -> Sequence[FieldChange]:
        self.asked.append((customer_id, agent_type))
        found = {entry.context_version: entry for entry in self.entries}
        if not {older, newer} <= found.keys():
            raise NotFound("this context has no such version")
        return diff(found[older], found[newer])


@dataclass
class FakeCampaigns:
    runs: dict[str, CampaignRun] = field(default_factory=dict)
    fails: BaseException | None = None

    async def start(self, config: Mapping[str, Any], *, owner: str, request_id: str) -> CampaignRun:
        if self.fails is not None:
            raise self.fails
        run = CampaignRun(
            campaign_id=f"cpn_{len(self.runs) + 1}",
            owner=owner,
            status=CampaignStatus.QUEUED,
            stage="",
            progress=0.0,
            config=config,
            report_path=None,
            error=None,
            created_at=NOW,
            updated_at=NOW,
        )
        self.runs[run.campaign_id] = run
        return run

    async def get(self, campaign_id: str) -> CampaignRun:
        if campaign_id not in self.runs:
            raise NotFound("there is no such campaign")
        return self.runs[campaign_id]

    async def report(self, campaign_id: str) -> CampaignReport:
        if not self.runs[campaign_id].status.ended:
            raise Conflict("the campaign still runs")
        return CampaignReport(json=b'{"lift":0.1}', html=b"<h1>Report</h1>")


@dataclass
class FakeIdempotency:
    """The store's contract in memory."""

    kept: dict[tuple[str, str, str], tuple[str, Replay | None]] = field(default_factory=dict)
    claims: dict[int, tuple[str, str, str]] = field(default_factory=dict)

    async def begin(self, principal: str, route: str, key: str, body_hash: str) -> Fresh | Replay:
        scope = (principal, route, key)
        if scope not in self.kept:
            self.kept[scope] = (body_hash, None)
            claim = Fresh(key_id=len(self.claims), attempt="att")
            self.claims[claim.key_id] = scope
            return claim
        first_hash, answer = self.kept[scope]
        if first_hash != body_hash:
            raise IdempotencyMismatch("this Idempotency-Key was used before with another body")
        if answer is None:
            raise InProgress("the same request is still running").with_retry_after(1.0)
        return answer

    async def finish(self, claim: Fresh, *, status: int, body: bytes) -> None:
        scope = self.claims[claim.key_id]
        self.kept[scope] = (self.kept[scope][0], Replay(status=status, body=body))

    async def abandon(self, claim: Fresh) -> None:
        del self.kept[self.claims[claim.key_id]]


@dataclass
class FakeReadiness:
    reports: list[DependencyReport] = field(
        default_factory=lambda: [
            DependencyReport(name="database", state=DependencyState.UP, critical=True, latency_ms=0.4),
            DependencyReport(name="redis", state=DependencyState.UP, critical=False),
        ]
    )

    async def check(self) -> Sequence[DependencyReport]:
        return self.reports


@dataclass
class FakeRateLimiter:
    """Gives each principal as many requests as its minute has, and never more: no time passes in a test."""

    taken: Counter[str] = field(default_factory=Counter)

    async def try_take(self, principal: str, *, per_minute: int) -> float:
        if self.taken[principal] >= per_minute:
            return 12.2
        self.taken[principal] += 1
        return 0.0


@dataclass
class RecordingMetrics:
    counted: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    observed: list[tuple[str, float, dict[str, str]]] = field(default_factory=list)
    #: Set once a request has been recorded, which happens after its last byte.
    request_recorded: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        self.counted.append((name, labels))
        if name == "http_requests_total":
            self.request_recorded.set()

    def observe(self, name: str, value: float, **labels: str) -> None:
        self.observed.append((name, value, labels))


async def no_nodes() -> list[str]:
    return []


@dataclass
class World:
    """Both applications over one set of fakes."""

    settings: Settings = field(default_factory=Settings)
    router: FakeRouter = field(default_factory=FakeRouter)
    conversation: FakeConversation = field(default_factory=FakeConversation)
    language_model: FakeLanguageModel = field(default_factory=FakeLanguageModel)
    embedder: FakeEmbedder = field(default_factory=FakeEmbedder)
    gate: FakeGate = field(default_factory=FakeGate)
    reader: FakeReader = field(default_factory=FakeReader)
    history: FakeHistory = field(default_factory=FakeHistory)
    campaigns: FakeCampaigns = field(default_factory=FakeCampaigns)
    idempotency: FakeIdempotency = field(default_factory=FakeIdempotency)
    readiness: FakeReadiness = field(default_factory=FakeReadiness)
    rate_limiter: FakeRateLimiter = field(default_factory=FakeRateLimiter)
    metrics: RecordingMetrics = field(default_factory=RecordingMetrics)

    def __post_init__(self) -> None:
        self.contexts = FakeContextDesk(self.reader)
        self.api = build_api(
            ApiServices(
                router=self.router,
                conversation=self.conversation,
                language_model=self.language_model,
                embedder=self.embedder,
                safety=self.gate,
                context=self.contexts,
                campaigns=self.campaigns,
                idempotency=self.idempotency,
                readiness=self.readiness,
                metrics_page=MetricsPage(no_nodes, LocalCounterMemory()),
                rate_limiter=self.rate_limiter,
                metrics=self.metrics,
            ),
            self.settings,
        )
        self.context = build_context_api(
            ContextServices(
                reader=self.reader, history=self.history, rate_limiter=self.rate_limiter, metrics=self.metrics
            ),
            self.settings,
        )

    @asynccontextmanager
    async def client(self, *, host: str = "127.0.0.1", key: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
        """A caller at `host`, with a key or without; both applications as Serve mounts them."""
        prefix = "/api/v1/customers"
        main = httpx.ASGITransport(app=self.api, client=(host, 50_000), raise_app_exceptions=False)
        context = httpx.ASGITransport(
            app=self.context, client=(host, 50_000), root_path=prefix, raise_app_exceptions=False
        )

        class ByPrefix(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                transport = context if request.url.path.startswith(prefix + "/") else main
                return await transport.handle_async_request(request)

        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with httpx.AsyncClient(transport=ByPrefix(), base_url="http://127.0.0.1:8000", headers=headers) as client:
            yield client

    @asynccontextmanager
    async def openai(self, *, key: str = "none", host: str = "127.0.0.1") -> AsyncIterator[AsyncOpenAI]:
        """The official client, unchanged but for its base URL; it repeats nothing, so that a test sees each failure."""
        transport = httpx2.ASGITransport(app=self.api, client=(host, 50_000), raise_app_exceptions=False)
        base_url = "http://127.0.0.1:8000/v1"
        async with httpx2.AsyncClient(transport=transport) as http:
            yield AsyncOpenAI(api_key=key, base_url=base_url, http_client=http, max_retries=0)
