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

from models.resilience.deadline import Deadline

#: Marks a section's field as personal data: every rule set must say what an agent type sees of it.
PERSONAL: Mapping[str, bool] = MappingProxyType({"personal": True})

#: Marks text that people wrote: personal data may stand anywhere in it, so it is searched for patterns.
FREE_TEXT: Mapping[str, bool] = MappingProxyType({"free_text": True})


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


@dataclass(frozen=True, slots=True, kw_only=True)
class SalesPipeline:
    """Deals under way and their worth in `currency`; `weighted_amount` counts each deal by its probability."""

    open_deals: int
    open_amount: float
    weighted_amount: float
    currency: str
    furthest_stage: str | None
    next_close_at: datetime | None
    won_deals: int
    lost_deals: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureUsage:
    """Features over the last 30 days beside the 30 before; `change` is relative, `None` from 0."""

    uses_30d: int
    uses_previous_30d: int
    change: float | None
    used: tuple[str, ...]
    adopted: tuple[str, ...]
    dropped: tuple[str, ...]
    never_used: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityContext:
    """Security events of the last 90 days; `open_events` are those nobody has resolved."""

    open_events: int
    events_90d: int
    highest_open_severity: str | None
    last_event_at: datetime | None
    last_event_kind: str | None
    last_event_detail: str = field(metadata=PERSONAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompanyEnrichment:
    """The company as a data vendor knows it; `None` where the vendor says nothing."""

    legal_name: str | None
    domain: str
    industry: str | None
    employees: int | None
    employees_range: str | None
    annual_revenue_usd: float | None
    founded_year: int | None
    country: str | None
    description: str = field(default="", metadata=FREE_TEXT)
    technologies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompanyFunding:
    """What investors put in."""

    total_raised_usd: float | None
    funding_rounds: int
    last_round_type: str | None
    last_round_at: datetime | None
    last_round_usd: float | None
    investors: tuple[str, ...]
    ipo_status: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewsArticle:
    """One article about a company."""

    title: str
    source: str
    url: str
    published_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CompanyNews:
    """Recent articles, the newest first; `total` counts what the source found."""

    total: int
    articles: tuple[NewsArticle, ...] = field(metadata=FREE_TEXT)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenIncident:
    """A disturbance that is not over."""

    component: str
    title: str
    severity: str
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductStatus:
    """`status` is operational, degraded or outage, by the worst open incident; incidents are the worst first."""

    status: str
    incidents: tuple[OpenIncident, ...] = field(metadata=FREE_TEXT)
    resolved_24h: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentActivity:
    """What the customer's people do right now: in the last 15 minutes, and in the last hour."""

    active_now: bool
    last_seen_at: datetime | None
    active_people_15m: int
    events_1h: int
    recent_features: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPerformance:
    """How our own agents do: presence now, conversations of the last 24 hours, ratings of the last 30 days."""

    agents_available: int
    agents_total: int
    open_conversations: int
    conversations_24h: int
    resolution_rate_24h: float | None
    avg_handle_minutes_24h: float | None
    avg_csat_30d: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChurnPrediction:
    """`predicted` by the model and `recorded` on the customer, both 0 to 1; a recorded value wins, as `risk` says.

    `drivers` are the features that raise the prediction most, the strongest first; `synthetic` tells of a model that
    was trained on made-up history.
    """

    risk: float
    risk_source: str
    recorded: float | None
    predicted: float
    horizon_days: int
    drivers: tuple[str, ...]
    model_version: str
    synthetic: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NextBestAction:
    """The action with the highest expected gain, `expected_gain` a probability difference against doing nothing."""

    action: str
    expected_gain: float
    reason: str
    alternatives: tuple[str, ...]
    model_version: str
    synthetic: bool


Section = (
    CustomerIntelligence
    | SubscriptionDetails
    | SupportHistory
    | EngagementMetrics
    | AccountHealth
    | SalesPipeline
    | FeatureUsage
    | SecurityContext
    | CompanyEnrichment
    | CompanyFunding
    | CompanyNews
    | ProductStatus
    | CurrentActivity
    | AgentPerformance
    | ChurnPrediction
    | NextBestAction
)

#: The fields of `EnrichedContext` that hold sections, in the order in which every format shows them.
SECTIONS: Mapping[str, type[Section]] = MappingProxyType(
    {
        "customer_intelligence": CustomerIntelligence,
        "subscription_details": SubscriptionDetails,
        "support_history": SupportHistory,
        "engagement_metrics": EngagementMetrics,
        "account_health": AccountHealth,
        "sales_pipeline": SalesPipeline,
        "feature_usage": FeatureUsage,
        "security_context": SecurityContext,
        "company_enrichment": CompanyEnrichment,
        "company_funding": CompanyFunding,
        "company_news": CompanyNews,
        "product_status": ProductStatus,
        "current_activity": CurrentActivity,
        "agent_performance": AgentPerformance,
        "churn_prediction": ChurnPrediction,
        "next_best_action": NextBestAction,
    }
)

#: Sections about this very minute: they are shown, but are no part of a context's version and history, which would
#: otherwise grow by a version a minute that says nothing of the customer.
REAL_TIME_SECTIONS = frozenset({"product_status", "current_activity", "agent_performance"})

#: `section.field` of everything personal in a context.
PERSONAL_FIELDS: tuple[str, ...] = tuple(
    f"{name}.{item.name}"
    for name, section in SECTIONS.items()
    for item in fields(section)
    if item.metadata.get("personal")
)


class Scope(StrEnum):
    """Whom a provider's section is about: one customer, or everyone alike (then it is fetched once for all)."""

    CUSTOMER = "customer"
    EVERYONE = "everyone"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSpec:
    """What the orchestrator must know of a provider before it asks it.

    `section` is the field of `EnrichedContext` it fills, `source` where its data comes from; tier 0 matters most and is
    asked first. It is given the sections of the providers named in `depends_on`. Data is fresh for `ttl_s` (a finding
    that there is none for `missing_ttl_s`), and for `stale_while_revalidate_s` more it is shown, marked stale, while
    it is fetched anew. `tags` are invalidated together; the provider's name and source are always among them. Settings
    bound the time to live of our own data, and not that of a `third_party`, whose answers cost money.
    """

    name: str
    section: str
    source: str = "database"
    tier: int = 1
    timeout_s: float = 1.0
    ttl_s: float = 300.0
    missing_ttl_s: float = 30.0
    stale_while_revalidate_s: float = 30.0
    depends_on: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    third_party: bool = False
    scope: Scope = Scope.CUSTOMER


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
    sales_pipeline: SalesPipeline | None = None
    feature_usage: FeatureUsage | None = None
    security_context: SecurityContext | None = None
    company_enrichment: CompanyEnrichment | None = None
    company_funding: CompanyFunding | None = None
    company_news: CompanyNews | None = None
    product_status: ProductStatus | None = None
    current_activity: CurrentActivity | None = None
    agent_performance: AgentPerformance | None = None
    churn_prediction: ChurnPrediction | None = None
    next_best_action: NextBestAction | None = None
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
class ContextRequest:
    """How a context is to be read.

    An empty `agent_type` sees the most masked view; `masked` asks for that masking whatever the agent type.
    `providers` restricts the view to these names. `message` orders the sections by relevance to it; `max_tokens`
    bounds the prompt format only.
    """

    deadline: Deadline
    agent_type: str = ""
    masked: bool = False
    providers: tuple[str, ...] | None = None
    required: tuple[str, ...] = ()
    max_age_ms: int | None = None
    force_refresh: bool = False
    message: str | None = None
    format: ReadFormat = ReadFormat.JSON
    max_tokens: int | None = None


@dataclass(slots=True, kw_only=True)  # not frozen: every read makes one, and a frozen one takes thrice as long to make
class ContextReading:
    """One answered read, ready to send.

    `age_ms` is the age of the oldest data in it, `ttl_ms` how long a cache may still serve it. `strategy` is
    "experiment/strategy" where an experiment decided how it was read. `masked` says that it shows less than its agent
    type may see, because the release could not be audited in time.
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
    strategy: str = ""
    masked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """What an agent type could see of a customer from `at` on, real-time sections aside.

    `content` holds the sections by name as JSON values, `sources` where each of them came from, and `rules` the
    fingerprint of the view that masked them; empty where it is not known.
    """

    customer_id: str
    agent_type: str
    context_version: str
    content: Mapping[str, Any]
    at: datetime
    sources: Mapping[str, str] = field(default_factory=dict)
    rules: str = ""


#: Keys of `get_context_summary()` as documented.
Summary = Mapping[str, Any]
