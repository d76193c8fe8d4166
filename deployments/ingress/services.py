"""What the routes need from the rest of Rapport; the deployment supplies it inside the replica."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from models.embedding.protocol import StrictEmbedder
from models.enrichment.events import Event
from models.enrichment.history import FieldChange, HistoryPage
from models.enrichment.protocol import ContextReader
from models.enrichment.types import ContextRequest
from models.llm.protocol import LanguageModel
from models.llm.types import ChatMessage
from models.resilience.deadline import Deadline
from models.safety.protocol import SafetyGate
from models.sessions.types import Session, Turn
from models.telemetry import Metrics, NoMetrics
from models.workflows.types import InboundMessage, WorkflowResult
from providers.systems.campaigns import CampaignRun
from providers.systems.events import Accepted
from providers.systems.idempotency import Fresh, Replay


class MessageRouter(Protocol):
    """Classifies a message and runs its workflow."""

    async def route(self, message: InboundMessage, *, deadline: Deadline) -> WorkflowResult:
        """Raises `DatabaseUnavailable` when a record that must not be lost was not committed, `DeadlineExceeded`."""
        ...


class ConversationDesk(Protocol):
    """Sessions and turns; a principal reaches only the sessions that it opened."""

    async def open(
        self, *, customer_id: str | None, agent_type: str | None, principal: str, metadata: dict[str, str]
    ) -> Session:
        """Raises `UnknownAgentType`, `CacheUnavailable`."""
        ...

    async def get(self, session_id: str, *, principal: str) -> Session:
        """Raises `NotFound`, `Forbidden`, `CacheUnavailable`."""
        ...

    async def end(self, session_id: str, *, principal: str) -> Session:
        """The ended session; safe to repeat. Raises as `get`."""
        ...

    async def of_customer(self, customer_id: str, *, principal: str) -> list[Session]:
        """The principal's live sessions with that customer, newest first."""
        ...

    async def turn(
        self,
        session_id: str,
        text: str,
        *,
        principal: str,
        client_message_id: str | None,
        request_id: str,
        deadline: Deadline,
        turn_id: str | None = None,
    ) -> Turn:
        """One turn, in the session from its first moment under `turn_id`, or under an id of its own when none is given.

        The same `client_message_id` again returns the first turn. Raises `Conflict` when the session has ended,
        `IdempotencyMismatch`, `InProgress`, and as `get`.
        """
        ...

    async def complete(
        self,
        messages: Sequence[ChatMessage],
        *,
        customer_id: str | None,
        agent_type: str | None,
        principal: str,
        request_id: str,
        deadline: Deadline,
    ) -> Turn:
        """One turn without a session: the last message is the customer's, those before it are the history.

        Raises `InvalidRequest`, `UnknownAgentType`, `DatabaseUnavailable`, `ModelUnavailable`, `DeadlineExceeded`.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignReport:
    """The two readable forms of a report."""

    json: bytes
    html: bytes


class ContextDesk(Protocol):
    """The context of many customers, and what makes it outdated."""

    async def read_many(self, customer_ids: Sequence[str], request: ContextRequest) -> bytes:
        """As `ContextReader.read_many`; also raises `Overloaded`."""
        ...

    async def invalidate(self, customer_ids: Sequence[str], tags: Sequence[str]) -> None:
        """Return once no cache holds these any more.

        Raises `CacheUnavailable` when not every cache could be told now; they are told as soon as that is possible
        again. Raises `DatabaseUnavailable` when not even that could be written down.
        """
        ...

    async def accept(self, events: Sequence[Event]) -> Accepted:
        """Keep all events or none, and tell the caches. Raises `InvalidRequest`, `DatabaseUnavailable`."""
        ...


class HistoryReader(Protocol):
    """How a customer's context changed, as one agent type may see it; the empty name is the most masked view."""

    def resolve(self, agent_type: str) -> str:
        """The name that answers bear; that of the most masked view for the empty one. Raises `UnknownAgentType`."""
        ...

    async def page(self, customer_id: str, *, agent_type: str, limit: int, cursor: str | None) -> HistoryPage:
        """The newest first.

        Raises `UnknownAgentType`, `UnknownCustomer`, `InvalidRequest` for a cursor, `DatabaseUnavailable`.
        """
        ...

    async def compare(self, customer_id: str, *, agent_type: str, older: str, newer: str) -> Sequence[FieldChange]:
        """What changed between two versions. Raises `UnknownAgentType`, `NotFound`, `DatabaseUnavailable`."""
        ...


class CampaignDesk(Protocol):
    """Starts campaigns as batch jobs and knows how far they are."""

    async def start(self, config: Mapping[str, Any], *, owner: str, request_id: str) -> CampaignRun:
        """The queued run, once it is durable. Raises `InvalidRequest`, `Overloaded`, `DatabaseUnavailable`."""
        ...

    async def get(self, campaign_id: str) -> CampaignRun:
        """Raises `NotFound`, `DatabaseUnavailable`."""
        ...

    async def report(self, campaign_id: str) -> CampaignReport:
        """Raises `NotFound`, `Conflict` while the campaign still runs."""
        ...


class IdempotencyStore(Protocol):
    """Makes a keyed request happen once over all replicas."""

    async def begin(self, principal: str, route: str, key: str, body_hash: str) -> Fresh | Replay:
        """Of concurrent callers exactly one gets `Fresh`. Raises `InProgress`, `IdempotencyMismatch`."""
        ...

    async def finish(self, claim: Fresh, *, status: int, body: bytes) -> None: ...

    async def abandon(self, claim: Fresh) -> None: ...


class RateLimiter(Protocol):
    """Spends one request of a principal's budget."""

    async def try_take(self, principal: str, *, per_minute: int) -> float:
        """0.0 when taken, else the seconds until another try can succeed; never raises for a lost store."""
        ...


class DependencyState(StrEnum):
    UP = "up"
    DEGRADED = "degraded"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class DependencyReport:
    """One dependency as `/ready` shows it; `detail` is written by us and holds no secret."""

    name: str
    state: DependencyState
    critical: bool
    detail: str = ""
    latency_ms: float = 0.0


class Readiness(Protocol):
    """Knows every dependency by name."""

    async def check(self) -> Sequence[DependencyReport]:
        """Never raises and always ends within its own time limit."""
        ...


class MetricsText(Protocol):
    """The metrics of the whole cluster."""

    async def render(self) -> str:
        """Prometheus text format 0.0.4."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServices:
    """Everything behind the main application."""

    router: MessageRouter
    conversation: ConversationDesk
    language_model: LanguageModel
    embedder: StrictEmbedder
    safety: SafetyGate
    context: ContextDesk
    campaigns: CampaignDesk
    idempotency: IdempotencyStore
    readiness: Readiness
    metrics_page: MetricsText
    rate_limiter: RateLimiter
    metrics: Metrics = field(default_factory=NoMetrics)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextServices:
    """Everything behind the context application."""

    reader: ContextReader
    history: HistoryReader
    rate_limiter: RateLimiter
    metrics: Metrics = field(default_factory=NoMetrics)
