"""What `/ready` asks: every dependency by name, side by side, within a bound."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from deployments.ingress.services import DependencyReport, DependencyState
from models.llm.chain import answers, describe
from models.llm.types import EngineState

logger = logging.getLogger(__name__)

CHECK_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What `/ready` shows of a dependency that serves; `degraded` when it does so only in part."""

    detail: str
    degraded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One dependency: `ask` returns when it serves and raises otherwise. `missing` tells what its absence means."""

    name: str
    ask: Callable[[], Awaitable[Note | None]]
    critical: bool
    missing: str


def language_model_check(states: Callable[[], Awaitable[Sequence[EngineState]]], *, missing: str) -> Check:
    """The chain of language models: well while its first engine answers, in part while another one does."""

    async def ask() -> Note:
        found = await states()
        if any(map(answers, found)):
            return Note(detail=describe(found), degraded=not answers(found[0]))
        return Note(detail=f"{describe(found)}; {missing}", degraded=True)

    return Check(name="language_model", ask=ask, critical=False, missing=missing)


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
                if note := await check.ask():
                    state = DependencyState.DEGRADED if note.degraded else DependencyState.UP
                    detail = note.detail
        except Exception as exc:
            logger.info("a dependency is not well", extra={"dependency": check.name, "error": type(exc).__name__})
            state = DependencyState.DOWN if check.critical else DependencyState.DEGRADED
            detail = check.missing
        elapsed = (time.perf_counter() - started) * 1e3
        return DependencyReport(
            name=check.name, state=state, critical=check.critical, detail=detail, latency_ms=round(elapsed, 1)
        )
