"""Values of a campaign: customers -> segments -> passages -> variants -> assignments -> engagement -> effects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from models.llm.types import Citation
from models.safety.types import Decision, Finding

#: The owner of campaigns started from the command line, which no job of the cluster stands for.
COMMAND_LINE = "cli"


class Tone(StrEnum):
    URGENT = "urgent"
    INFORMATIONAL = "informational"
    FRIENDLY = "friendly"


class Arm(StrEnum):
    """What a customer of the experiment gets: nothing, or the variant of one tone."""

    CONTROL = "control"
    URGENT = "urgent"
    INFORMATIONAL = "informational"
    FRIENDLY = "friendly"

    @property
    def tone(self) -> Tone | None:
        """The tone an arm sends; `None` for the control."""
        return None if self is Arm.CONTROL else Tone(self.value)


TREATMENTS: tuple[Arm, ...] = (Arm.URGENT, Arm.INFORMATIONAL, Arm.FRIENDLY)


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerFeatures:
    """What segmentation and simulation may know of one customer; days count back from the campaign's day.

    `recency_days` is the age of the last order or, without one, of the customer; `frequency` counts the orders and
    `monetary` sums orders and paid invoices (in money units) of the last 365 days; `engagement` is the share of the
    last 30 days with a login.
    """

    customer_id: str
    recency_days: float
    frequency: float
    monetary: float
    engagement: float
    tenure_days: float = 0.0
    seat_use: float = 0.0
    open_tickets: float = 0.0
    churn_risk: float = 0.0
    renewal_in_days: float | None = None


#: The numeric features, in the order of every matrix and table.
FEATURE_NAMES: tuple[str, ...] = (
    "recency_days",
    "frequency",
    "monetary",
    "engagement",
    "tenure_days",
    "seat_use",
    "open_tickets",
    "churn_risk",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A stretch of the audience in id order: at most `size` customers after `after` (from the start when empty)."""

    number: int
    after: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Why one customer is held back; `unread` when no reason is known, but not everything could be read either."""

    reasons: tuple[str, ...] = ()
    unread: bool = False

    @property
    def held_back(self) -> bool:
        return self.unread or bool(self.reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBack:
    """How many customers are not written to for now, the `unread` among them.

    `reasons` counts them by each reason; a customer may have several.
    """

    customers: int = 0
    unread: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A labelled group of customers; `characteristics` are feature means, `traits` their reading in words."""

    label: str
    size: int
    share: float
    characteristics: Mapping[str, float]
    traits: tuple[str, ...] = ()
    summary: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievedPassage:
    """A passage that a segment's messages may quote; `snippet` is at most 200 characters, cut between words."""

    passage_id: str
    document_id: str
    title: str
    version: str
    text: str
    snippet: str
    score: float
    query: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberedCitation:
    """The source behind the marker `[number]` of a body; `citation.quote` stands in the body word for word."""

    number: int
    citation: Citation


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A message composed from an approved tone frame and cited sentences."""

    variant_id: str
    segment: str
    tone: Tone
    subject: str
    body: str
    citations: tuple[NumberedCitation, ...]
    frame_id: str
    frame_version: str

    @property
    def arm(self) -> Arm:
        return Arm(self.tone.value)

    @property
    def words(self) -> int:
        return len(self.body.split())


class VariantProblem(StrEnum):
    """Why a message may not be used."""

    NO_PASSAGES = "no_passages"
    NO_FRAME = "no_frame"
    TOO_LITTLE_MATERIAL = "too_little_material"
    SUBJECT_EMPTY = "subject_empty"
    SUBJECT_TOO_LONG = "subject_too_long"
    BODY_TOO_SHORT = "body_too_short"
    BODY_TOO_LONG = "body_too_long"
    UNFILLED_PLACEHOLDER = "unfilled_placeholder"
    NO_CITATION = "no_citation"
    MARKER_WITHOUT_SOURCE = "marker_without_source"
    SOURCE_WITHOUT_MARKER = "source_without_marker"
    QUOTE_NOT_VERBATIM = "quote_not_verbatim"


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantFailure:
    """A tone that could not be composed for a segment, and every reason."""

    segment: str
    tone: Tone
    problems: tuple[VariantProblem, ...]
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedVariant:
    """A variant with the safety gate's decision; only `allow` is ever assigned."""

    variant: Variant
    decision: Decision
    findings: tuple[Finding, ...]
    reasons: tuple[str, ...]
    policy_version: str
    checked_at: datetime

    @property
    def approved(self) -> bool:
        return self.decision is Decision.ALLOW


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Which arm one customer got, and in which stratum."""

    customer_id: str
    stratum: str
    arm: Arm


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentPlan:
    """Everything an assignment is a function of; equal plans over the same snapshot give equal assignments.

    `arms` names the arms dealt within each stratum; a stratum with the control alone takes no part in comparisons.
    """

    salt: str
    snapshot_hash: str
    arms: Mapping[str, tuple[Arm, ...]]
    alpha: float = 0.05
    primary_metric: str = "visit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Engagement:
    """What one customer did in the observation window; spend is in cents. `simulated` is never dropped."""

    visited: bool
    converted: bool
    spend_cents: int
    simulated: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CellSummary:
    """Sufficient statistics of one arm in one stratum; integer sums, so that their order cannot matter."""

    stratum: str
    arm: Arm
    customers: int = 0
    visits: int = 0
    conversions: int = 0
    spend_cents: int = 0
    spend_cents_squared: int = 0


class StageState(StrEnum):
    COMPLETED = "completed"
    #: Some rows failed, or the work had to fall back; the rest is good.
    PARTIAL = "partial"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFailure:
    """One row a stage could not do: `key` is a segment, a variant or a *hashed* customer id."""

    key: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRecord:
    """What became of one stage; `error` is safe to show. `failures` holds the first rows that failed."""

    name: str
    state: StageState
    rows_in: int = 0
    rows_out: int = 0
    rows_failed: int = 0
    error_code: str = ""
    error: str = ""
    note: str = ""
    failures: tuple[RowFailure, ...] = ()
    started_at: datetime | None = None
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What another run needs to give the same report."""

    campaign_id: str
    name: str
    seed: int
    as_of: datetime
    snapshot_hash: str = ""
    config_hash: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
