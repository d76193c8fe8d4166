"""What `/ready` asks: every dependency by name, side by side, within a bound."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from deployments.ingress.services import DependencyReport, DependencyState

logger = logging.getLogger(__name__)

CHECK_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One dependency: `ask` returns when it is well and raises otherwise. `missing` tells what its absence means."""

    name: str
    ask: Callable[[], Awaitable[None]]
    critical: bool
    missing: str


class ReadinessChecks:
    """Asks all checks at once; `notes` are standing facts, such as running without Redis."""

    def __init__(self, checks: Sequence[Check], *, notes: Sequence[DependencyReport] = ()) -> None:
        self._checks = tuple(checks)
        self._notes = tuple(notes)

    async def check(self) -> Sequence[DependencyReport]:
        asked = await asyncio.gather(*(self._ask(check) for check in self._checks))
        return [*asked, *self._notes]

    async def _ask(self, check: Check) -> DependencyReport:
        started = time.perf_counter()
        state, detail = DependencyState.UP, ""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await check.ask()
        except Exception as exc:
            logger.info("a dependency is not well", extra={"dependency": check.name, "error": type(exc).__name__})
            state = DependencyState.DOWN if check.critical else DependencyState.DEGRADED
            detail = check.missing
        elapsed = (time.perf_counter() - started) * 1e3
        return DependencyReport(
            name=check.name, state=state, critical=check.critical, detail=detail, latency_ms=round(elapsed, 1)
        )
