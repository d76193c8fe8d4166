"""The tables of what Rapport itself writes down: records, the trail, messages to others, campaigns, context over time.

Records carry no foreign key to the customer: none is refused because the customer is unknown or erased.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, LargeBinary, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from providers.table_types import Json, Serial, Table


class ComplianceRecord(Table):
    """A safety or compliance report and when someone must have looked at it."""

    __tablename__ = "compliance_records"
    __table_args__ = (
        Index(None, "customer_id", "recorded_at"),
        Index(None, "queue", "status", "due_at"),
        Index(None, "request_id"),
    )

    record_id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str | None]
    channel: Mapped[str]
    severity: Mapped[str]
    redacted_text: Mapped[str]
    queue: Mapped[str]
    request_id: Mapped[str]
    status: Mapped[str]
    recorded_at: Mapped[datetime]
    due_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]


class AuditLine(Table):
    """One audit record in its writer's hash chain; the database itself refuses to change or delete a line."""

    __tablename__ = "audit"
    __table_args__ = (
        Index(None, "audit_id"),
        Index(None, "at"),
        Index(None, "subject", "at"),
        Index(None, "request_id"),
    )

    writer_id: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    audit_id: Mapped[str]
    at: Mapped[datetime]
    actor: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    outcome: Mapped[str]
    request_id: Mapped[str]
    details: Mapped[Json]
    prev_hash: Mapped[str]
    row_hash: Mapped[str]


class OutboxMessage(Table):
    """Something other systems must hear of, committed together with what happened; delivered at least once."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index(
            "ix_outbox_undelivered",
            "message_id",
            sqlite_where=text("delivered_at IS NULL"),
            postgresql_where=text("delivered_at IS NULL"),
        ),
        Index(
            "ix_outbox_undelivered_topic",
            "topic",
            "message_id",
            sqlite_where=text("delivered_at IS NULL"),
            postgresql_where=text("delivered_at IS NULL"),
        ),
    )

    message_id: Mapped[Serial]
    topic: Mapped[str]
    subject_id: Mapped[str]
    payload: Mapped[Json]
    created_at: Mapped[datetime]
    delivered_at: Mapped[datetime | None]
    attempts: Mapped[int]


class Campaign(Table):
    """One campaign run; `progress` 0 to 1 within all its stages."""

    __tablename__ = "campaigns"
    __table_args__ = (Index(None, "owner", "created_at"), Index(None, "status", "created_at"))

    campaign_id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    status: Mapped[str]
    stage: Mapped[str]
    progress: Mapped[float]
    config: Mapped[Json]
    report_path: Mapped[str | None]
    error: Mapped[str | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class IdempotencyKey(Table):
    """A request that must happen once; `attempt` names the process that works on it now."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (UniqueConstraint("principal", "route", "key"), Index(None, "created_at"))

    key_id: Mapped[Serial]
    principal: Mapped[str]
    route: Mapped[str]
    key: Mapped[str]
    body_hash: Mapped[str]
    attempt: Mapped[str]
    status: Mapped[str]
    response_status: Mapped[int | None]
    response_body: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]


class ContextVersion(Table):
    """What was known of a customer, written only when the content changes, in the order of `version_id`."""

    __tablename__ = "context_history"
    __table_args__ = (Index(None, "customer_id", "agent_type", "version_id"), Index(None, "at"))

    version_id: Mapped[Serial]
    customer_id: Mapped[str]
    agent_type: Mapped[str]
    context_version: Mapped[str]
    content: Mapped[Json]
    sources: Mapped[Json | None]
    #: The fingerprint of the view that masked the content; `None` for versions from before it was kept.
    rules: Mapped[str | None]
    at: Mapped[datetime]


class ReceivedEvent(Table):
    """A change that another system announced; its id makes sure that it counts once."""

    __tablename__ = "received_events"
    __table_args__ = (Index(None, "received_at"),)

    event_id: Mapped[str] = mapped_column(primary_key=True)
    type: Mapped[str]
    customer_id: Mapped[str | None]
    at: Mapped[datetime]
    received_at: Mapped[datetime]


class StrategyAssignment(Table):
    """The context strategy of a customer in an experiment, from the first read on."""

    __tablename__ = "strategy_assignments"
    __table_args__ = (Index(None, "customer_id"),)

    experiment: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str] = mapped_column(primary_key=True)
    strategy: Mapped[str]
    assigned_at: Mapped[datetime]


class StrategyOutcome(Table):
    """How one conversation of an assigned customer went: a named measure and its value."""

    __tablename__ = "strategy_outcomes"
    __table_args__ = (Index(None, "experiment", "measure"),)

    experiment: Mapped[str] = mapped_column(primary_key=True)
    event_id: Mapped[str] = mapped_column(primary_key=True)
    measure: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str]
    value: Mapped[float]
    at: Mapped[datetime]


class DemoSeed(Table):
    """Which demo data this database holds: the first `customers_done` customers of `seed`, as of `anchored_at`."""

    __tablename__ = "demo_seed"

    seed: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    generator_version: Mapped[int]
    customers_done: Mapped[int]
    anchored_at: Mapped[datetime]
