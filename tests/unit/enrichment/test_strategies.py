"""The strategies file, who gets which strategy, and how a read follows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
import yaml
from scipy import stats

from models.enrichment.assembly import unknown_customer
from models.enrichment.selection import AgentViews
from models.enrichment.strategies import (
    DEFAULT_FILE,
    Experiment,
    Experiments,
    Strategies,
    Strategy,
    StrategyReader,
    load_experiments,
)
from models.enrichment.types import ContextReading, ContextRequest, EnrichedContext, ServedFrom
from models.errors import ConfigurationError, DeadlineExceeded, UnknownCustomer
from models.resilience.deadline import Deadline

VIEWS = AgentViews.load()
UNSEEN_BY_SALES = [name for name in VIEWS.providers() if name not in VIEWS.view("sales").providers][:1]
START = datetime(2026, 11, 1, tzinfo=UTC)
CUSTOMERS = [f"customer_{number}" for number in range(5_000)]
LEAN = Strategy(
    name="lean", providers=("support_history", "sales_pipeline"), deadline_ms=50, max_tokens=100, order="documented"
)


def experiment(name: str = "trial", *strategies: Strategy, **fields: object) -> Experiment:
    values = {"active": True, "agent_types": ("support",), **fields}
    return Experiment(name=name, strategies=strategies or (Strategy(name="all"), LEAN), **values)


class Log:
    """Assignments in a list."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, str]] = []

    def record(self, experiment: str, customer_id: str, strategy: str) -> None:
        self.lines.append((experiment, customer_id, strategy))


class Reader:
    """`Contexts` that note what they were asked; `nobody` are the unknown customers."""

    def __init__(self, *nobody: str) -> None:
        self.asked: list[tuple[list[str], ContextRequest]] = []
        self.nobody = nobody
        self.failure: Exception | None = None
        self.masked: tuple[str, ...] = ()

    async def read(self, customer_id: str, request: ContextRequest) -> ContextReading:
        self.asked.append(([customer_id], request))
        if self.failure is not None:
            raise self.failure
        if customer_id in self.nobody:
            raise UnknownCustomer("there is no such customer")
        return ContextReading(
            body=b"{}",
            media_type="application/json",
            served_from=ServedFrom.L1,
            complete=True,
            age_ms=0,
            ttl_ms=0,
            context_version="v",
            cache_hit=True,
            elapsed_ms=0.0,
        )

    async def enrich(self, customer_id: str, request: ContextRequest) -> EnrichedContext:
        return (await self.enrich_many([customer_id], request))[customer_id]

    async def enrich_many(self, customer_ids: Sequence[str], request: ContextRequest) -> dict[str, EnrichedContext]:
        self.asked.append((list(customer_ids), request))
        if self.failure is not None:
            raise self.failure
        return {each: unknown_customer(each, VIEWS.view(request.agent_type), START) for each in customer_ids}

    async def read_many(self, customer_ids: Sequence[str], request: ContextRequest) -> bytes:
        self.asked.append((list(customer_ids), request))
        if self.failure is not None:
            raise self.failure
        return orjson.dumps(
            {
                **({"masked": True} if set(customer_ids) & set(self.masked) else {}),
                "contexts": [{"customer_id": each} for each in customer_ids if each not in self.nobody],
                "unknown": [each for each in customer_ids if each in self.nobody],
                "complete": request.providers is None,
                "deadline_ms": 250,
                "elapsed_ms": 1.0,
            }
        )


def request(agent_type: str = "support", **fields: object) -> ContextRequest:
    return ContextRequest(deadline=Deadline.after(0.25, lambda: 0.0), agent_type=agent_type, **fields)  # type: ignore[arg-type]


def wired(*experiments: Experiment, reader: Reader | None = None) -> tuple[StrategyReader, Reader, Log]:
    log, inner = Log(), reader or Reader()
    strategies = Strategies(Experiments(experiments=experiments), VIEWS, log)
    return StrategyReader(inner, strategies), inner, log


def one_of(trial: Experiment, strategy: str) -> str:
    """A customer with this strategy."""
    return next(customer for customer in CUSTOMERS if trial.strategy_of(customer) == strategy)


class TestFile:
    def test_the_shipped_file_is_valid_and_runs_nothing(self) -> None:
        found = load_experiments(VIEWS)
        assert found.experiments
        assert found.active == ()

    def written(self, tmp_path: Path, **changes: object) -> Path:
        tree = yaml.safe_load(DEFAULT_FILE.read_text())
        tree["experiments"][0].update(changes)
        file = tmp_path / "strategies.yaml"
        file.write_text(yaml.safe_dump(tree))
        return file

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"share": 0}, "experiments.0.share"),
            ({"share": 1.5}, "experiments.0.share"),
            ({"name": "Two Words"}, "experiments.0.name"),
            ({"primary": "happiness"}, "experiments.0.primary"),
            ({"budget": 3}, "experiments.0.budget"),
            ({"agent_types": []}, "experiments.0.agent_types"),
            ({"agent_types": ["support", "janitor"]}, "experiments.0.agent_types.1"),
            ({"strategies": [{"name": "alone"}]}, "experiments.0.strategies"),
            ({"strategies": [{"name": "a"}, {"name": "a"}]}, "same name"),
            ({"strategies": [{"name": "a"}, {"name": "b", "weight": 0}]}, "experiments.0.strategies.1.weight"),
            ({"strategies": [{"name": "a"}, {"name": "b", "deadline_ms": 0}]}, "strategies.1.deadline_ms"),
            ({"strategies": [{"name": "a"}, {"name": "b", "order": "random"}]}, "experiments.0.strategies.1.order"),
            ({"strategies": [{"name": "a"}, {"name": "b", "providers": []}]}, "experiments.0.strategies.1.providers"),
            (
                {"strategies": [{"name": "a"}, {"name": "b", "providers": ["horoscope"]}]},
                "experiments.0.strategies.1.providers: no agent type sees horoscope",
            ),
            (
                {"agent_types": ["sales"], "strategies": [{"name": "a"}, {"name": "b", "providers": UNSEEN_BY_SALES}]},
                "experiments.0.strategies.1.providers: nothing of it is seen by 'sales'",
            ),
        ],
    )  # fmt: skip
    def test_what_is_wrong_is_named(self, tmp_path: Path, changes: dict[str, object], field: str) -> None:
        with pytest.raises(ConfigurationError, match=r"strategies\.yaml") as raised:
            load_experiments(VIEWS, self.written(tmp_path, **changes))
        assert field in str(raised.value)

    @pytest.mark.parametrize("text", ["experiments: [", "\udcff", "- a\n- b"])
    def test_a_file_that_is_no_such_table(self, tmp_path: Path, text: str) -> None:
        file = tmp_path / "strategies.yaml"
        file.write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(ConfigurationError, match=r"strategies\.yaml"):
            load_experiments(VIEWS, file)

    def test_a_missing_and_an_empty_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="cannot be read"):
            load_experiments(VIEWS, tmp_path / "none.yaml")
        (tmp_path / "empty.yaml").touch()
        assert load_experiments(VIEWS, tmp_path / "empty.yaml").experiments == ()

    def test_two_experiments_need_two_names(self) -> None:
        with pytest.raises(ValueError, match="same name"):
            Experiments(experiments=(experiment(), experiment()))
        with pytest.raises(ConfigurationError, match="trial"):
            Experiments(experiments=(experiment(),)).named("other")


class TestAssignment:
    def test_it_follows_the_weights(self) -> None:
        trial = experiment("trial", Strategy(name="a", weight=3), Strategy(name="b", weight=1))
        counts = Counter(trial.strategy_of(customer) for customer in CUSTOMERS)
        assert stats.chisquare([counts["a"], counts["b"]], [3_750, 1_250]).pvalue > 0.001

    def test_it_is_the_same_forever(self) -> None:
        # A changed draw would move customers of every running experiment.
        trial = experiment("trial", Strategy(name="a"), Strategy(name="b"), salt="1")
        assert "".join(trial.strategy_of(customer) for customer in CUSTOMERS[:24]) == FIRST_24

    def test_experiments_draw_independently(self) -> None:
        one, two = experiment("one"), experiment("two")
        table = [[0, 0], [0, 0]]
        for customer in CUSTOMERS:
            table[one.strategy_of(customer) == "all"][two.strategy_of(customer) == "all"] += 1
        assert stats.chi2_contingency(table, correction=False).pvalue > 0.001

    def test_the_share_does_not_lean_to_a_strategy_and_grows_around_those_inside(self) -> None:
        small, large = experiment(share=0.2), experiment(share=0.5)
        inside = {customer for customer in CUSTOMERS if small.takes(customer)}
        assert stats.binomtest(len(inside), len(CUSTOMERS), 0.2).pvalue > 0.001
        assert inside < {customer for customer in CUSTOMERS if large.takes(customer)}
        leaning = sum(small.strategy_of(customer) == "all" for customer in inside)
        assert stats.binomtest(leaning, len(inside), 0.5).pvalue > 0.001


FIRST_24 = "bbabbbaabaaabaababbabaab"


class TestReads:
    async def test_a_strategy_shapes_the_request_and_is_told(self) -> None:
        trial = experiment()
        reader, inner, log = wired(trial)
        customer = one_of(trial, "lean")
        reading = await reader.read(customer, request(message="my invoice", required=("account_health",)))
        assert reading.strategy == "trial/lean"
        [(_, asked)] = inner.asked
        assert asked.providers == ("support_history", "account_health")  # support does not see sales_pipeline
        assert (asked.max_tokens, asked.message) == (100, None)
        assert asked.deadline.remaining_s() == pytest.approx(0.05)
        assert log.lines == [("trial", customer, "lean")]

    async def test_the_control_is_read_as_asked_and_told_too(self) -> None:
        trial = experiment()
        reader, inner, log = wired(trial)
        customer, asked = one_of(trial, "all"), request(message="my invoice")
        assert (await reader.read(customer, asked)).strategy == "trial/all"
        assert inner.asked == [([customer], asked)]
        assert log.lines == [("trial", customer, "all")]

    async def test_what_the_caller_chose_stands(self) -> None:
        trial = experiment()
        reader, inner, _ = wired(trial)
        short = Deadline.after(0.01, lambda: 0.0)
        await reader.read(
            one_of(trial, "lean"),
            ContextRequest(deadline=short, agent_type="support", providers=("account_health",), max_tokens=7),
        )
        [(_, asked)] = inner.asked
        assert (asked.providers, asked.max_tokens) == (("account_health",), 7)
        assert asked.deadline.remaining_s() == pytest.approx(0.01)

    @pytest.mark.parametrize("trial", [experiment(active=False), experiment(agent_types=("sales",))])
    async def test_without_an_experiment_nothing_happens(self, trial: Experiment) -> None:
        reader, inner, log = wired(trial)
        asked = request()
        assert (await reader.read("customer_1", asked)).strategy == ""
        assert inner.asked == [(["customer_1"], asked)]
        assert log.lines == []

    async def test_no_agent_type_means_the_default_one(self) -> None:
        reader, _, log = wired(experiment(agent_types=("general",)))
        assert (await reader.read("customer_1", request(""))).strategy.startswith("trial/")
        assert len(log.lines) == 1

    async def test_the_first_experiment_that_wants_a_customer_decides(self) -> None:
        first, second = experiment("first", share=0.5), experiment("second")
        reader, _, _ = wired(first, second)
        for customer in CUSTOMERS[:20]:
            strategy = (await reader.read(customer, request())).strategy
            assert strategy.startswith("first/" if first.takes(customer) else "second/")

    async def test_nobody_is_assigned_who_does_not_exist(self) -> None:
        reader, _, log = wired(experiment(), reader=Reader("customer_1"))
        with pytest.raises(UnknownCustomer):
            await reader.read("customer_1", request())
        assert log.lines == []

    async def test_a_missed_deadline_still_counts_as_read(self) -> None:
        reader, inner, log = wired(experiment())
        inner.failure = DeadlineExceeded("too late")
        with pytest.raises(DeadlineExceeded):
            await reader.read("customer_1", request())
        assert len(log.lines) == 1

    async def test_a_conversation_reads_its_customer_by_their_strategy(self) -> None:
        trial = experiment()
        reader, inner, log = wired(trial)
        customer = one_of(trial, "lean")
        assert (await reader.enrich(customer, request(masked=True))).customer_id == customer
        [(_, asked)] = inner.asked
        assert (asked.providers, asked.masked) == (("support_history",), True)
        assert asked.deadline.remaining_s() == pytest.approx(0.05)
        inner.failure = DeadlineExceeded("too late")
        with pytest.raises(DeadlineExceeded):
            await reader.enrich(customer, request())
        assert log.lines == [("trial", customer, "lean")] * 2

    async def test_what_a_job_reads_is_no_part_of_an_experiment(self) -> None:
        reader, inner, log = wired(experiment())
        asked = request()
        assert list(await reader.enrich_many(["b", "a"], asked)) == ["b", "a"]
        assert inner.asked == [(["b", "a"], asked)]
        assert log.lines == []


class TestManyReads:
    async def test_each_customer_is_read_by_their_own_strategy_in_the_order_asked(self) -> None:
        trial = experiment(share=0.7)
        reader, inner, log = wired(trial, reader=Reader("customer_4"))
        asked = [*CUSTOMERS[:40], CUSTOMERS[0]]
        body = orjson.loads(await reader.read_many(asked, request()))
        known = [customer for customer in CUSTOMERS[:40] if customer != "customer_4"]
        assert [context["customer_id"] for context in body["contexts"]] == known
        assert body["unknown"] == ["customer_4"]
        assert body["complete"] is False
        assert len(inner.asked) == 3
        for customers, made in inner.asked:
            lean = {trial.takes(each) and trial.strategy_of(each) == "lean" for each in customers}
            assert lean == {made.providers is not None}
        assert {customer for _, customer, _ in log.lines} == {each for each in known if trial.takes(each)}

    @pytest.mark.parametrize("masked", [(), (CUSTOMERS[3],)])
    async def test_that_somebody_is_masked_is_said_of_the_whole(self, masked: tuple[str, ...]) -> None:
        reader, inner, _ = wired(experiment(share=0.5))
        inner.masked = masked
        body = orjson.loads(await reader.read_many(CUSTOMERS[:40], request()))
        assert body.get("masked", False) is bool(masked)

    async def test_without_an_experiment_the_bytes_pass_untouched(self) -> None:
        reader, inner, log = wired(experiment(agent_types=("sales",)))
        body = await reader.read_many(["b", "a"], request())
        assert body == await inner.read_many(["b", "a"], request())
        assert log.lines == []

    async def test_a_failure_arrives_as_it_is(self) -> None:
        reader, inner, _ = wired(experiment())
        inner.failure = DeadlineExceeded("too late")
        with pytest.raises(DeadlineExceeded):
            await reader.read_many(CUSTOMERS[:10], request())
