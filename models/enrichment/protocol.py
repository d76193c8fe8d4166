"""What enrichment relies on, and what the rest of Rapport relies on from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from models.enrichment.encoding import StoredContext
from models.enrichment.types import ContextReading, EnrichedContext, HistoryEntry, ProviderSpec, ReadFormat, Section
from models.resilience.deadline import Deadline


class ContextProvider(Protocol):
    """One source of customer data."""

    @property
    def spec(self) -> ProviderSpec: ...

    async def fetch(self, customer_id: str, *, deadline: Deadline) -> Section | None:
        """The section, or `None` when the source has nothing on this customer.

        Raises `UnknownCustomer`, `ProviderUnavailable`, `DeadlineExceeded`, and `Forbidden` when the source refuses us.
        """
        ...


class ContextCache(Protocol):
    """Keeps encoded contexts by key until their time is up. Every method raises `CacheUnavailable`.

    `TieredCache`, the one that reads go through, degrades instead: there only `remove` raises.
    """

    async def get(self, key: str) -> StoredContext | None: ...

    async def put(self, key: str, value: StoredContext, *, ttl_s: float) -> None: ...

    async def remove(self, *keys: str) -> None: ...

    async def close(self) -> None: ...


class Invalidations(Protocol):
    """Tells every replica that a customer's data changed."""

    async def publish(self, customer_id: str) -> None:
        """Raises `CacheUnavailable`."""
        ...

    async def listen(
        self, on_customer: Callable[[str, bool], Awaitable[None]], on_gap: Callable[[], Awaitable[None]]
    ) -> None:
        """Run until cancelled. `on_customer(customer_id, foreign)` is awaited for each change, `foreign` when a replica
        that names its cache keys differently announced it; `on_gap` whenever changes may have been missed.
        """
        ...


class ContextHistory(Protocol):
    """Remembers what was known of a customer, and when it changed."""

    async def record(self, entry: HistoryEntry) -> bool:
        """Keep the entry if its version differs from the newest kept one; whether it was kept.

        Raises `DatabaseUnavailable`.
        """
        ...

    async def recent(self, customer_id: str, *, agent_type: str, limit: int = 20) -> list[HistoryEntry]:
        """The newest entries first. Raises `DatabaseUnavailable`."""
        ...


class ContextSource(Protocol):
    """Assembles customer context; the orchestrator, or a handle to it."""

    async def enrich(
        self,
        customer_id: str,
        *,
        agent_type: str,
        deadline: Deadline,
        force_refresh: bool = False,
        required: Sequence[str] = (),
    ) -> EnrichedContext:
        """Partial when some providers fail; an empty agent type sees the most masked view.

        Raises `UnknownCustomer`, `UnknownAgentType`, `DeadlineExceeded` when a required provider is absent,
        `ContextEnrichmentError`.
        """
        ...


class ContextReader(Protocol):
    """Answers reads with bytes that are ready to send."""

    async def read(
        self,
        customer_id: str,
        *,
        agent_type: str,
        deadline: Deadline,
        max_age_ms: int | None = None,
        force_refresh: bool = False,
        required: Sequence[str] = (),
        format: ReadFormat = ReadFormat.JSON,
        max_tokens: int | None = None,
    ) -> ContextReading:
        """As `ContextSource.enrich`, encoded; `max_tokens` bounds the prompt format only."""
        ...
