"""The wire models: exactly the documented fields, unknown ones refused, and how domain values become them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from deployments.ingress.services import DependencyReport, DependencyState
from models.classification.types import Category, Intent
from models.llm.types import Citation
from models.sessions.types import Outcome, Session, SessionStatus, Turn
from models.workflows.types import Channel, NextStep, Severity, WorkflowResult
from providers.systems.campaigns import CampaignRun, CampaignStatus

CUSTOMER_ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
MAX_MESSAGE = 5000


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank; send what the customer wrote")
    return text


MessageText = Annotated[str, Field(min_length=1, max_length=MAX_MESSAGE), AfterValidator(_not_blank)]
CustomerId = Annotated[str, Field(pattern=CUSTOMER_ID_PATTERN, examples=["customer_123"])]
AgentType = Annotated[str, Field(min_length=1, max_length=64)]
Metadata = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=20, description="Free labels of the caller, at most 20; kept, never interpreted."),
]


class Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class ClassifyRequest(Wire):
    """One message of a customer."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "message": "Where is my order ORD-10123? It should have arrived on Monday.",
                    "channel": "chat",
                    "customer_id": "customer_123",
                    "metadata": {"page": "/orders"},
                }
            ]
        }
    )

    message: MessageText
    channel: Channel
    customer_id: CustomerId | None = None
    """An unknown customer never stops a classification; the decision path notes it."""
    metadata: Metadata = Field(default_factory=dict)


class CitationBody(Wire):
    """A verbatim quote from an approved document."""

    document_id: str
    title: str
    quote: str
    version: str

    @classmethod
    def of(cls, citation: Citation) -> CitationBody:
        return cls(
            document_id=citation.document_id, title=citation.title, quote=citation.quote, version=citation.version
        )


class ActionBody(Wire):
    """A prepared side effect; nothing has been executed."""

    action_id: str
    intent: Intent
    customer_id: str | None
    order_id: str | None
    summary: str
    ready: bool
    missing: list[str]


class ClassifyResponse(Wire):
    """What the message is about, what was decided, and what happens next."""

    category: Category
    confidence: Annotated[float, Field(ge=0, le=1)]
    reasoning: str
    decision_path: list[str]
    next_step: NextStep
    processing_time_ms: float
    intent: Intent | None = None
    severity: Severity | None = None
    entities: dict[str, str | bool]
    action: ActionBody | None = None
    reply: str | None = None
    citations: list[CitationBody]
    degraded: list[str]
    """Parts that were left out because something did not answer; empty when all went well."""
    request_id: str

    @classmethod
    def of(cls, result: WorkflowResult, *, processing_time_ms: float, request_id: str) -> ClassifyResponse:
        action = result.action
        return cls(
            category=result.classification.category,
            confidence=result.classification.confidence,
            reasoning=result.classification.reasoning,
            decision_path=list(result.decision_path),
            next_step=result.next_step,
            processing_time_ms=round(processing_time_ms, 3),
            intent=result.classification.intent,
            severity=result.severity,
            entities=dict(result.entities),
            action=action
            and ActionBody(
                action_id=action.action_id,
                intent=action.intent,
                customer_id=action.customer_id,
                order_id=action.order_id,
                summary=action.summary,
                ready=action.ready,
                missing=list(action.missing),
            ),
            reply=result.reply,
            citations=[CitationBody.of(citation) for citation in result.citations],
            degraded=list(result.degraded),
            request_id=request_id,
        )


class SessionRequest(Wire):
    """Who talks, and for which agent; all optional."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"customer_id": "customer_123", "agent_type": "support", "metadata": {}}]}
    )

    customer_id: CustomerId | None = None
    agent_type: AgentType | None = None
    """Decides what of the customer's context may be seen; must lie within the credential."""
    metadata: Metadata = Field(default_factory=dict)


class UsageBody(Wire):
    """Tokens as the engine counts them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TurnBody(Wire):
    """One customer message and our reply; `outcome` and `reply` are null while the turn runs."""

    turn_id: str
    client_message_id: str | None
    text: str
    at: datetime
    outcome: Outcome | None
    reply: str | None
    citations: list[CitationBody]
    engine: str
    degraded: list[str]
    ticket_id: str | None
    usage: UsageBody
    timings: dict[str, float]
    """Milliseconds by part of the work."""

    @classmethod
    def of(cls, turn: Turn) -> TurnBody:
        return cls(
            turn_id=turn.turn_id,
            client_message_id=turn.client_message_id,
            text=turn.text,
            at=turn.at,
            outcome=turn.outcome,
            reply=turn.reply,
            citations=[CitationBody.of(citation) for citation in turn.citations],
            engine=turn.engine,
            degraded=list(turn.degraded),
            ticket_id=turn.ticket_id,
            usage=UsageBody(
                prompt_tokens=turn.prompt_tokens,
                completion_tokens=turn.completion_tokens,
                total_tokens=turn.prompt_tokens + turn.completion_tokens,
            ),
            timings=dict(turn.timings_ms),
        )


class SessionBody(Wire):
    """A conversation with its turns, oldest first."""

    session_id: str
    customer_id: str | None
    agent_type: str | None
    status: SessionStatus
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    metadata: dict[str, str]
    turns: list[TurnBody]

    @classmethod
    def of(cls, session: Session) -> SessionBody:
        return cls(
            session_id=session.session_id,
            customer_id=session.customer_id,
            agent_type=session.agent_type,
            status=session.status,
            created_at=session.created_at,
            updated_at=session.updated_at,
            expires_at=session.expires_at,
            metadata=dict(session.metadata),
            turns=[TurnBody.of(turn) for turn in session.turns],
        )


class SessionList(Wire):
    """Live sessions, newest first; `next_cursor` is null on the last page."""

    sessions: list[SessionBody]
    next_cursor: str | None = None


class MessageRequest(Wire):
    """What the customer writes. The same `client_message_id` again never makes a second turn."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"text": "How do I invite a colleague to our clinic?", "client_message_id": "m-1"}]
        }
    )

    text: MessageText
    client_message_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$")] | None = None


class MessageReply(Wire):
    """The whole answer to one message."""

    turn_id: str
    outcome: Outcome | None
    reply: str | None
    citations: list[CitationBody]
    ticket_id: str | None
    degraded: list[str]
    usage: UsageBody
    timings: dict[str, float]

    @classmethod
    def of(cls, turn: Turn) -> MessageReply:
        body = TurnBody.of(turn)
        return cls(**{name: getattr(body, name) for name in cls.model_fields})


class MessageAccepted(Wire):
    """The turn runs; read it under its id in the session."""

    turn_id: str
    session_id: str


class CampaignRequest(Wire):
    """A campaign over the first `customers` demo customers; the same seed gives the same campaign."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "autumn renewal", "customers": 500, "seed": 7}]})

    name: Annotated[str, Field(min_length=1, max_length=80)] = "campaign"
    customers: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 500
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)] = 7


class CampaignBody(Wire):
    """A campaign as it stands; `progress` is 0 to 1 over all stages."""

    campaign_id: str
    status: CampaignStatus
    stage: str
    progress: float
    config: dict[str, Any]
    error: str | None
    report: str | None
    """Where to read the report, once there is one."""
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, run: CampaignRun) -> CampaignBody:
        return cls(
            campaign_id=run.campaign_id,
            status=run.status,
            stage=run.stage,
            progress=run.progress,
            config=dict(run.config),
            error=run.error,
            report=f"/api/v1/campaigns/{run.campaign_id}/report" if run.report_path else None,
            created_at=run.created_at,
            updated_at=run.updated_at,
        )


class HealthBody(Wire):
    """The process answers."""

    status: Literal["ok"]


class DependencyBody(Wire):
    """One dependency; only a critical one that is down makes the service not ready."""

    state: DependencyState
    critical: bool
    detail: str
    latency_ms: float


class ReadyBody(Wire):
    """Every dependency by name."""

    status: Literal["ready", "degraded", "not_ready"]
    dependencies: dict[str, DependencyBody]

    @classmethod
    def of(cls, reports: list[DependencyReport]) -> ReadyBody:
        down = any(report.critical and report.state is DependencyState.DOWN for report in reports)
        well = all(report.state is DependencyState.UP for report in reports)
        return cls(
            status="not_ready" if down else "ready" if well else "degraded",
            dependencies={
                report.name: DependencyBody(
                    state=report.state,
                    critical=report.critical,
                    detail=report.detail,
                    latency_ms=round(report.latency_ms, 3),
                )
                for report in reports
            },
        )


class ProblemField(Wire):
    """One offending field: a JSON pointer and how to mend it."""

    pointer: str
    detail: str


class ProblemBody(Wire):
    """RFC 9457 problem document, the one shape of every failure."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    """The request id, as in the `X-Request-Id` header."""
    code: str
    """Stable and upper case; see the table in /docs."""
    errors: list[ProblemField]
    retryable: bool
    retry_after_ms: int | None = None
