"""How long context data counts as fresh, may be shown as stale, and stands in while its provider fails."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from models.clock import utc_now
from models.enrichment.records import SectionRecord, epoch_ms
from models.enrichment.types import ProviderSpec
from models.settings import ContextSettings

#: Clocks of hosts differ by this much; what claims to have been read later than that is not believed.
MAX_SKEW_MS = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """The knobs of `ContextSettings` as the orchestrator uses them; every share lies between 0 and 1.

    `ttl_s` bounds that of every provider of our own data. `partial_ttl_s` is how long a context with gaps is kept, so
    that a source that returns is noticed soon; a failed early refresh is tried again after as long.
    """

    l1_ttl_s: float = 30.0
    ttl_s: float = 300.0
    partial_ttl_s: float = 2.0
    unknown_ttl_s: float = 30.0
    stale_if_error_s: float = 600.0
    expiry_jitter: float = 0.1
    early_refresh: float = 0.8
    soft_timeout_s: float = 0.0
    max_in_flight: int = 64
    breaker_failures: int = 5
    breaker_open_s: float = 10.0

    @classmethod
    def of(cls, settings: ContextSettings) -> CachePolicy:
        return cls(
            l1_ttl_s=settings.l1_ttl_s,
            ttl_s=settings.l2_ttl_s,
            unknown_ttl_s=settings.unknown_ttl_s,
            stale_if_error_s=settings.stale_if_error_s,
            expiry_jitter=settings.expiry_jitter,
            early_refresh=settings.early_refresh,
            soft_timeout_s=settings.soft_timeout_ms / 1000,
            max_in_flight=settings.max_in_flight,
            breaker_failures=settings.breaker_failures,
            breaker_open_s=settings.breaker_open_s,
        )


class Freshness(IntEnum):
    """From the best to the worst; `DUE` is fresh still, and time for an early refresh."""

    FRESH = 0
    DUE = 1
    STALE = 2
    LAST_RESORT = 3
    GONE = 4


class Freshener:
    """Judges records by age. Ages are the longer of monotonic and wall time, so no clock that jumps can hide one."""

    def __init__(
        self,
        policy: CachePolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = utc_now,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.policy = policy
        self.clock = clock
        self.wall_clock = wall_clock
        self._chance = chance

    def now_ms(self) -> int:
        return epoch_ms(self.wall_clock())

    def fresh_ms(self, spec: ProviderSpec, *, missing: bool) -> int:
        """How long what this provider says now will be fresh: a little less each time, so that expiries spread."""
        ttl_s = self._bounded(spec, spec.missing_ttl_s if missing else spec.ttl_s)
        return int(ttl_s * 1000 * (1 - self.policy.expiry_jitter * self._chance()))

    def judge(self, record: SectionRecord, spec: ProviderSpec) -> Freshness:
        """How good the record is at this moment."""
        wall_age_ms = self.now_ms() - record.as_of_ms
        age_ms = max(wall_age_ms, (self.clock() - record.read_at) * 1000)
        over_ms = age_ms - record.fresh_ms
        if wall_age_ms < -MAX_SKEW_MS:  # the clock stepped back, here or where the record comes from
            return Freshness.GONE if over_ms > self.policy.stale_if_error_s * 1000 else Freshness.LAST_RESORT
        if over_ms < 0:
            return Freshness.DUE if age_ms >= record.fresh_ms * self.policy.early_refresh else Freshness.FRESH
        if over_ms < spec.stale_while_revalidate_s * 1000:
            return Freshness.STALE
        return Freshness.LAST_RESORT if over_ms < self.policy.stale_if_error_s * 1000 else Freshness.GONE

    def retention_s(self, spec: ProviderSpec) -> float:
        """After this long a record is of no use to anybody."""
        ttl_s = self._bounded(spec, max(spec.ttl_s, spec.missing_ttl_s))
        return ttl_s + max(spec.stale_while_revalidate_s, self.policy.stale_if_error_s)

    def _bounded(self, spec: ProviderSpec, ttl_s: float) -> float:
        return ttl_s if spec.third_party else min(ttl_s, self.policy.ttl_s)
