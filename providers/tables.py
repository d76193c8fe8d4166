"""Every table of Rapport, and nothing else: no queries, no defaults taken from a clock.

Values mean the same on SQLite and PostgreSQL: instants are UTC and aware, money is whole cents beside its currency, and
text takes any Python string. Strings have no length limit, because only one of the two databases would enforce it.
Rows that report what someone said (tickets, compliance records, conversations, audit) carry no foreign key to the
customer: a report is never refused because the customer is unknown or erased.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """An instant: refuses naive datetimes, returns aware ones in UTC, keeps microseconds and order on any database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime names no instant; pass an aware one")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(value: str) -> str:
    """The text as both databases can hold it: NUL and lone surrogates become U+FFFD."""
    return value if value.isascii() and "\x00" not in value else _UNSTORABLE.sub("\ufffd", value)


class PortableText(TypeDecorator[str]):
    """Text that is never refused, because it is made `storable` first."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable(value)


#: A surrogate key that the database numbers; SQLite numbers only its own INTEGER keys.
Serial = Annotated[int, mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)]
Cents = Annotated[int, mapped_column(BigInteger)]
Json = dict[str, Any]


class Table(DeclarativeBase):
    """Base of all tables; `Table.metadata` is the schema that migrations must reproduce."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime(), str: PortableText(), Json: JSON(), list[str]: JSON()}  # noqa: RUF012 - read by SQLAlchemy


class SubscriptionStatus(StrEnum):
    TRIALING = "trialing"
    ACTIVE = "active"
    PAST_DUE = "past_due"
    CANCELED = "canceled"


class InvoiceStatus(StrEnum):
    """An invoice is overdue while it is open and its `due_at` has passed."""

    OPEN = "open"
    PAID = "paid"
    VOID = "void"


class OrderStatus(StrEnum):
    PLACED = "placed"
    PACKED = "packed"
    SHIPPED = "shipped"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"
    RETURNED = "returned"


class TicketStatus(StrEnum):
    """Open and pending tickets count as open."""

    OPEN = "open"
    PENDING = "pending"
    SOLVED = "solved"
    CLOSED = "closed"


class EventName(StrEnum):
    """Names of product events; a `feature_used` row carries the feature and how often it was used."""

    LOGIN = "login"
    FEATURE_USED = "feature_used"


class Account(Table):
    """A company that buys from Medley."""

    __tablename__ = "accounts"

    account_id: Mapped[str] = mapped_column(primary_key=True)
    company_name: Mapped[str]
    industry: Mapped[str]
    country: Mapped[str]
    domain: Mapped[str]
    employees: Mapped[int]
    created_at: Mapped[datetime]


class Customer(Table):
    """The account holder, whom the API calls a customer; `health_score` is 0 to 100, `churn_risk` 0 to 1."""

    __tablename__ = "customers"

    customer_id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.account_id"), index=True)
    lifecycle: Mapped[str]
    health_score: Mapped[int]
    churn_risk: Mapped[float]
    customer_since: Mapped[datetime]
    marketing_consent: Mapped[bool]
    updated_at: Mapped[datetime]


class Contact(Table):
    """A person at a customer; exactly one is primary."""

    __tablename__ = "contacts"
    __table_args__ = (Index(None, "customer_id", "is_primary"),)

    contact_id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.customer_id"))
    name: Mapped[str]
    email: Mapped[str]
    role: Mapped[str]
    is_primary: Mapped[bool]
    created_at: Mapped[datetime]


class Subscription(Table):
    """The practice-management plan; the newest by `started_at` is the current one."""

    __tablename__ = "subscriptions"
    __table_args__ = (Index(None, "customer_id", "started_at"),)

    subscription_id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.customer_id"))
    plan: Mapped[str]
    status: Mapped[str]
    billing_cycle: Mapped[str]
    seats_used: Mapped[int]
    seats_total: Mapped[int]
    mrr_cents: Mapped[Cents]
    currency: Mapped[str]
    started_at: Mapped[datetime]
    renewal_at: Mapped[datetime | None]
    trial_ends_at: Mapped[datetime | None]
    canceled_at: Mapped[datetime | None]


class Invoice(Table):
    """A bill for the subscription."""

    __tablename__ = "invoices"
    __table_args__ = (Index(None, "customer_id", "status", "due_at"),)

    invoice_id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.customer_id"))
    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.subscription_id"))
    status: Mapped[str]
    amount_cents: Mapped[Cents]
    currency: Mapped[str]
    issued_at: Mapped[datetime]
    due_at: Mapped[datetime]
    paid_at: Mapped[datetime | None]


class Order(Table):
    """An order of health products; `patient_name` is whom the parcel is for, `None` for the clinic's own stock."""

    __tablename__ = "orders"
    __table_args__ = (Index(None, "customer_id", "placed_at"),)

    order_id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.customer_id"))
    status: Mapped[str]
    total_cents: Mapped[Cents]
    currency: Mapped[str]
    patient_name: Mapped[str | None]
    carrier: Mapped[str | None]
    tracking_number: Mapped[str | None]
    placed_at: Mapped[datetime]
    shipped_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]


class OrderItem(Table):
    """One line of an order."""

    __tablename__ = "order_items"

    order_id: Mapped[str] = mapped_column(ForeignKey("orders.order_id"), primary_key=True)
    line: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[str]
    name: Mapped[str]
    quantity: Mapped[int]
    unit_price_cents: Mapped[Cents]


class Ticket(Table):
    """Work for a person."""

    __tablename__ = "tickets"
    __table_args__ = (Index(None, "customer_id", "status"), Index(None, "status", "opened_at"))

    ticket_id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str | None]
    subject: Mapped[str]
    body: Mapped[str]
    channel: Mapped[str]
    priority: Mapped[str]
    reason: Mapped[str]
    status: Mapped[str]
    assignee_id: Mapped[str | None]
    opened_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]


class Conversation(Table):
    """A finished or running talk with a customer; `csat` 1 to 5, `None` when not rated."""

    __tablename__ = "conversations"
    __table_args__ = (Index(None, "customer_id", "started_at"), Index(None, "agent_id", "started_at"))

    conversation_id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str | None]
    agent_id: Mapped[str | None]
    channel: Mapped[str]
    topic: Mapped[str]
    resolved: Mapped[bool]
    csat: Mapped[int | None]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class ProductEvent(Table):
    """Use of the product by one contact; `quantity` counts what the row stands for."""

    __tablename__ = "product_events"
    __table_args__ = (Index(None, "customer_id", "name", "at"),)

    event_id: Mapped[Serial]
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.customer_id"))
    contact_id: Mapped[str]
    name: Mapped[str]
    feature: Mapped[str | None]
    quantity: Mapped[int]
    at: Mapped[datetime]


class Deal(Table):
    """An opportunity in the sales pipeline; `probability` 0 to 1."""

    __tablename__ = "deals"
    __table_args__ = (Index(None, "customer_id", "stage"),)

    deal_id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.customer_id"))
    name: Mapped[str]
    stage: Mapped[str]
    amount_cents: Mapped[Cents]
    currency: Mapped[str]
    probability: Mapped[float]
    opened_at: Mapped[datetime]
    expected_close_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]


class SecurityEvent(Table):
    """A sign-in anomaly, a permission change or the like."""

    __tablename__ = "security_events"
    __table_args__ = (Index(None, "customer_id", "at"),)

    event_id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.customer_id"))
    kind: Mapped[str]
    severity: Mapped[str]
    detail: Mapped[str]
    at: Mapped[datetime]
    resolved_at: Mapped[datetime | None]


class Incident(Table):
    """A disturbance of the product that all customers may notice."""

    __tablename__ = "incidents"
    __table_args__ = (Index(None, "resolved_at", "started_at"),)

    incident_id: Mapped[str] = mapped_column(primary_key=True)
    component: Mapped[str]
    title: Mapped[str]
    severity: Mapped[str]
    status: Mapped[str]
    started_at: Mapped[datetime]
    resolved_at: Mapped[datetime | None]


class Agent(Table):
    """A person who answers customers at Medley."""

    __tablename__ = "agents"
    __table_args__ = (Index(None, "team", "status"),)

    agent_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    email: Mapped[str]
    team: Mapped[str]
    status: Mapped[str]
    skills: Mapped[list[str]]
    hired_at: Mapped[datetime]


class StoredDocument(Table):
    """One version of a knowledge document; old versions stay, so that a citation can always be shown."""

    __tablename__ = "documents"
    __table_args__ = (Index(None, "approved", "valid_from", "valid_until"),)

    document_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    title: Mapped[str]
    body: Mapped[str]
    owner: Mapped[str]
    kind: Mapped[str]
    approved: Mapped[bool]
    valid_from: Mapped[date]
    valid_until: Mapped[date | None]
    topics: Mapped[list[str]]
    audience: Mapped[list[str]]
    content_hash: Mapped[str]
    stored_at: Mapped[datetime]


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
    """What was known of a customer, written only when the content changes."""

    __tablename__ = "context_history"
    __table_args__ = (Index(None, "customer_id", "agent_type", "at"),)

    version_id: Mapped[Serial]
    customer_id: Mapped[str]
    agent_type: Mapped[str]
    context_version: Mapped[str]
    content: Mapped[Json]
    at: Mapped[datetime]


class DemoSeed(Table):
    """Which demo data this database holds: the first `customers_done` customers of `seed`, as of `anchored_at`."""

    __tablename__ = "demo_seed"

    seed: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    generator_version: Mapped[int]
    customers_done: Mapped[int]
    anchored_at: Mapped[datetime]
