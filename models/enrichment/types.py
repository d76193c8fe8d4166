"""Values of the enrichment contract: sections, the outcome of each provider, and the whole context.

Field names follow the documented data models of the context-enrichment sources.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

#: Marks a section's field as personal data: every rule set must say what an agent type sees of it.
PERSONAL: Mapping[str, bool] = MappingProxyType({"personal": True})


class ProviderState(StrEnum):
    FRESH = "fresh"
    STALE = "stale"
    MISSING = "missing"
    TIMEOUT = "timeout"
    ERROR = "error"
    DENIED = "denied"
    SKIPPED = "skipped"


#: The provider gave no data for this read; a caller who requires it cannot be served.
ABSENT = frozenset({ProviderState.TIMEOUT, ProviderState.ERROR, ProviderState.DENIED, ProviderState.SKIPPED})


class ServedFrom(StrEnum):
    L1 = "l1"
    L2 = "l2"
    ORIGIN = "origin"


class ReadFormat(StrEnum):
    JSON = "json"
    PROMPT = "prompt"
    SUMMARY = "summary"


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerIntelligence:
    """Company profile and value; `health_score` 0 to 100, `churn_risk` 0 to 1, `mrr` in `currency` per month."""

    company_name: str
    industry: str
    plan: str
    mrr: float
    currency: str
    health_score: int
    churn_risk: float
    customer_since: datetime
    lifecycle: str
    contact_name: str = field(metadata=PERSONAL)
    contact_email: str = field(metadata=PERSONAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionDetails:
    """What is paid for; renewal and trial end are instants, day counts are derived when rendered."""

    plan: str
    billing_cycle: str
    seats_used: int
    seats_total: int
    renewal_at: datetime | None
    trial_ends_at: datetime | None
    status: str
    payment_overdue: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SupportHistory:
    """Conversations and tickets; `avg_csat` 1 to 5, `None` when nobody rated."""

    total_conversations: int
    avg_csat: float | None
    open_tickets: int
    last_conversation_at: datetime | None
    common_topics: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngagementMetrics:
    """Use of the product in the last 30 days; `feature_adoption_score` 0 to 1."""

    last_login_at: datetime | None
    login_count_30d: int
    most_used_features: tuple[str, ...]
    feature_adoption_score: float
    active_users_30d: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountHealth:
    """Flags: red for critical issues, yellow for warnings, green for opportunities."""

    red_flags: tuple[str, ...]
    yellow_flags: tuple[str, ...]
    green_flags: tuple[str, ...]


Section = CustomerIntelligence | SubscriptionDetails | SupportHistory | EngagementMetrics | AccountHealth

#: The fields of `EnrichedContext` that hold sections, in the order in which every format shows them.
SECTIONS: Mapping[str, type[Section]] = MappingProxyType(
    {
        "customer_intelligence": CustomerIntelligence,
        "subscription_details": SubscriptionDetails,
        "support_history": SupportHistory,
        "engagement_metrics": EngagementMetrics,
        "account_health": AccountHealth,
    }
)

#: `section.field` of everything personal in a context.
PERSONAL_FIELDS: tuple[str, ...] = tuple(
    f"{name}.{item.name}"
    for name, section in SECTIONS.items()
    for item in fields(section)
    if item.metadata.get("personal")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSpec:
    """What the orchestrator must know of a provider before it asks it.

    `section` is the field of `EnrichedContext` it fills, `source` where its data comes from; tier 0 matters most.
    """

    name: str
    section: str
    source: str = "database"
    tier: int = 1
    timeout_s: float = 1.0
    ttl_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderOutcome:
    """How one provider did for one read.

    `as_of` is when its data was read at the source, `latency_ms` what that reading took.
    """

    provider: str
    section: str
    state: ProviderState
    source: str
    as_of: datetime | None = None
    latency_ms: float = 0.0
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrichedContext:
    """Everything known of one customer for one agent type; a section is `None` when its provider has no data."""

    customer_id: str
    agent_type: str
    context_version: str
    enriched_at: datetime
    outcomes: tuple[ProviderOutcome, ...]
    customer_intelligence: CustomerIntelligence | None = None
    subscription_details: SubscriptionDetails | None = None
    support_history: SupportHistory | None = None
    engagement_metrics: EngagementMetrics | None = None
    account_health: AccountHealth | None = None
    cache_hit: bool = False
    enrichment_latency_ms: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether every asked provider answered with usable, fresh data (a documented absence counts)."""
        return all(outcome.state in (ProviderState.FRESH, ProviderState.MISSING) for outcome in self.outcomes)

    @property
    def minimal(self) -> bool:
        """Whether nothing at all is known: every provider failed, or there is no such customer."""
        return not self.sections()

    def sections(self) -> dict[str, Section]:
        """The sections that are there, by name."""
        present = {name: getattr(self, name) for name in SECTIONS}
        return {name: section for name, section in present.items() if section is not None}

    def to_prompt_context(
        self,
        now: datetime | None = None,
        *,
        max_tokens: int | None = None,
        count_tokens: Callable[[str], int] | None = None,
    ) -> str:
        """The documented prompt block; day counts are relative to `now`, by default the time of enrichment.

        Under `max_tokens` the least relevant sections are left out whole. Without `count_tokens`, three bytes of UTF-8
        count as one token, which is on the safe side for English.
        """
        from models.enrichment import prompt  # prompt renders these types, so it imports this module

        blocks = prompt.prompt_blocks(self, now or self.enriched_at)
        return prompt.fit(blocks, max_tokens=max_tokens, count_tokens=count_tokens or prompt.estimate_tokens)

    def get_context_summary(self, now: datetime | None = None) -> Summary:
        """The documented summary; numbers of absent sections are `None`, names and levels are `unknown`."""
        from models.enrichment import prompt  # as above

        return prompt.summarise(self, now or self.enriched_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextReading:
    """One answered read, ready to send.

    `age_ms` is the age of the oldest data in it, `ttl_ms` how long a cache may still serve it.
    """

    body: bytes
    media_type: str
    served_from: ServedFrom
    complete: bool
    age_ms: int
    ttl_ms: int
    context_version: str
    cache_hit: bool
    elapsed_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """What an agent type could see of a customer from `at` on."""

    customer_id: str
    agent_type: str
    context_version: str
    content: Mapping[str, Any]
    at: datetime


#: Keys of `get_context_summary()` as documented.
Summary = Mapping[str, Any]
