"""The tables of the company's business, and nothing else: no queries, no defaults taken from a clock.

Rows that report what someone said (tickets, conversations) carry no foreign key to the customer: a report is never
refused because the customer is unknown or erased.
"""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from providers.table_types import Cents, Serial, Table


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


class DealStage(StrEnum):
    """How far a deal is, the furthest last; won and lost deals are over."""

    QUALIFIED = "qualified"
    PROPOSAL = "proposal"
    NEGOTIATION = "negotiation"
    WON = "won"
    LOST = "lost"


class SecuritySeverity(StrEnum):
    """From bad to worst."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class IncidentSeverity(StrEnum):
    """From bad to worst: a minor incident slows something down, a major one stops a part of the product."""

    MINOR = "minor"
    MAJOR = "major"
    CRITICAL = "critical"


class AgentStatus(StrEnum):
    """Only who is online is free for another conversation."""

    ONLINE = "online"
    BUSY = "busy"
    OFFLINE = "offline"


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
    __table_args__ = (
        Index(None, "customer_id", "started_at", "topic", "csat"),  # these two answer from the index alone
        Index(None, "agent_id", "started_at", "ended_at", "resolved", "csat"),
    )

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
    # The largest table, read for every customer: the index alone answers. A conventional name would be too long.
    __table_args__ = (Index("ix_product_events_use", "customer_id", "name", "at", "feature", "quantity", "contact_id"),)

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


class Outreach(Table):
    """An action towards a customer, and whether it bore fruit: `responded` is `None` while nobody can know yet.

    `action` "none" records that nothing was done. `propensity` is the probability with which a lot chose the action;
    `None` where a person chose it.
    """

    __tablename__ = "outreach"
    __table_args__ = (Index(None, "customer_id", "at"), Index(None, "at"))

    outreach_id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.customer_id"))
    action: Mapped[str]
    at: Mapped[datetime]
    propensity: Mapped[float | None]
    responded: Mapped[bool | None]


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
