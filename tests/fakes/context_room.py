"""An orchestrator over fakes, with everything in reach."""

from __future__ import annotations

import json
from typing import Any

from models.enrichment.cache import LRUCache, TieredCache
from models.enrichment.orchestrator import ContextOrchestrator
from models.enrichment.policy import CachePolicy
from models.enrichment.protocol import Relevance, SectionCache
from models.enrichment.selection import AgentViews
from models.enrichment.types import ContextReading, EnrichedContext
from tests.fakes.enrichment import (
    FakeProvider,
    HandClock,
    ListHistory,
    ListMetrics,
    LocalNews,
    ask,
    documented_providers,
)

CUSTOMER = "customer_123"
#: No share of chance, so that times are as written.
EXACT = CachePolicy(expiry_jitter=0.0)


class Room:
    """`providers` are, if not given, the five of the documents, each fresh for 300 s."""

    def __init__(
        self,
        providers: dict[str, FakeProvider] | None = None,
        *,
        cached: bool = True,
        shared: SectionCache | None = None,
        news: LocalNews | None = None,
        policy: CachePolicy = EXACT,
        clock: HandClock | None = None,
        relevance: Relevance | None = None,
        chance: float = 0.0,
    ) -> None:
        self.clock = clock or HandClock()
        self.providers = documented_providers() if providers is None else providers
        self.metrics = ListMetrics()
        self.history = ListHistory()
        self.cache = TieredCache(
            LRUCache(entries=100, clock=self.clock), shared, clock=self.clock, metrics=self.metrics
        )
        self.context = ContextOrchestrator(
            self.providers.values(),
            views=AgentViews.load().only(self.providers),
            cache=self.cache if cached else None,
            invalidations=news,
            history=self.history,
            relevance=relevance,
            policy=policy,
            clock=self.clock,
            wall_clock=self.clock.wall,
            chance=lambda: chance,
            metrics=self.metrics,
        )

    async def read(self, customer_id: str = CUSTOMER, *, wait_s: float = 5.0, **request: Any) -> ContextReading:
        return await self.context.read(customer_id, ask(wait_s, self.clock, **request))

    async def body(self, customer_id: str = CUSTOMER, *, wait_s: float = 5.0, **request: Any) -> dict[str, Any]:
        body: dict[str, Any] = json.loads((await self.read(customer_id, wait_s=wait_s, **request)).body)
        return body

    async def enrich(self, customer_id: str = CUSTOMER, **request: Any) -> EnrichedContext:
        return await self.context.enrich(customer_id, ask(5.0, self.clock, **request))

    async def all_asked(self) -> None:
        """Return when each provider has been asked once more."""
        for provider in self.providers.values():
            await provider.arrivals.get()

    @property
    def fetches(self) -> int:
        return sum(len(provider.asked) for provider in self.providers.values())


def states(body: dict[str, Any]) -> dict[str, str]:
    """The state of each provider."""
    return {name: outcome["state"] for name, outcome in body["providers"].items()}


def tiers(body: dict[str, Any]) -> dict[str, str | None]:
    """Where each provider's section was served from."""
    return {name: outcome["served_from"] for name, outcome in body["providers"].items()}
