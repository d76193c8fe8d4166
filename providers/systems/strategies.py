"""Who was read by which context strategy, and how their conversations went afterwards, on our database."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Insert, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from models.clock import WallClock, utc_now
from models.enrichment.measures import Measure, check_measures
from models.enrichment.strategy_report import StrategyTally
from models.statistics import ClusterSums
from models.telemetry import Metrics, NoMetrics, Transition
from providers.database import Database
from providers.record_tables import StrategyAssignment, StrategyOutcome
from providers.table_types import Table

_log = logging.getLogger(__name__)
#: Rows of one statement; PostgreSQL allows 32,767 bound values in it.
_MAX_GROUP = 500


class SqlAssignmentLog:
    """Takes assignments at once and writes them in groups from a background task; the first one of a customer counts.

    Nothing is promised about a single assignment: with the database away or `max_pending` reached it may be lost,
    which costs the outcomes of conversations begun until the customer is read again, and biases none. All methods
    belong to the event loop that called `start`.
    """

    def __init__(
        self,
        database: Database,
        *,
        group_s: float = 1.0,
        max_pending: int = 10_000,
        remembered: int = 100_000,
        clock: WallClock = utc_now,
        metrics: Metrics | None = None,
    ) -> None:
        self._database = database
        self._group_s = group_s
        self._max_pending = max_pending
        self._remembered = remembered
        self._clock = clock
        self._metrics = metrics or NoMetrics()
        self._pending: dict[tuple[str, str], dict[str, Any]] = {}
        self._known: dict[tuple[str, str], None] = {}
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._transition = Transition("strategy assignments", _log)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin writing; call it inside the event loop. Starting twice is harmless."""
        if self._task is None:
            self._task = asyncio.create_task(self._write_forever(), name="assignment-writer")

    def record(self, experiment: str, customer_id: str, strategy: str) -> None:
        """Take the assignment without waiting; saying it again changes nothing."""
        key = (experiment, customer_id)
        if key in self._known or key in self._pending:
            return
        if len(self._pending) >= self._max_pending:
            self._metrics.count("context_assignments_dropped_total")
            return
        self._pending[key] = {
            "experiment": experiment,
            "customer_id": customer_id,
            "strategy": strategy,
            "assigned_at": self._clock(),
        }
        self._wake.set()

    async def flush(self) -> None:
        """Write what was taken so far. Raises `DatabaseUnavailable`, and keeps what is not written."""
        while self._pending:
            # In one order everywhere: replicas that write the same rows wait for each other, and never in a circle.
            group = dict(sorted(self._pending.items())[:_MAX_GROUP])
            async with self._database.transaction() as session:
                await session.execute(_new_rows(StrategyAssignment, self._database.dialect), list(group.values()))
            for key in group:
                self._pending.pop(key, None)
                self._known[key] = None
            while len(self._known) > self._remembered:
                del self._known[next(iter(self._known))]

    async def close(self) -> None:
        """Write what is pending, if the database lets us, and stop."""
        if self._task is not None:
            self._closing.set()
            self._wake.set()
            await self._task
            self._task = None

    async def _write_forever(self) -> None:
        closing = False
        while not closing:
            await self._wake.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._group_s):
                    await self._closing.wait()
            closing = self._closing.is_set()
            self._wake.clear()
            try:
                await self.flush()
            except Exception as error:  # whatever it was, reads go on and so must the writer
                self._wake.set()
                self._transition.down(error, pending=len(self._pending))
            else:
                self._transition.up()


async def record_outcomes(
    session: AsyncSession,
    *,
    experiments: Collection[str],
    event_id: str,
    customer_id: str,
    started_at: datetime,
    closed_at: datetime,
    measures: Mapping[Measure, float],
) -> int:
    """Note in the caller's transaction how a closed conversation went; how many measures were new.

    It counts in those of `experiments` (the active ones) whose strategy the customer had *before* the conversation
    began. The same event again adds nothing. Raises `InvalidRequest` for a value out of range.
    """
    check_measures(measures)
    if not experiments or not measures:
        return 0
    assigned = select(StrategyAssignment.experiment).where(
        StrategyAssignment.customer_id == customer_id,
        StrategyAssignment.assigned_at < started_at,
        StrategyAssignment.experiment.in_(experiments),
    )
    rows = [
        {
            "experiment": experiment,
            "event_id": event_id,
            "measure": measure.value,
            "customer_id": customer_id,
            "value": float(value),
            "at": closed_at,
        }
        for experiment in (await session.scalars(assigned)).all()
        for measure, value in measures.items()
    ]
    if not rows:
        return 0
    insert = _new_rows(StrategyOutcome, session.get_bind().dialect.name).values(rows)
    return len((await session.scalars(insert.returning(StrategyOutcome.event_id))).all())


class SqlStrategyResults:
    """What the report of an experiment is made of."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def tallies(self, experiment: str) -> dict[str, StrategyTally]:
        """Sufficient statistics by strategy. Raises `DatabaseUnavailable`."""
        assignment, outcome = StrategyAssignment, StrategyOutcome
        joined = (assignment.experiment == outcome.experiment) & (assignment.customer_id == outcome.customer_id)
        customers = (
            select(assignment.strategy, func.count())
            .where(assignment.experiment == experiment)
            .group_by(assignment.strategy)
        )
        conversations = (
            select(
                assignment.strategy,
                func.count(outcome.customer_id.distinct()),
                func.count(outcome.event_id.distinct()),
            )
            .join(outcome, joined)
            .where(assignment.experiment == experiment)
            .group_by(assignment.strategy)
        )
        by_customer = (
            select(
                assignment.strategy,
                outcome.measure,
                func.count().label("n"),
                func.sum(outcome.value).label("x"),
            )
            .join(outcome, joined)
            .where(assignment.experiment == experiment)
            .group_by(assignment.strategy, outcome.measure, outcome.customer_id)
            .subquery()
        )
        n, x = by_customer.c.n, by_customer.c.x
        sums = select(
            by_customer.c.strategy,
            by_customer.c.measure,
            func.count(),
            func.sum(n),
            func.sum(x),
            func.sum(n * n),
            func.sum(x * x),
            func.sum(x * n),
        ).group_by(by_customer.c.strategy, by_customer.c.measure)
        async with self._database.session() as session:
            assigned = {row[0]: row[1] for row in (await session.execute(customers)).all()}
            measured = {row[0]: (row[1], row[2]) for row in (await session.execute(conversations)).all()}
            found: dict[str, dict[Measure, ClusterSums]] = {}
            for strategy, measure, clusters, *totals in (await session.execute(sums)).all():
                found.setdefault(strategy, {})[Measure(measure)] = ClusterSums(
                    clusters=clusters,
                    count=int(totals[0]),
                    total=float(totals[1]),
                    count_squares=float(totals[2]),
                    total_squares=float(totals[3]),
                    total_times_count=float(totals[4]),
                )
        return {
            strategy: StrategyTally(
                assigned=n,
                customers=measured.get(strategy, (0, 0))[0],
                conversations=measured.get(strategy, (0, 0))[1],
                measures=found.get(strategy, {}),
            )
            for strategy, n in assigned.items()
        }

    async def assignments(self, experiment: str) -> AsyncIterator[tuple[str, str]]:
        """Every assigned customer and their recorded strategy. Raises `DatabaseUnavailable`."""
        query = select(StrategyAssignment.customer_id, StrategyAssignment.strategy).where(
            StrategyAssignment.experiment == experiment
        )
        async with self._database.session() as session:
            async for customer_id, strategy in await session.stream(query):
                yield customer_id, strategy


def _new_rows(table: type[Table], dialect: str) -> Insert:
    """An insert that passes over rows which are there already."""
    if dialect == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()
