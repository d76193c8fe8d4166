"""Fetches under way: one per provider and customer however many want it, each outliving those who wait for it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from models.enrichment.generations import Generations
from models.enrichment.guards import FAILED, UNKNOWN, Failure, Guard, Landing
from models.enrichment.policy import Freshener, Freshness
from models.enrichment.protocol import BulkContextProvider, ContextProvider
from models.enrichment.records import SectionRecord, checked
from models.enrichment.sections import Found, Sections
from models.enrichment.types import ProviderSpec, ProviderState, Scope, Section
from models.resilience.deadline import Deadline
from models.telemetry import Metrics

#: Customers that one query of a provider is about, and queries at once where each is about one customer.
_MAX_TOGETHER = 250
_MAX_ABREAST = 16


@dataclass(frozen=True, slots=True)
class Need:
    """How new data must be: fetched later than the fetch numbered `after`, and read at `since` or later."""

    after: int = -1
    since: float = -math.inf

    @property
    def demanding(self) -> bool:
        return self != _ANY

    def covers(self, other: Need) -> bool:
        return self.after >= other.after and self.since >= other.since

    def joined_with(self, other: Need) -> Need:
        return Need(max(self.after, other.after), max(self.since, other.since))

    def met_by(self, record: SectionRecord) -> bool:
        return record.order > self.after and record.read_at >= self.since


_ANY = Need()


@dataclass(slots=True, eq=False)
class Fetch:
    """One provider being asked about one customer. What is `outdated` still lands, but is not kept."""

    name: str
    key: str
    order: int
    started: float
    generations: Generations | None
    landing: asyncio.Future[Landing]
    outdated: bool = False
    replaces: Fetch | None = None


@dataclass(slots=True)
class _Inputs:
    """What a provider is told of those it depends on, and since when the oldest of that was known.

    `outdated_ms` is about what is out of date already: a section made from that is out of date as soon.
    """

    known: dict[str, Section] = field(default_factory=dict)
    as_of_ms: float = math.inf
    outdated_ms: float = math.inf
    read_at: float = math.inf
    order: float = math.inf

    def add(self, name: str, record: SectionRecord, *, outdated: bool) -> None:
        if record.section is not None:
            self.known[name] = record.section
        self.as_of_ms = min(self.as_of_ms, record.as_of_ms)
        self.read_at = min(self.read_at, record.read_at)
        self.order = min(self.order, record.order)
        if outdated:
            self.outdated_ms = min(self.outdated_ms, record.as_of_ms)


class Fetches:
    """Asks the providers; what lands is kept in the cache."""

    def __init__(
        self,
        providers: Mapping[str, ContextProvider],
        sections: Sections,
        freshener: Freshener,
        *,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._providers = providers
        self._specs: dict[str, ProviderSpec] = {name: provider.spec for name, provider in providers.items()}
        self._sections = sections
        self._freshener = freshener
        self._metrics = metrics
        self._clock = clock
        self._guards = {
            name: Guard(spec, freshener.policy, clock=clock, metrics=metrics) for name, spec in self._specs.items()
        }
        self._flying: dict[tuple[str, str], Fetch] = {}
        self._all: set[Fetch] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.count = 0

    def ask(
        self, name: str, keys: Iterable[str], need: Need, found: Mapping[str, Found]
    ) -> dict[str, asyncio.Future[Landing]]:
        """The landing to wait for of each key: of the fetch under way if it will be new enough, else of a new one.

        Wait, do not await: a reader who is cancelled must not cancel everybody's fetch.
        """
        landings: dict[str, asyncio.Future[Landing]] = {}
        starting: list[Fetch] = []
        for key in keys:
            fetch = self._flying.get((name, key))
            if fetch is None or fetch.order <= need.after or fetch.started < need.since:
                self.count += 1
                future: asyncio.Future[Landing] = asyncio.get_running_loop().create_future()
                fetch = Fetch(name, key, self.count, self._clock(), found[key].generations, future, replaces=fetch)
                self._flying[name, key] = fetch
                self._all.add(fetch)
                starting.append(fetch)
            landings[key] = fetch.landing
            fetch.landing.add_done_callback(partial(_note, found[key], name))
        abreast = asyncio.Semaphore(_MAX_ABREAST)
        for first in range(0, len(starting), _MAX_TOGETHER):
            together = starting[first : first + _MAX_TOGETHER]
            task = asyncio.create_task(self._run(name, together, need, found, abreast))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return landings

    def outdate(self, names: Collection[str], keys: Collection[str] | None) -> None:
        """What these providers are being asked about these customers (`None`: about anybody) will not be kept."""
        for fetch in self._all:
            if fetch.name in names and (keys is None or fetch.key in keys):
                fetch.outdated = True
                if self._flying.get((fetch.name, fetch.key)) is fetch:
                    del self._flying[fetch.name, fetch.key]

    async def settle(self) -> None:
        """Return once every fetch has landed."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def close(self) -> None:
        """Cancel every fetch and wait until it has ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(guard.close() for guard in self._guards.values()))

    async def _run(
        self,
        name: str,
        fetches: Sequence[Fetch],
        need: Need,
        found: Mapping[str, Found],
        abreast: asyncio.Semaphore,
    ) -> None:
        try:
            inputs = await self._known(self._specs[name], [fetch.key for fetch in fetches], need, found)
            provider = self._providers[name]
            if len(fetches) > 1 and isinstance(provider, BulkContextProvider):
                await self._fetch_many(provider, fetches, inputs)
            elif len(fetches) == 1:
                (fetch,) = fetches
                await self._fetch(provider, fetch, inputs[fetch.key], abreast)
            else:
                await asyncio.gather(*(self._fetch(provider, fetch, inputs[fetch.key], abreast) for fetch in fetches))
        finally:
            for fetch in fetches:
                if not fetch.landing.done():
                    fetch.landing.cancel()
                self._land(fetch)

    async def _fetch(
        self,
        provider: ContextProvider,
        fetch: Fetch,
        inputs: _Inputs,
        abreast: asyncio.Semaphore,
    ) -> None:
        name, section = fetch.name, self._specs[fetch.name].section

        async def ask(deadline: Deadline) -> Section | None:
            return checked(section, await provider.fetch(fetch.key, deadline=deadline, known=inputs.known))

        async with abreast:
            as_of_ms, started = self._freshener.now_ms(), self._clock()
            answer = await self._guards[name].call(ask)
        self._landed(fetch, answer, inputs, as_of_ms=as_of_ms, started=started)

    async def _fetch_many(
        self,
        provider: BulkContextProvider,
        fetches: Sequence[Fetch],
        inputs: Mapping[str, _Inputs],
    ) -> None:
        name, section = fetches[0].name, self._specs[fetches[0].name].section
        keys = [fetch.key for fetch in fetches]
        known = {key: inputs[key].known for key in keys}

        async def ask(deadline: Deadline) -> dict[str, Section | Failure | None]:
            answers = await provider.fetch_many(keys, deadline=deadline, known=known)
            return {key: _checked(section, answers[key]) if key in answers else UNKNOWN for key in keys}

        as_of_ms, started = self._freshener.now_ms(), self._clock()
        answers = await self._guards[name].call(ask)
        for fetch in fetches:
            answer = answers if isinstance(answers, Failure) else answers[fetch.key]
            self._landed(fetch, answer, inputs[fetch.key], as_of_ms=as_of_ms, started=started)

    def _landed(
        self, fetch: Fetch, answer: Section | Failure | None, inputs: _Inputs, *, as_of_ms: int, started: float
    ) -> None:
        spec = self._specs[fetch.name]
        if isinstance(answer, Failure):
            if answer.unknown and spec.scope is Scope.EVERYONE:
                answer = FAILED
            if answer.unknown and not fetch.outdated:
                self._sections.keep_unknown(fetch.key, fetch.generations)
            self._metrics.count("context_provider_outcomes_total", provider=fetch.name, state=answer.state)
            landing: Landing = answer
        else:
            state = ProviderState.MISSING if answer is None else ProviderState.FRESH
            self._metrics.count("context_provider_outcomes_total", provider=fetch.name, state=state)
            # As old as the oldest of what it was made from, which shortens its own time only if that was out of date.
            oldest_ms = int(min(as_of_ms, inputs.as_of_ms))
            inherited_ms = int(min(as_of_ms, inputs.outdated_ms)) - oldest_ms
            landing = SectionRecord(
                section=answer,
                as_of_ms=oldest_ms,
                fresh_ms=self._freshener.fresh_ms(spec, missing=answer is None) + inherited_ms,
                latency_ms=(self._clock() - started) * 1000,
                read_at=min(started, inputs.read_at),
                order=int(min(fetch.order, inputs.order)),
            )
            if not fetch.outdated:
                _outdate(fetch.replaces)
                self._sections.keep(fetch.key, fetch.name, landing, fetch.generations)
        self._land(fetch)
        if not fetch.landing.done():
            fetch.landing.set_result(landing)

    def _land(self, fetch: Fetch) -> None:
        fetch.replaces = None
        self._all.discard(fetch)
        if self._flying.get((fetch.name, fetch.key)) is fetch:
            del self._flying[fetch.name, fetch.key]

    async def _known(
        self, spec: ProviderSpec, keys: Sequence[str], need: Need, found: Mapping[str, Found]
    ) -> dict[str, _Inputs]:
        """The sections that this provider depends on, by customer."""
        inputs = {key: _Inputs() for key in keys}
        landings: dict[tuple[str, str], asyncio.Future[Landing]] = {}
        for needed in spec.depends_on:
            sources = dict.fromkeys(self._sections.key(needed, key) for key in keys)
            wanted = [source for source in sources if self._at_hand(needed, found[source], need) is None]
            for source, landing in self.ask(needed, wanted, need, found).items():
                landings[needed, source] = landing
        if landings:
            await asyncio.wait(landings.values())
        for key in keys:
            for needed in spec.depends_on:
                source = self._sections.key(needed, key)
                if (needed, source) in landings:
                    landed: Landing | None = landings[needed, source].result()
                else:
                    landed = self._at_hand(needed, found[source], need)
                record = landed if isinstance(landed, SectionRecord) else self._fallback(needed, found[source])
                if record is not None:
                    late = record is not landed or self._freshener.judge(record, self._specs[needed]) > Freshness.DUE
                    inputs[key].add(needed, record, outdated=late)
        return inputs

    def _at_hand(self, name: str, found: Found, need: Need) -> Landing | None:
        """What is known of a dependency without asking for it (again)."""
        if name in found.landed:
            return found.landed[name]
        record = found.records.get(name)
        if record is not None and need.met_by(record):
            return record if self._freshener.judge(record, self._specs[name]) <= Freshness.DUE else None
        return None

    def _fallback(self, name: str, found: Found) -> SectionRecord | None:
        record = found.records.get(name) or found.fallbacks.get(name)
        if record is None or self._freshener.judge(record, self._specs[name]) is Freshness.GONE:
            return None
        return record


def _outdate(fetch: Fetch | None) -> None:
    """A newer one has landed: this one, if it is under way still, must not overwrite it."""
    while fetch is not None:
        fetch.outdated, fetch = True, fetch.replaces


def _note(found: Found, name: str, landing: asyncio.Future[Landing]) -> None:
    if not landing.cancelled():
        found.landed[name] = landing.result()


def _checked(section: str, value: object) -> Section | Failure | None:
    """One customer's garbage is nobody else's."""
    try:
        return checked(section, value)
    except (TypeError, ValueError):
        return FAILED
