"""Providers, clocks and sections for tests of customer context."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from models.enrichment.types import (
    SECTIONS,
    AccountHealth,
    CustomerIntelligence,
    EngagementMetrics,
    HistoryEntry,
    ProviderSpec,
    Section,
    SubscriptionDetails,
    SupportHistory,
)
from models.errors import UnknownCustomer
from models.resilience.deadline import Deadline

NOW = datetime(2024, 11, 14, 9, 0, tzinfo=UTC)


class HandClock:
    """Monotonic and wall time, moved by hand together."""

    def __init__(self, now: datetime = NOW) -> None:
        self.seconds = 1000.0
        self._origin = now - timedelta(seconds=self.seconds)

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
    """Answers with what it is given; `gate`, when set to an event, holds every answer back until it is set."""

    def __init__(self, name: str, *, timeout_s: float = 60.0, ttl_s: float = 300.0, tier: int = 1) -> None:
        self.spec = ProviderSpec(name=name, section=name, timeout_s=timeout_s, ttl_s=ttl_s, tier=tier)
        self.answer: object = ACME[name]
        self.gate: asyncio.Event | None = None
        self.asked: list[str] = []
        self.arrivals: asyncio.Queue[str] = asyncio.Queue()
        self.cancelled = 0

    async def fetch(self, customer_id: str, *, deadline: Deadline) -> Section | None:
        self.asked.append(customer_id)
        self.arrivals.put_nowait(customer_id)
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer  # type: ignore[return-value]  # a misbehaving provider may return anything

    def changes(self, **fields: object) -> None:
        """From now on the section reads so."""
        self.answer = replace(self.answer, **fields)  # type: ignore[type-var]  # always a section in these tests

    def knows_nobody(self) -> None:
        self.answer = UnknownCustomer("there is no such customer")


def all_providers(**options: float) -> dict[str, FakeProvider]:
    """One fake provider per section."""
    return {name: FakeProvider(name, timeout_s=options.get("timeout_s", 60.0)) for name in SECTIONS}


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
    """Counts by name and labels."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        key = (name, tuple(sorted(labels.items())))
        self.counts[key] = self.counts.get(key, 0.0) + value

    def observe(self, name: str, value: float, **labels: str) -> None:
        return None

    def of(self, name: str, **labels: str) -> float:
        return self.counts.get((name, tuple(sorted(labels.items()))), 0.0)
