"""Providers, clocks and sections for tests of customer context."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from models.enrichment.generations import Change, Generations, Shelf, Write
from models.enrichment.selection import SECTION_OF, AgentViews
from models.enrichment.types import (
    AccountHealth,
    AgentPerformance,
    ChurnPrediction,
    CompanyEnrichment,
    CompanyFunding,
    CompanyNews,
    ContextRequest,
    CurrentActivity,
    CustomerIntelligence,
    EngagementMetrics,
    FeatureUsage,
    HistoryEntry,
    NewsArticle,
    NextBestAction,
    OpenIncident,
    ProductStatus,
    ProviderSpec,
    SalesPipeline,
    Section,
    SecurityContext,
    SubscriptionDetails,
    SupportHistory,
)
from models.errors import CacheUnavailable, ProviderUnavailable, UnknownCustomer
from models.resilience.deadline import Deadline

NOW = datetime(2024, 11, 14, 9, 0, tzinfo=UTC)


class HandClock:
    """Monotonic and wall time, moved by hand together; `jump` moves the wall clock alone."""

    def __init__(self, now: datetime = NOW) -> None:
        self.seconds = 1000.0
        self._origin = now - timedelta(seconds=self.seconds)

    def jump(self, seconds: float) -> None:
        self._origin += timedelta(seconds=seconds)

    def __call__(self) -> float:
        return self.seconds

    def wall(self) -> datetime:
        return self._origin + timedelta(seconds=self.seconds)

    def forward(self, seconds: float) -> None:
        self.seconds += seconds


#: Acme Corp as the documents show it.
ACME: dict[str, Section] = {
    "customer_intelligence": CustomerIntelligence(
        company_name="Acme Corp",
        industry="Technology",
        plan="premium",
        mrr=250.0,
        currency="USD",
        health_score=85,
        churn_risk=0.15,
        customer_since=datetime(2024, 6, 15, tzinfo=UTC),
        lifecycle="growing",
        contact_name="Jordan Blake",
        contact_email="jordan.blake@example.com",
    ),
    "subscription_details": SubscriptionDetails(
        plan="premium",
        billing_cycle="monthly",
        seats_used=8,
        seats_total=10,
        renewal_at=NOW + timedelta(days=28),
        trial_ends_at=None,
        status="active",
        payment_overdue=False,
    ),
    "support_history": SupportHistory(
        total_conversations=12,
        avg_csat=4.5,
        open_tickets=1,
        last_conversation_at=NOW - timedelta(days=5),
        common_topics=("billing", "seats"),
    ),
    "engagement_metrics": EngagementMetrics(
        last_login_at=datetime(2024, 11, 13, 14, 32, tzinfo=UTC),
        login_count_30d=45,
        most_used_features=("Projects", "Tasks", "Reports"),
        feature_adoption_score=0.75,
        active_users_30d=3,
    ),
    "account_health": AccountHealth(
        red_flags=(),
        yellow_flags=(),
        green_flags=("High engagement - upsell opportunity", "High CSAT scores - ask for referral"),
    ),
}

#: Sections that the documents do not show, as other sources might fill them.
MORE: dict[str, Section] = {
    "sales_pipeline": SalesPipeline(
        open_deals=1,
        open_amount=5000.0,
        weighted_amount=2500.0,
        currency="USD",
        furthest_stage="proposal",
        next_close_at=NOW + timedelta(days=14),
        won_deals=2,
        lost_deals=1,
    ),
    "feature_usage": FeatureUsage(
        uses_30d=120,
        uses_previous_30d=100,
        change=0.2,
        used=("Projects", "Tasks"),
        adopted=("Reports",),
        dropped=(),
        never_used=("Automations",),
    ),
    "security_context": SecurityContext(
        open_events=1,
        events_90d=2,
        highest_open_severity="medium",
        last_event_at=NOW - timedelta(days=2),
        last_event_kind="login",
        last_event_detail="from a new device in Lisbon",
    ),
    "company_enrichment": CompanyEnrichment(
        legal_name="Acme Corporation",
        domain="acme.example",
        industry="Software",
        employees=120,
        employees_range="51-250",
        annual_revenue_usd=1.2e7,
        founded_year=2012,
        country="US",
    ),
    "company_funding": CompanyFunding(
        total_raised_usd=5e6,
        funding_rounds=2,
        last_round_type="series_a",
        last_round_at=NOW - timedelta(days=400),
        last_round_usd=4e6,
        investors=("First Capital",),
        ipo_status="private",
    ),
    "company_news": CompanyNews(
        total=1,
        articles=(
            NewsArticle(
                title="Acme opens an office",
                source="Daily",
                url="https://news.example/acme",
                published_at=NOW - timedelta(days=1),
            ),
        ),
    ),
    "product_status": ProductStatus(
        status="degraded",
        incidents=(
            OpenIncident(
                component="search", title="Slow search", severity="minor", started_at=NOW - timedelta(minutes=20)
            ),
        ),
        resolved_24h=0,
    ),
    "current_activity": CurrentActivity(
        active_now=True,
        last_seen_at=NOW - timedelta(minutes=1),
        active_people_15m=2,
        events_1h=14,
        recent_features=("Projects",),
    ),
    "agent_performance": AgentPerformance(
        agents_available=3,
        agents_total=5,
        open_conversations=7,
        conversations_24h=40,
        resolution_rate_24h=0.8,
        avg_handle_minutes_24h=6.5,
        avg_csat_30d=4.4,
    ),
    "churn_prediction": ChurnPrediction(
        risk=0.15,
        risk_source="recorded",
        recorded=0.15,
        predicted=0.2,
        horizon_days=90,
        drivers=("few logins",),
        model_version="1",
        synthetic=True,
    ),
    "next_best_action": NextBestAction(
        action="offer_training",
        expected_gain=0.04,
        reason="few features are used",
        alternatives=("call",),
        model_version="1",
        synthetic=True,
    ),
}

#: The documents' own examples of Acme's context, on the day they were written.
DOCUMENTED_PROMPT = """\
<customer_context>
Company: Acme Corp
Industry: Technology
Plan: PREMIUM
MRR: $250.00
Health Score: 85/100 (Good)
Churn Risk: Low (15%)
Customer Since: 2024-06-15 (152 days)

Recent Activity:
- Last login: 2024-11-13 14:32
- Login frequency: 45 times (last 30 days)
- Most used features: Projects, Tasks, Reports

Support History:
- Total conversations: 12
- Average CSAT: 4.5/5

Subscription:
- Plan: PREMIUM
- Seats: 8/10
- Renewal: 28 days

✅ OPPORTUNITIES:
- High engagement - upsell opportunity
- High CSAT scores - ask for referral
</customer_context>"""
DOCUMENTED_SUMMARY = {
    "company_name": "Acme Corp",
    "plan": "premium",
    "health_score": 85,
    "churn_risk": 0.15,
    "churn_risk_level": "low",
    "login_count_30d": 45,
    "open_tickets": 1,
    "days_to_renewal": 28,
    "has_critical_issues": False,
    "has_opportunities": True,
    "cache_hit": True,
}


class FakeProvider:
    """Answers with what it is given; `gate`, when set to an event, holds every answer back until it is set.

    `known` is what it was told of the providers it depends on, by customer.
    """

    def __init__(self, name: str, **spec: Any) -> None:
        spec.setdefault("section", SECTION_OF.get(name, name))
        spec.setdefault("timeout_s", 60.0)
        self.spec = ProviderSpec(name=name, **spec)
        self.answer: object = {**ACME, **MORE}[self.spec.section]
        self.gate: asyncio.Event | None = None
        self.asked: list[str] = []
        self.known: dict[str, dict[str, Section]] = {}
        self.arrivals: asyncio.Queue[str] = asyncio.Queue()
        self.cancelled = 0

    async def fetch(self, customer_id: str, *, deadline: Deadline, known: Mapping[str, Section]) -> Section | None:
        self.asked.append(customer_id)
        self.known[customer_id] = dict(known)
        self.arrivals.put_nowait(customer_id)
        answer = self.answer
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[return-value]  # a misbehaving provider may return anything

    def changes(self, **fields: object) -> None:
        """From now on the section reads so."""
        self.answer = replace(self.answer, **fields)  # type: ignore[type-var]  # always a section in these tests

    def fails(self, error: Exception | None = None) -> None:
        """From now on it is away, or raises this."""
        self.answer = error or ProviderUnavailable("down")

    def recovers(self) -> None:
        self.answer = {**ACME, **MORE}[self.spec.section]

    def knows_nobody(self) -> None:
        self.answer = UnknownCustomer("there is no such customer")


class FakeBulkProvider(FakeProvider):
    """Asked about many it answers for each; `nobody` are ids of no customer, `special` answers by id."""

    def __init__(self, name: str, **spec: Any) -> None:
        super().__init__(name, **spec)
        self.asked_together: list[list[str]] = []
        self.nobody: set[str] = set()
        self.special: dict[str, object] = {}

    async def fetch_many(
        self, customer_ids: Sequence[str], *, deadline: Deadline, known: Mapping[str, Mapping[str, Section]]
    ) -> Mapping[str, Section | None]:
        self.asked_together.append(list(customer_ids))
        self.known.update({customer_id: dict(known[customer_id]) for customer_id in customer_ids})
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.answer, BaseException):
            raise self.answer
        answers: dict[str, Any] = {one: self.special.get(one, self.answer) for one in customer_ids}
        return {one: answer for one, answer in answers.items() if one not in self.nobody}


def all_providers(kind: type[FakeProvider] = FakeProvider, **spec: Any) -> dict[str, FakeProvider]:
    """One fake for every provider that an agent type is shown, all alike but for the section."""
    return {name: kind(name, **spec) for name in AgentViews.load().providers()}


def documented_providers(kind: type[FakeProvider] = FakeProvider, **spec: Any) -> dict[str, FakeProvider]:
    """One fake for each section of Acme Corp as the documents show it."""
    return {name: kind(name, **spec) for name in ACME}


def ask(wait_s: float = 5.0, clock: Callable[[], float] = time.monotonic, **request: Any) -> ContextRequest:
    """A request by an agent of support, ready to wait this long."""
    request.setdefault("agent_type", "support")
    return ContextRequest(deadline=Deadline.after(wait_s, clock), **request)


class MemorySections:
    """A `SectionCache` in memory, which can be `down` or `full`; `loads` and `saves` count what it was asked."""

    def __init__(self) -> None:
        self.shelves: dict[str, dict[str, bytes]] = {}
        self.generations: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.own_tags: dict[str, dict[str, str]] = {}
        self.down = self.full = False
        self.loads = self.saves = 0
        self.closed = False
        self.gate: asyncio.Event | None = None
        self._names = itertools.count(1)

    async def load(self, keys: Sequence[str]) -> list[Shelf]:
        self.loads += 1
        self._answer()
        shelves = [self._shelf(key) for key in keys]
        if self.gate is not None:
            await self.gate.wait()
        return shelves

    async def save(self, writes: Sequence[Write]) -> list[bool]:
        self.saves += 1
        self._answer()
        if self.full:
            raise CacheUnavailable("full")
        landed = []
        for write in writes:
            now = self._shelf(write.key).generations
            assert now is not None
            landed.append((now.customer, now.tags) == (write.generations.customer, write.generations.tags))
            if landed[-1]:
                self.shelves.setdefault(write.key, {}).update(write.values)
        return landed

    async def outdate(self, keys: Sequence[str], tags: Sequence[str]) -> None:
        self._answer()
        name = str(next(self._names))
        for key in keys:
            self.generations[key] = name
            if tags:
                self.own_tags.setdefault(key, {}).update(dict.fromkeys(tags, name))
                self.shelves.get(key, {}).pop(":unknown", None)
            else:
                self.shelves.pop(key, None)
        if not keys:
            self.tags.update({**dict.fromkeys(tags, name), ":tags": name})

    async def close(self) -> None:
        self.closed = True

    def _answer(self) -> None:
        if self.down:
            raise CacheUnavailable("gone")

    def _shelf(self, key: str) -> Shelf:
        generations = Generations(
            customer=self.generations.get(key, "0"),
            tags=self.tags.get(":tags", "0"),
            epoch="0",
            tokens={tag: name for tag, name in self.tags.items() if tag != ":tags"},
            own_tokens=dict(self.own_tags.get(key, {})),
        )
        return Shelf(values=dict(self.shelves.get(key, {})), generations=generations)


class LocalNews:
    """`Invalidations` of replicas in one process: what one publishes, all hear at once."""

    def __init__(self) -> None:
        self._listeners: list[tuple[Any, Any]] = []

    async def publish(self, change: Change) -> None:
        for on_change, _ in self._listeners:
            await on_change(change)

    async def listen(
        self, on_change: Callable[[Change], Awaitable[None]], on_gap: Callable[[], Awaitable[None]]
    ) -> None:
        self._listeners.append((on_change, on_gap))
        await on_gap()
        await asyncio.Event().wait()

    async def miss(self) -> None:
        """All were cut off for a moment."""
        for _, on_gap in self._listeners:
            await on_gap()


class ListHistory:
    """A `ContextHistory` in a list; fails with `failure` when that is set."""

    def __init__(self) -> None:
        self.entries: list[HistoryEntry] = []
        self.failure: Exception | None = None

    async def record(self, entry: HistoryEntry) -> bool:
        if self.failure is not None:
            raise self.failure
        of_key = [e for e in self.entries if (e.customer_id, e.agent_type) == (entry.customer_id, entry.agent_type)]
        if of_key and of_key[-1].context_version == entry.context_version:
            return False
        self.entries.append(entry)
        return True

    async def recent(self, customer_id: str, *, agent_type: str, limit: int = 20) -> list[HistoryEntry]:
        found = [e for e in self.entries if (e.customer_id, e.agent_type) == (customer_id, agent_type)]
        return found[::-1][:limit]


class ListMetrics:
    """Counts, and the last observations, by name and labels."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self.values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        key = (name, tuple(sorted(labels.items())))
        self.counts[key] = self.counts.get(key, 0.0) + value

    def observe(self, name: str, value: float, **labels: str) -> None:
        self.values[name, tuple(sorted(labels.items()))] = value

    def last(self, name: str, **labels: str) -> float | None:
        """What was observed last."""
        return self.values.get((name, tuple(sorted(labels.items()))))

    def of(self, name: str, **labels: str) -> float:
        return self.counts.get((name, tuple(sorted(labels.items()))), 0.0)
