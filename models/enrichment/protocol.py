"""What enrichment relies on, and what the rest of Rapport relies on from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from models.enrichment.generations import Change, Shelf, Write
from models.enrichment.types import (
    ContextReading,
    ContextRequest,
    EnrichedContext,
    HistoryEntry,
    ProviderSpec,
    Section,
)
from models.resilience.deadline import Deadline


class ContextProvider(Protocol):
    """One source of customer data."""

    @property
    def spec(self) -> ProviderSpec: ...

    async def fetch(self, customer_id: str, *, deadline: Deadline, known: Mapping[str, Section]) -> Section | None:
        """The section, or `None` when the source has nothing on this customer.

        `known` holds the sections of the providers in `spec.depends_on`, by provider name, of those that had data.
        Raises `UnknownCustomer`, `ProviderUnavailable`, `DeadlineExceeded`, and `Forbidden` when the source refuses us.
        """
        ...


@runtime_checkable
class BulkContextProvider(ContextProvider, Protocol):
    """A provider that can be asked for many customers in one go."""

    async def fetch_many(
        self, customer_ids: Sequence[str], *, deadline: Deadline, known: Mapping[str, Mapping[str, Section]]
    ) -> Mapping[str, Section | None]:
        """The section of each customer by id; an id is left out when there is no such customer.

        `known` is as in `fetch`, by customer id. Raises as `fetch`, but never `UnknownCustomer`.
        """
        ...


class SectionCache(Protocol):
    """Shares packed section records between replicas, under generations. Every method raises `CacheUnavailable`."""

    async def load(self, keys: Sequence[str]) -> list[Shelf]:
        """What is kept under each key; a key that nothing is kept under begins its first generation."""
        ...

    async def save(self, writes: Sequence[Write]) -> list[bool]:
        """Add records to shelves; whether each was kept. One whose generations are over is refused."""
        ...

    async def outdate(self, keys: Sequence[str], tags: Sequence[str]) -> None:
        """Begin a new generation: of everything under the keys, or with tags only of what bears one of these (under
        every key, if none is given).
        """
        ...

    async def close(self) -> None: ...


class Invalidations(Protocol):
    """Tells every replica that customer data changed."""

    async def publish(self, change: Change) -> None:
        """Raises `CacheUnavailable`."""
        ...

    async def listen(
        self, on_change: Callable[[Change], Awaitable[None]], on_gap: Callable[[], Awaitable[None]]
    ) -> None:
        """Run until cancelled; `on_gap` is awaited whenever changes may have been missed."""
        ...


@runtime_checkable
class ClosableProvider(ContextProvider, Protocol):
    """A provider that holds connections of its own; it is closed with its orchestrator."""

    async def close(self) -> None: ...


class Relevance(Protocol):
    """Says how much each section matters for a message."""

    async def vector(self, message: str, deadline: Deadline) -> Any | None:
        """What `scores` needs of the message, or `None` when it cannot be had in time."""
        ...

    def scores(
        self,
        sections: Collection[str],
        vector: Any | None,
        *,
        tiers: Mapping[str, int],
        freshness: Mapping[str, float],
        importance: Mapping[str, float] | None = None,
    ) -> Mapping[str, float]:
        """0 to 1 by section.

        `freshness` is 1 for what was just read and 0 at the end of its time, `importance` to the agent who asks 1 for
        what matters most.
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

    async def enrich(self, customer_id: str, request: ContextRequest) -> EnrichedContext:
        """Partial when some providers fail; `request.format` means nothing here.

        Raises `UnknownCustomer`, `UnknownAgentType`, `InvalidRequest`, `Forbidden` when the agent type does not see a
        required provider, `DeadlineExceeded` when a required provider is absent, `ContextEnrichmentError`.
        """
        ...

    async def enrich_many(self, customer_ids: Sequence[str], request: ContextRequest) -> dict[str, EnrichedContext]:
        """The context of each customer by id, at most 1,000; unknown customers are left out. Raises as `enrich`."""
        ...


class ContextReader(Protocol):
    """Answers reads with bytes that are ready to send."""

    async def read(self, customer_id: str, request: ContextRequest) -> ContextReading:
        """As `ContextSource.enrich`, encoded."""
        ...

    async def read_many(self, customer_ids: Sequence[str], request: ContextRequest) -> bytes:
        """JSON `{"contexts": [...], "unknown": [ids], "complete", "deadline_ms", "elapsed_ms"}`, in the order asked.

        Raises as `ContextSource.enrich_many`.
        """
        ...


class Contexts(ContextReader, ContextSource, Protocol):
    """Contexts in both forms: as bytes and as values."""
