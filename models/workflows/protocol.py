"""The company systems that workflows and conversations act on; each can be replaced by another adapter."""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol

from models.workflows.types import Channel, OrderSummary, Severity


class OrderSystem(Protocol):
    """Order management."""

    async def find(self, order_id: str, *, customer_id: str) -> OrderSummary | None:
        """The order if it belongs to that customer, else `None`: other people's orders do not exist here."""
        ...

    async def recent(self, customer_id: str, *, limit: int = 5) -> list[OrderSummary]: ...


class TicketSystem(Protocol):
    """Ticketing."""

    async def open(
        self, *, customer_id: str | None, subject: str, body: str, channel: Channel, priority: str, reason: str
    ) -> str:
        """Open a ticket and return its id (`tck_...`) once it is durable. Raises `DatabaseUnavailable`."""
        ...

    async def comment(self, ticket_id: str, body: str) -> None:
        """Add to a ticket; durable once this returns. Raises `NotFound`, `DatabaseUnavailable`."""
        ...


class ComplianceSystem(Protocol):
    """Register of safety and compliance reports."""

    async def record(
        self,
        *,
        customer_id: str | None,
        channel: Channel,
        severity: Severity,
        redacted_text: str,
        due_in: timedelta,
        queue: str,
        request_id: str,
    ) -> str:
        """Return the record's id (`cmp_...`) once it is durable. Raises `DatabaseUnavailable`."""
        ...


class CustomerDirectory(Protocol):
    """Who is a customer."""

    async def exists(self, customer_id: str) -> bool: ...
