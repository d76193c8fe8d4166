"""Experiments with context strategies: who is read how.

A customer's strategy is a pure function of the experiment and the customer id, so replicas agree without talking, and
a lost record of an assignment is written again by the next read. Experiments draw independently of each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self, TypeVar

import orjson
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.assignment import rendezvous, uniform
from models.enrichment.measures import Measure
from models.enrichment.protocol import Contexts
from models.enrichment.selection import AgentViews
from models.enrichment.types import ContextReading, ContextRequest, EnrichedContext
from models.errors import ConfigurationError, DeadlineExceeded

DEFAULT_FILE = Path(__file__).parents[2] / "config" / "context_strategies.yaml"

_Found = TypeVar("_Found")

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]


class Part(BaseModel):
    """A part of the file; frozen, and it refuses names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Strategy(Part):
    """One way of reading; what is left out stays as the caller and the agent type have it."""

    name: Name
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    providers: Literal["all"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all"
    deadline_ms: Annotated[int, Field(ge=1, le=5000)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    order: Literal["relevance", "documented"] = "relevance"


class Experiment(Part):
    """Strategies that are compared; the first is the control."""

    name: Name
    active: bool = False
    salt: str = ""
    agent_types: Annotated[tuple[str, ...], Field(min_length=1)]
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    primary: Measure = Measure.RESOLVED
    decision_sample: Annotated[int, Field(ge=100)] = 2000
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    strategies: Annotated[tuple[Strategy, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [strategy.name for strategy in self.strategies]
        if len(set(names)) < len(names):
            raise ValueError("two strategies have the same name")
        return self

    @property
    def weights(self) -> dict[str, float]:
        return {strategy.name: strategy.weight for strategy in self.strategies}

    def takes(self, customer_id: str) -> bool:
        """Whether the customer is within the share of traffic; a larger share keeps everyone of a smaller one."""
        return uniform(self.salt, self.name, "share", customer_id) < self.share

    def strategy_of(self, customer_id: str) -> str:
        """The name of the customer's strategy, whatever the share."""
        return rendezvous(customer_id, self.weights, salt=f"{self.salt}.{self.name}")


class Experiments(Part):
    """All experiments of the file, in their order."""

    experiments: tuple[Experiment, ...] = ()

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [experiment.name for experiment in self.experiments]
        if len(set(names)) < len(names):
            raise ValueError("two experiments have the same name")
        return self

    @property
    def active(self) -> tuple[Experiment, ...]:
        return tuple(experiment for experiment in self.experiments if experiment.active)

    def named(self, name: str) -> Experiment:
        """Raises `ConfigurationError` naming the choices."""
        for experiment in self.experiments:
            if experiment.name == name:
                return experiment
        known = ", ".join(experiment.name for experiment in self.experiments) or "none"
        raise ConfigurationError(f"there is no context experiment {name!r}; the file has: {known}")


def load_experiments(views: AgentViews, file: Path = DEFAULT_FILE) -> Experiments:
    """Read and check the file. Raises `ConfigurationError` naming the file and every wrong field."""
    try:
        found = Experiments.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    except OSError as exc:
        raise ConfigurationError(f"the strategies file {file.name} cannot be read") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"the strategies file {file.name} is not valid YAML") from exc
    except ValidationError as exc:
        problems = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in exc.errors()]
        raise _refused(file, problems) from exc
    if problems := list(_against(views, found)):
        raise _refused(file, problems)
    return found


def _refused(file: Path, problems: Sequence[str]) -> ConfigurationError:
    return ConfigurationError(f"the strategies file {file.name} is not valid:\n  " + "\n  ".join(problems))


def _against(views: AgentViews, found: Experiments) -> list[str]:
    """What the agent types do not allow: unknown ones, unknown providers, and one that would be left without any."""
    problems, known = [], set(views.providers())
    for i, experiment in enumerate(found.experiments):
        here = f"experiments.{i}"
        for j, agent_type in enumerate(experiment.agent_types):
            if agent_type not in views.names():
                problems.append(f"{here}.agent_types.{j}: {agent_type!r} is not an agent type")
        for j, strategy in enumerate(experiment.strategies):
            if strategy.providers == "all":
                continue
            if unknown := sorted(set(strategy.providers) - known):
                problems.append(f"{here}.strategies.{j}.providers: no agent type sees {', '.join(unknown)}")
            for agent_type in set(experiment.agent_types) & set(views.names()):
                if not set(strategy.providers) & set(views.view(agent_type).providers):
                    problems.append(f"{here}.strategies.{j}.providers: nothing of it is seen by {agent_type!r}")
    return problems


class AssignmentLog(Protocol):
    """Remembers who was assigned what, and since when."""

    def record(self, experiment: str, customer_id: str, strategy: str) -> None:
        """Take the assignment without waiting and without failing; saying it again changes nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A strategy as it applies to one agent type; `providers` are those that this agent type may see."""

    experiment: str
    strategy: str
    providers: tuple[str, ...] | None
    deadline_s: float | None
    max_tokens: int | None
    by_relevance: bool

    @property
    def label(self) -> str:
        return f"{self.experiment}/{self.strategy}"

    def apply(self, request: ContextRequest) -> ContextRequest:
        """The request read this way. What the caller chose stands, but a deadline is shortened; what is required is
        always asked for.
        """
        providers = request.providers
        if providers is None and self.providers is not None:
            providers = tuple(dict.fromkeys((*self.providers, *request.required)))
        return replace(
            request,
            providers=providers,
            deadline=request.deadline if self.deadline_s is None else request.deadline.child(self.deadline_s),
            max_tokens=self.max_tokens if request.max_tokens is None else request.max_tokens,
            message=request.message if self.by_relevance else None,
        )


class Strategies:
    """Chooses the strategy of a read. Recording it is a step of its own, for readings that really took place."""

    def __init__(
        self, experiments: Experiments, views: AgentViews, log: AssignmentLog, *, remembered: int = 10_000
    ) -> None:
        self._log = log
        self._by_agent_type: dict[str, list[tuple[Experiment, dict[str, Choice]]]] = {}
        for experiment in experiments.active:
            for agent_type in experiment.agent_types:
                seen = views.view(agent_type).providers
                choices = {each.name: _choice(experiment, each, seen) for each in experiment.strategies}
                self._by_agent_type.setdefault(agent_type, []).append((experiment, choices))
        if (default := self._by_agent_type.get(views.view("").agent_type)) is not None:
            self._by_agent_type[""] = default
        self._drawn = lru_cache(maxsize=remembered)(self._draw)

    def choose(self, customer_id: str, agent_type: str) -> Choice | None:
        """The customer's strategy; `None` when no active experiment wants this customer."""
        return self._drawn(customer_id, agent_type) if agent_type in self._by_agent_type else None

    def record(self, customer_id: str, choice: Choice) -> None:
        """Note that the customer was read so; takes no time and never fails."""
        self._log.record(choice.experiment, customer_id, choice.strategy)

    def _draw(self, customer_id: str, agent_type: str) -> Choice | None:
        for experiment, choices in self._by_agent_type[agent_type]:
            if experiment.takes(customer_id):
                return choices[experiment.strategy_of(customer_id)]
        return None


def _choice(experiment: Experiment, strategy: Strategy, seen: Sequence[str]) -> Choice:
    return Choice(
        experiment=experiment.name,
        strategy=strategy.name,
        providers=None if strategy.providers == "all" else tuple(n for n in strategy.providers if n in seen),
        deadline_s=None if strategy.deadline_ms is None else strategy.deadline_ms / 1000,
        max_tokens=strategy.max_tokens,
        by_relevance=strategy.order == "relevance",
    )


class StrategyReader:
    """`Contexts` that are read by the strategy of each customer; a reading says which it was."""

    def __init__(self, contexts: Contexts, strategies: Strategies) -> None:
        self._contexts = contexts
        self._strategies = strategies

    async def read(self, customer_id: str, request: ContextRequest) -> ContextReading:
        """Raises as the reader does."""
        choice = self._strategies.choose(customer_id, request.agent_type)
        if choice is None:
            return await self._contexts.read(customer_id, request)
        reading = await self._follow(choice, customer_id, request, self._contexts.read)
        return replace(reading, strategy=choice.label)

    async def enrich(self, customer_id: str, request: ContextRequest) -> EnrichedContext:
        """A value has no order and no length: of a strategy, providers and deadline count. Raises as the source."""
        choice = self._strategies.choose(customer_id, request.agent_type)
        if choice is None:
            return await self._contexts.enrich(customer_id, request)
        return await self._follow(choice, customer_id, request, self._contexts.enrich)

    async def enrich_many(self, customer_ids: Sequence[str], request: ContextRequest) -> dict[str, EnrichedContext]:
        """As asked: what jobs read is no part of an experiment. Raises as the source does."""
        return await self._contexts.enrich_many(customer_ids, request)

    async def read_many(self, customer_ids: Sequence[str], request: ContextRequest) -> bytes:
        """One reading per strategy, put together in the order asked. Raises as the reader does."""
        choices = {each: self._strategies.choose(each, request.agent_type) for each in customer_ids}
        groups: dict[Choice | None, list[str]] = {}
        for customer_id, choice in choices.items():
            groups.setdefault(choice, []).append(customer_id)
        if set(groups) <= {None}:
            return await self._contexts.read_many(customer_ids, request)
        bodies = await self._read_groups(groups, request)
        joined = _joined(list(choices), [orjson.loads(body) for body in bodies])
        for context in joined["contexts"]:
            if (chosen := choices[context["customer_id"]]) is not None:
                self._strategies.record(context["customer_id"], chosen)
        return orjson.dumps(joined)

    async def _follow(
        self,
        choice: Choice,
        customer_id: str,
        request: ContextRequest,
        find: Callable[[str, ContextRequest], Awaitable[_Found]],
    ) -> _Found:
        try:
            found = await find(customer_id, choice.apply(request))
        except DeadlineExceeded:  # the one failure that a strategy can cause: who met it was still read this way
            self._strategies.record(customer_id, choice)
            raise
        self._strategies.record(customer_id, choice)
        return found

    async def _read_groups(self, groups: Mapping[Choice | None, list[str]], request: ContextRequest) -> list[bytes]:
        tasks = []
        try:
            async with asyncio.TaskGroup() as group:
                for choice, ids in groups.items():
                    mine = request if choice is None else choice.apply(request)
                    tasks.append(group.create_task(self._contexts.read_many(ids, mine)))
        except ExceptionGroup as exc:
            raise exc.exceptions[0] from exc
        return [task.result() for task in tasks]


def _joined(asked: Sequence[str], parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    contexts = {context["customer_id"]: context for part in parts for context in part["contexts"]}
    unknown = {customer_id for part in parts for customer_id in part["unknown"]}
    return {
        **({"masked": True} if any(part.get("masked") for part in parts) else {}),
        "contexts": [contexts[customer_id] for customer_id in asked if customer_id in contexts],
        "unknown": [customer_id for customer_id in asked if customer_id in unknown],
        "complete": all(part["complete"] for part in parts),
        "deadline_ms": max(part["deadline_ms"] for part in parts),
        "elapsed_ms": max(part["elapsed_ms"] for part in parts),
    }
