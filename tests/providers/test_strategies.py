"""Assignments and outcomes of context strategies, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from models.enrichment.measures import Measure
from models.enrichment.strategies import Experiment, Strategy
from models.enrichment.strategy_report import ReportState
from models.errors import DatabaseUnavailable, InvalidRequest
from models.statistics import Mean
from providers import context_report
from providers.context_report import report_on
from providers.database import Database
from providers.record_tables import StrategyAssignment, StrategyOutcome
from providers.systems.strategies import SqlAssignmentLog, SqlStrategyResults, record_outcomes
from tests.fakes.enrichment import ListMetrics

NOW = datetime(2026, 11, 1, 8, tzinfo=UTC)
RESOLVED, CSAT = Measure.RESOLVED, Measure.CSAT


@pytest.fixture
async def log(database: Database) -> AsyncIterator[SqlAssignmentLog]:
    opened = SqlAssignmentLog(database, clock=lambda: NOW)
    yield opened
    await opened.close()


async def assigned(database: Database) -> list[tuple[str, str, str, datetime]]:
    table = StrategyAssignment
    query = select(table.experiment, table.customer_id, table.strategy, table.assigned_at).order_by(
        table.experiment, table.customer_id
    )
    async with database.session() as session:
        return [tuple(row) for row in (await session.execute(query)).all()]  # type: ignore[misc]  # four columns


async def outcomes(database: Database) -> dict[tuple[str, str, str], float]:
    table = StrategyOutcome
    async with database.session() as session:
        rows = await session.execute(select(table.experiment, table.event_id, table.measure, table.value))
        return {(experiment, event, measure): value for experiment, event, measure, value in rows.all()}


async def assign(database: Database, experiment: str, rows: Iterable[tuple[str, str]], at: datetime = NOW) -> None:
    async with database.transaction() as session:
        await session.execute(
            insert(StrategyAssignment),
            [
                {"experiment": experiment, "customer_id": customer_id, "strategy": strategy, "assigned_at": at}
                for customer_id, strategy in rows
            ],
        )


async def closed(
    database: Database,
    event_id: str,
    customer_id: str = "customer_1",
    *,
    started_at: datetime = NOW + timedelta(minutes=1),
    experiments: Iterable[str] = ("trial",),
    **measures: float,
) -> int:
    async with database.transaction() as session:
        return await record_outcomes(
            session,
            experiments=list(experiments),
            event_id=event_id,
            customer_id=customer_id,
            started_at=started_at,
            closed_at=started_at + timedelta(minutes=9),
            measures={Measure(name): value for name, value in measures.items()} or {RESOLVED: 1.0},
        )


class TestAssignments:
    async def test_the_first_one_counts(self, database: Database, log: SqlAssignmentLog) -> None:
        log.record("trial", "customer_1", "a")
        log.record("trial", "customer_1", "b")
        log.record("other", "customer_1", "b")
        await log.flush()
        log.record("trial", "customer_1", "b")
        await log.flush()
        assert await assigned(database) == [("other", "customer_1", "b", NOW), ("trial", "customer_1", "a", NOW)]

    async def test_replicas_record_a_customer_once(self, database: Database) -> None:
        clocks = [NOW + timedelta(seconds=second) for second in range(3)]
        logs = [SqlAssignmentLog(database, clock=lambda at=at: at) for at in clocks]  # type: ignore[misc]  # a default binds it
        for number in range(60):
            for each in logs if number % 2 else reversed(logs):
                each.record("trial", f"customer_{number}", "a")
        await asyncio.gather(*(each.flush() for each in logs))
        rows = await assigned(database)
        assert sorted(row[1] for row in rows) == sorted(f"customer_{number}" for number in range(60))
        assert {row[3] for row in rows} <= set(clocks)

    async def test_the_writer_writes_by_itself(self, database: Database, database_url: str) -> None:
        written = asyncio.Event()

        class Watched(Database):
            @asynccontextmanager
            async def transaction(self) -> AsyncIterator[AsyncSession]:
                async with database.transaction() as session:
                    yield session
                written.set()

        log = SqlAssignmentLog(Watched(database_url), group_s=0.01, clock=lambda: NOW)
        log.start()
        log.record("trial", "customer_1", "a")
        await written.wait()
        assert await assigned(database) == [("trial", "customer_1", "a", NOW)]
        await log.close()

    async def test_closing_writes_what_is_pending(self, database: Database) -> None:
        log = SqlAssignmentLog(database, group_s=3600, clock=lambda: NOW)
        log.start()
        for number in range(1_200):
            log.record("trial", f"customer_{number}", "a")
        await log.close()
        assert len(await assigned(database)) == 1_200

    async def test_without_a_database_reads_go_on_and_memory_is_bounded(self, empty_url: str) -> None:
        database, metrics = Database(empty_url, busy_timeout_s=0.5), ListMetrics()
        log = SqlAssignmentLog(database, group_s=0.01, max_pending=5, clock=lambda: NOW, metrics=metrics)
        log.start()
        for number in range(8):
            log.record("trial", f"customer_{number}", "a")
        assert metrics.counts == {("context_assignments_dropped_total", ()): 3}
        with pytest.raises(DatabaseUnavailable):
            await log.flush()
        await log.close()
        await database.close()

    async def test_what_was_forgotten_may_be_written_again(self, database: Database) -> None:
        log = SqlAssignmentLog(database, remembered=1, clock=lambda: NOW)
        for _ in range(2):
            for customer in ("customer_1", "customer_2"):
                log.record("trial", customer, "a")
            await log.flush()
        assert len(await assigned(database)) == 2


class TestOutcomes:
    async def test_only_conversations_begun_after_the_assignment_count(self, database: Database) -> None:
        await assign(database, "trial", [("customer_1", "a")])
        assert await closed(database, "evt_0", started_at=NOW - timedelta(seconds=1)) == 0
        assert await closed(database, "evt_1", started_at=NOW) == 0
        assert await closed(database, "evt_2", started_at=NOW + timedelta(microseconds=1)) == 1
        assert await closed(database, "evt_3", customer_id="customer_2") == 0
        assert await outcomes(database) == {("trial", "evt_2", "resolved"): 1.0}

    async def test_an_event_counts_once_and_may_say_more_later(self, database: Database) -> None:
        await assign(database, "trial", [("customer_1", "a")])
        assert await closed(database, "evt_1", resolved=1.0) == 1
        assert await closed(database, "evt_1", resolved=0.0) == 0
        assert await closed(database, "evt_1", resolved=0.0, csat=4.0) == 1
        assert await outcomes(database) == {("trial", "evt_1", "resolved"): 1.0, ("trial", "evt_1", "csat"): 4.0}

    async def test_it_counts_in_every_active_experiment_of_the_customer(self, database: Database) -> None:
        for name in ("one", "two", "ended"):
            await assign(database, name, [("customer_1", "a")])
        assert await closed(database, "evt_1", experiments=("one", "two", "unknown"), resolved=0.0, csat=2.0) == 4
        assert {key[0] for key in await outcomes(database)} == {"one", "two"}
        assert await closed(database, "evt_2", experiments=()) == 0

    async def test_it_exists_only_with_the_callers_commit(self, database: Database) -> None:
        await assign(database, "trial", [("customer_1", "a")])
        async with database.session() as session:  # never commits
            counted = await record_outcomes(
                session,
                experiments=["trial"],
                event_id="evt_1",
                customer_id="customer_1",
                started_at=NOW + timedelta(minutes=1),
                closed_at=NOW + timedelta(minutes=2),
                measures={RESOLVED: 1.0},
            )
        assert counted == 1
        assert await outcomes(database) == {}

    async def test_an_impossible_rating_is_refused(self, database: Database) -> None:
        with pytest.raises(InvalidRequest, match="range"):
            await closed(database, "evt_1", csat=6.0)


def trial(name: str = "trial") -> Experiment:
    return Experiment(
        name=name, active=True, agent_types=("support",), strategies=(Strategy(name="a"), Strategy(name="b"))
    )


class TestReport:
    async def conversations(self, database: Database, experiment: Experiment, customers: int) -> None:
        """Customers of `b` have everything resolved but one in ten, those of `a` every other; even ones write twice."""
        names = [f"customer_{number}" for number in range(customers)]
        await assign(database, experiment.name, [(each, experiment.strategy_of(each)) for each in names])
        rows = []
        for number, customer_id in enumerate(names):
            good = number % 2 if experiment.strategy_of(customer_id) == "a" else number % 10 > 0
            for turn in range(2 - number % 2):
                key = {"experiment": experiment.name, "event_id": f"evt_{number}_{turn}", "customer_id": customer_id}
                rows.append({**key, "measure": "resolved", "value": float(good), "at": NOW})
                rows.append({**key, "measure": "csat", "value": 3.0 + number % 3, "at": NOW})
        async with database.transaction() as session:
            await session.execute(insert(StrategyOutcome), rows)

    async def test_sums_are_by_customer(self, database: Database) -> None:
        await assign(database, "trial", [("customer_1", "a"), ("customer_2", "a"), ("customer_3", "a")])
        for event, customer, rating in (
            ("e1", "customer_1", 5.0),
            ("e2", "customer_1", 3.0),
            ("e3", "customer_2", 2.0),
        ):
            await closed(database, event, customer, resolved=1.0, csat=rating)
        await closed(database, "e4", "customer_2", resolved=0.0)
        found = (await SqlStrategyResults(database).tallies("trial"))["a"]
        assert (found.assigned, found.customers, found.conversations) == (3, 2, 4)
        rated = found.measures[CSAT]
        assert (rated.clusters, rated.count, rated.total) == (2, 3, 10.0)
        assert (rated.count_squares, rated.total_squares, rated.total_times_count) == (5.0, 68.0, 18.0)
        assert Mean.of_clusters(found.measures[RESOLVED]).mean == pytest.approx(3 / 4)

    async def test_a_clear_difference_is_reported(self, database: Database) -> None:
        await self.conversations(database, trial(), 800)
        report = await report_on(database, trial())
        assert report.state is ReportState.MEASURED
        assert report.winner == "b"
        for each in report.strategies:
            mine = [n for n in range(800) if trial().strategy_of(f"customer_{n}") == each.strategy]
            assert (each.assigned, each.customers) == (len(mine), len(mine))
            assert each.conversations == sum(2 - number % 2 for number in mine)

    async def test_a_changed_experiment_is_noticed(self, database: Database) -> None:
        await self.conversations(database, trial(), 800)
        changed = trial().model_copy(update={"strategies": (Strategy(name="a", weight=3), Strategy(name="b"))})
        report = await report_on(database, changed)
        assert report.state is ReportState.CHANGED_WHILE_RUNNING
        assert 0 < report.moved < 400

    async def test_nobody_yet(self, database: Database) -> None:
        assert (await report_on(database, trial())).state is ReportState.NOBODY_ASSIGNED

    def test_the_command(
        self,
        database_url: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setenv("DATABASE_URL", database_url)
        assert context_report.main(["--output", str(tmp_path)]) == 0
        [name] = [folder.name for folder in tmp_path.iterdir() if folder.is_dir()]
        assert json.loads((tmp_path / name / "report.json").read_text())["state"] == "nobody assigned"
        assert name in capsys.readouterr().out
        assert context_report.main(["--experiment", "nowhere", "--output", str(tmp_path)]) == 2
        assert name in capsys.readouterr().err
