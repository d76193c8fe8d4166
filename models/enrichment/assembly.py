"""Turns a collection of answers into one encoded context."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from models.clock import utc_now
from models.enrichment.collector import Answer, Collection
from models.enrichment.encoding import StoredContext, encode, epoch_ms, version_of
from models.enrichment.selection import AgentView
from models.enrichment.types import (
    EnrichedContext,
    ProviderOutcome,
    ProviderSpec,
    ProviderState,
    Section,
    ServedFrom,
)


@dataclass(frozen=True, slots=True)
class Assembled:
    """An encoded context, where it came from, and its sections when it was put together here."""

    stored: StoredContext
    served_from: ServedFrom
    provider_tiers: tuple[ServedFrom, ...] | None = None
    sections: Mapping[str, Section] | None = None


class Assembler:
    """Masks, versions and encodes. A complete context lasts `ttl_s` but no longer than any provider's own `ttl_s`.

    One with gaps lasts `partial_ttl_s`, so that a source that returns is noticed soon.
    """

    def __init__(
        self,
        specs: Mapping[str, ProviderSpec],
        *,
        ttl_s: float = 300.0,
        partial_ttl_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._specs = specs
        self._ttl_s = ttl_s
        self._partial_ttl_s = partial_ttl_s
        self._clock = clock
        self._wall_clock = wall_clock

    def assemble(
        self, collection: Collection, view: AgentView, *, stand_in: Callable[[str], Answer], started: float
    ) -> Assembled:
        """Encode what has come in; `stand_in` supplies the answer of every provider that has not."""
        answers = [collection.answers.get(name) or stand_in(name) for name in view.providers]
        sections = {
            a.outcome.section: view.mask(a.outcome.section, a.section) for a in answers if a.section is not None
        }
        fields: dict[str, Any] = dict(sections)  # the collector checked every section against its field
        now = self._wall_clock()
        context = EnrichedContext(
            customer_id=collection.customer_id,
            agent_type=view.agent_type,
            context_version=version_of(collection.customer_id, view.agent_type, sections),
            enriched_at=now,
            outcomes=tuple(answer.outcome for answer in answers),
            enrichment_latency_ms=(self._clock() - started) * 1000,
            **fields,
        )
        stored = encode(context, expires_at_ms=self._expiry_ms(context, epoch_ms(now)))
        return Assembled(stored, ServedFrom.ORIGIN, tuple(answer.served_from for answer in answers), sections)

    def _expiry_ms(self, context: EnrichedContext, now_ms: int) -> int:
        if not context.complete:
            return now_ms + int(self._partial_ttl_s * 1000)
        ends = [
            epoch_ms(outcome.as_of) + int(self._specs[outcome.provider].ttl_s * 1000)
            for outcome in context.outcomes
            if outcome.as_of is not None
        ]
        return min([now_ms + int(self._ttl_s * 1000), *ends])


def unknown_customer(customer_id: str, view: AgentView, now: datetime) -> EnrichedContext:
    """The minimal context of a customer whom nobody knows: every provider says missing, and why."""
    return EnrichedContext(
        customer_id=customer_id,
        agent_type=view.agent_type,
        context_version=version_of(customer_id, view.agent_type, {}),
        enriched_at=now,
        outcomes=tuple(
            ProviderOutcome(
                provider=name,
                section=name,
                state=ProviderState.MISSING,
                source="database",
                as_of=now,
                detail="there is no such customer",
            )
            for name in view.providers
        ),
    )
