"""What is spent on language models, summed by day and account, and the budgets that stop it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Protocol

from models.clock import WallClock, utc_now
from models.errors import BudgetExhausted, CacheUnavailable
from models.telemetry import Metrics, NoMetrics, Transition

logger = logging.getLogger(__name__)

#: Sums are whole billionths of a dollar: no rounding error grows over a day.
NANO = 1_000_000_000
CAMPAIGN = "campaign:"

_KEEP_DAY_S = 3 * 86_400.0
_KEEP_ACCOUNT_S = 90 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What money is summed under, such as `day:2026-05-04`.

    `limit_usd` `None` means no budget; `renews_in_s` is the time until a spent budget is worth another try, `None` if
    it never is. The sum is forgotten `keep_s` after its last change.
    """

    key: str
    limit_usd: float | None
    keep_s: float
    renews_in_s: float | None = None

    def exhausted(self) -> BudgetExhausted:
        """The error of a call that this scope has no money for."""
        error = BudgetExhausted(f"the language-model budget of {self.key} is spent")
        if self.renews_in_s is not None:
            error.with_retry_after(self.renews_in_s)
        return error


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Money set aside in every one of these scopes for one call."""

    scopes: tuple[Scope, ...]
    usd: float


class SpendLedger(Protocol):
    """Sums of money by scope, shared by whoever shares the ledger."""

    async def reserve(self, scopes: Sequence[Scope], usd: float) -> Reservation:
        """Set the money aside in all scopes in one step, or in none.

        However many callers reserve at once, no sum passes its limit. A reservation that is never settled counts as
        spent. Raises `BudgetExhausted`, `CacheUnavailable`.
        """
        ...

    async def settle(self, reservation: Reservation, usd: float) -> None:
        """Put what was really spent in place of what was set aside. Raises `CacheUnavailable`."""
        ...

    async def spent(self, key: str) -> float:
        """USD spent or set aside under this key. Raises `CacheUnavailable`."""
        ...


def nano(usd: float) -> int:
    """Whole billionths of a dollar."""
    return round(usd * NANO)


class MemorySpendLedger:
    """A `SpendLedger` of this process alone: every replica has budgets of its own, and a restart forgets them."""

    def __init__(self, clock: WallClock = utc_now) -> None:
        self._clock = clock
        self._sums: dict[str, tuple[int, datetime]] = {}

    async def reserve(self, scopes: Sequence[Scope], usd: float) -> Reservation:
        amount = nano(usd)
        for scope in scopes:
            if scope.limit_usd is not None and self._sum(scope.key) + amount > nano(scope.limit_usd):
                raise scope.exhausted()
        self._add(scopes, amount)
        return Reservation(scopes=tuple(scopes), usd=usd)

    async def settle(self, reservation: Reservation, usd: float) -> None:
        self._add(reservation.scopes, nano(usd) - nano(reservation.usd))

    async def spent(self, key: str) -> float:
        return self._sum(key) / NANO

    def _sum(self, key: str) -> int:
        amount, until = self._sums.get(key, (0, datetime.max.replace(tzinfo=UTC)))
        return amount if self._clock() < until else 0

    def _add(self, scopes: Sequence[Scope], amount: int) -> None:
        now = self._clock()
        for scope in scopes:
            total = max(0, self._sum(scope.key) + amount)
            self._sums[scope.key] = (total, now + timedelta(seconds=scope.keep_s))
        for key in [key for key, (_, until) in self._sums.items() if until <= now]:
            del self._sums[key]


class Spending:
    """Keeps a ledger for the calls of a chain.

    Under a budget, the most that a call can cost is set aside before it is made, and a ledger that does not answer
    stops the call (`CacheUnavailable`): what cannot be counted must not be spent. Without one, calls are only summed,
    and a lost ledger loses sums. The sum of the day is shown after every call that cost something.
    """

    def __init__(
        self,
        ledger: SpendLedger,
        *,
        usd_per_day: float | None = None,
        usd_per_campaign: float | None = None,
        clock: WallClock = utc_now,
        metrics: Metrics | None = None,
    ) -> None:
        self._ledger = ledger
        self._usd_per_day = usd_per_day
        self._usd_per_campaign = usd_per_campaign
        self._clock = clock
        self._metrics = metrics or NoMetrics()
        self._seen = Transition("spend ledger", logger)
        for scope, limit in (("day", usd_per_day), ("campaign", usd_per_campaign)):
            if limit is not None:
                self._metrics.observe("llm_budget_usd", limit, scope=scope)

    async def reserve(self, most_usd: float, *, account: str) -> Reservation:
        """Room for a call of at most `most_usd`. Raises `BudgetExhausted`, `CacheUnavailable`."""
        scopes = self.scopes(account)
        if most_usd <= 0 or all(scope.limit_usd is None for scope in scopes):
            return Reservation(scopes=scopes, usd=0.0)
        return await self._ledger.reserve(scopes, most_usd)

    async def settle(self, reservation: Reservation, usd: float) -> None:
        """Note what the call cost; without the ledger the reservation stands."""
        if nano(usd) == nano(reservation.usd) == 0:
            return
        try:
            await self._ledger.settle(reservation, usd)
            self._metrics.observe("llm_spend_usd", await self.spent(self.scopes("")[0].key), scope="day")
        except CacheUnavailable as exc:
            self._seen.down(exc)
        else:
            self._seen.up()

    async def spent(self, key: str) -> float:
        """USD spent or set aside under this key. Raises `CacheUnavailable`."""
        return await self._ledger.spent(key)

    def scopes(self, account: str) -> tuple[Scope, ...]:
        """What a call at this moment is summed under."""
        now = self._clock().astimezone(UTC)
        midnight = datetime.combine(now.date() + timedelta(days=1), time(), UTC)
        day = Scope(
            key=f"day:{now.date().isoformat()}",
            limit_usd=self._usd_per_day,
            keep_s=_KEEP_DAY_S,
            renews_in_s=(midnight - now).total_seconds(),
        )
        if not account:
            return (day,)
        limit = self._usd_per_campaign if account.startswith(CAMPAIGN) else None
        return day, Scope(key=account, limit_usd=limit, keep_s=_KEEP_ACCOUNT_S)
