"""Turns what has come in for one customer into one encoded context."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from models.clock import utc_now
from models.enrichment.collector import Answer
from models.enrichment.encoding import StoredContext, encode, version_of
from models.enrichment.policy import Freshener
from models.enrichment.records import epoch_ms
from models.enrichment.selection import SECTION_OF, AgentView
from models.enrichment.types import EnrichedContext, ProviderOutcome, ProviderState, ServedFrom

_SLOWEST = {ServedFrom.L1: 0, ServedFrom.L2: 1, ServedFrom.ORIGIN: 2}


@dataclass(slots=True)  # not frozen: every read makes one, and a frozen one takes thrice as long to make
class Assembled:
    """An encoded context and where it came from: the furthest of the places where its sections did."""

    stored: StoredContext
    served_from: ServedFrom
    provider_tiers: tuple[ServedFrom, ...] | None = None


class Assembler:
    """Masks, versions and encodes.

    A complete context lasts `l1_ttl_s` but no longer than any of its sections is fresh; one with gaps `partial_ttl_s`.
    """

    def __init__(
        self,
        freshener: Freshener,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._freshener = freshener
        self._clock = clock
        self._wall_clock = wall_clock

    def assemble(self, customer_id: str, answers: Sequence[Answer], view: AgentView, *, started: float) -> Assembled:
        """The context that these answers make, one per provider of the view."""
        sections = {
            a.outcome.section: view.mask(a.outcome.section, a.section) for a in answers if a.section is not None
        }
        fields: dict[str, Any] = dict(sections)  # every section was checked against its field when it was fetched
        now, now_s = self._wall_clock(), self._clock()
        context = EnrichedContext(
            customer_id=customer_id,
            agent_type=view.agent_type,
            context_version=version_of(customer_id, view.agent_type, sections),
            enriched_at=now,
            outcomes=tuple(answer.outcome for answer in answers),
            enrichment_latency_ms=(now_s - started) * 1000,
            **fields,
        )
        refresh_s, kept_s = self._lifetimes_s(context, answers)
        now_ms = epoch_ms(now)
        stored = encode(
            context,
            refresh_at_ms=now_ms + int(refresh_s * 1000),
            expires_at_ms=now_ms + int(kept_s * 1000),
            kept_until=now_s + kept_s,
            read_at=min((a.record.read_at for a in answers if a.record is not None), default=now_s),
        )
        tiers = tuple(answer.served_from for answer in answers)
        # A provider that gave nothing was asked all the same: such a read is no hit.
        furthest = max(tiers, key=_SLOWEST.__getitem__, default=ServedFrom.ORIGIN)
        return Assembled(stored, furthest, tiers)

    def _lifetimes_s(self, context: EnrichedContext, answers: Sequence[Answer]) -> tuple[float, float]:
        """Seconds until this context should be refreshed early, and until it is no longer served."""
        policy, now = self._freshener.policy, self._clock()
        kept_s = policy.l1_ttl_s if context.complete else policy.partial_ttl_s
        refresh_s = kept_s
        for answer in answers:
            if answer.record is not None and answer.outcome.state is not ProviderState.STALE:
                fresh_s, age_s = answer.record.fresh_ms / 1000, now - answer.record.read_at
                kept_s = min(kept_s, fresh_s - age_s)
                refresh_s = min(refresh_s, fresh_s * policy.early_refresh - age_s)
        # What is due already is being fetched; if that fails, it is not tried again at every read.
        return max(refresh_s, min(policy.partial_ttl_s, kept_s)), max(kept_s, 0.0)


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
                section=SECTION_OF.get(name, name),
                state=ProviderState.MISSING,
                source="database",
                as_of=now,
                detail="there is no such customer",
            )
            for name in view.providers
        ),
    )
