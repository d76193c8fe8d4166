"""Gathers the sections of customers, from the cache or from the providers, and says of each how it went."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from models.enrichment.fetches import Fetches, Need
from models.enrichment.guards import Failure, Landing
from models.enrichment.policy import Freshener, Freshness
from models.enrichment.records import SectionRecord
from models.enrichment.sections import EVERYONE, Found, Sections
from models.enrichment.types import ProviderOutcome, ProviderSpec, ProviderState, Scope, Section, ServedFrom
from models.telemetry import Metrics

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATE = Failure(state=ProviderState.TIMEOUT, detail="no answer within the deadline of this read")


@dataclass(frozen=True, slots=True)
class Answer:
    """One provider's outcome, with the section it stands for and the record behind both."""

    outcome: ProviderOutcome
    section: Section | None
    served_from: ServedFrom
    record: SectionRecord | None


@dataclass(slots=True, eq=False)
class Collecting:
    """What has come in for one customer; readable at any moment."""

    customer_id: str
    answers: dict[str, Answer] = field(default_factory=dict)
    found: Found = field(default_factory=Found)
    unknown: bool = False


@dataclass(slots=True, eq=False)
class Batch:
    """The same sections of several customers, for one kind of reader.

    The need may grow until the batch has `begun`. With `refreshing`, what is due for an early refresh is fetched too.
    Once it is `outdated`, what was found in the shared tier is not kept. `critical` is done when every provider of the
    most important tier has answered, `done` when all have.
    """

    collections: list[Collecting]
    names: tuple[str, ...]
    need: Need
    refreshing: bool
    critical: asyncio.Future[None]
    done: asyncio.Future[None]
    begun: bool = False
    outdated: bool = False
    everyone: Found = field(default_factory=Found)
    unknown: int = 0
    waiting: int = 0
    waiting_critical: int = 0

    def progress(self) -> None:
        """Note what is done by now."""
        over = self.unknown == len(self.collections)
        if (over or not self.waiting_critical) and not self.critical.done():
            self.critical.set_result(None)
        if (over or not self.waiting) and not self.done.done():
            self.done.set_result(None)


class Collector:
    """Decides for each section whether what is at hand will do, and has the rest fetched."""

    def __init__(
        self,
        specs: Mapping[str, ProviderSpec],
        sections: Sections,
        fetches: Fetches,
        freshener: Freshener,
        *,
        metrics: Metrics,
    ) -> None:
        self._specs = specs
        self._sections = sections
        self._fetches = fetches
        self._freshener = freshener
        self._metrics = metrics
        self._with_needed = {name: self._closure(name) for name in specs}

    async def collect(self, batch: Batch) -> None:
        """Fill the batch's collections with an answer per provider; returns when each has answered, failed or used up
        its own timeout, or when all customers turned out to be unknown.
        """
        await self._find(batch)
        batch.begun = True
        stale = self._start(batch)
        batch.progress()
        await batch.done
        soft_timeout_s = self._freshener.policy.soft_timeout_s
        if stale and soft_timeout_s > 0:
            await asyncio.wait(stale, timeout=soft_timeout_s)
        for collection in batch.collections:
            if not collection.unknown:
                for name in batch.names:
                    if name not in collection.answers:
                        collection.answers[name] = self.stand_in(batch, collection, name)

    def stand_in(self, batch: Batch, collection: Collecting, name: str, failure: Failure = _LATE) -> Answer:
        """The answer for a provider that gave none: what is at hand of it, marked by its age, else the failure."""
        found = self._found(batch, collection, name)
        record = found.records.get(name) or found.fallbacks.get(name)
        freshness = Freshness.GONE if record is None else self._freshener.judge(record, self._specs[name])
        if record is None or freshness is Freshness.GONE:
            return Answer(self._outcome(name, failure.state, detail=failure.detail), None, ServedFrom.ORIGIN, None)
        tier = found.tiers.get(name, ServedFrom.L1)
        if freshness <= Freshness.DUE and name in found.records and batch.need.met_by(record):
            return self._answer(name, record, tier)
        return self._answer(name, record, tier, stale=f"{failure.state}: {failure.detail}")

    async def _find(self, batch: Batch) -> None:
        """What the cache has, asking its shared tier about those of whom the memory has not all."""
        shared: list[str] = []
        names = {name for shown in batch.names for name in self._with_needed[shown]}
        if any(self._specs[name].scope is Scope.EVERYONE for name in names):
            batch.everyone = self._sections.at_hand(EVERYONE)
            if self._lacking(batch, batch.everyone, Scope.EVERYONE):
                shared.append(EVERYONE)
        for collection in batch.collections:
            collection.found = self._sections.at_hand(collection.customer_id)
            believed = collection.found.unknown and not batch.need.demanding
            if not believed and self._lacking(batch, collection.found, Scope.CUSTOMER):
                shared.append(collection.customer_id)
        if not shared or not self._sections.shared:
            return
        found = await self._sections.look_up(shared)
        if found is None:  # then what is in memory has to do without being confirmed
            found = {key: self._sections.at_hand(key) for key in shared}
        for collection in batch.collections:
            if (mine := found.get(collection.customer_id)) is not None:
                collection.found = mine
                if mine.generations is not None:
                    self._count_l2(batch, mine)
        batch.everyone = found.get(EVERYONE, batch.everyone)
        if not batch.outdated:
            for key, one in found.items():
                self._sections.promote(key, one)

    def _start(self, batch: Batch) -> list[asyncio.Future[Landing]]:
        """Answer from what is at hand, ask for the rest; what is asked for although a stale answer is at hand."""
        for collection in batch.collections:
            collection.unknown = collection.found.unknown and not batch.need.demanding
            batch.unknown += collection.unknown
        present = [collection for collection in batch.collections if not collection.unknown]
        most_important = min((self._specs[name].tier for name in batch.names), default=0)
        stale: list[asyncio.Future[Landing]] = []
        for name in sorted(batch.names, key=lambda name: self._specs[name].tier):
            wanted: dict[Freshness, list[Collecting]] = {}
            for collection in present:
                if (freshness := self._take(batch, collection, name)) is not None:
                    wanted.setdefault(freshness, []).append(collection)
            for freshness, readers in wanted.items():
                awaited = freshness is Freshness.GONE or (freshness is Freshness.DUE and batch.refreshing)
                critical = awaited and self._specs[name].tier == most_important
                batch.waiting += len(readers) if awaited else 0
                batch.waiting_critical += len(readers) if critical else 0
                landings = self._ask(batch, name, readers, awaited=awaited, critical=critical)
                if freshness is Freshness.STALE:
                    stale += landings
        return stale

    def _take(self, batch: Batch, collection: Collecting, name: str) -> Freshness | None:
        """Answer from the record at hand if it will do; how good it is if it has to be fetched anew."""
        found = self._found(batch, collection, name)
        record = found.records.get(name)
        if record is None:
            if name in found.fallbacks:
                self._metrics.count("context_refreshes_total", reason="expired")
            return Freshness.GONE
        freshness = self._freshener.judge(record, self._specs[name])
        if freshness <= Freshness.DUE and batch.need.met_by(record):
            collection.answers[name] = self._answer(name, record, found.tiers.get(name, ServedFrom.L1))
            if freshness is Freshness.FRESH:
                return None
            self._metrics.count("context_refreshes_total", reason="early")
            return freshness
        if freshness is Freshness.STALE and not batch.need.demanding:
            tier = found.tiers.get(name, ServedFrom.L1)
            collection.answers[name] = self._answer(name, record, tier, stale="being fetched anew")
            self._metrics.count("context_refreshes_total", reason="stale")
            return freshness
        self._metrics.count("context_refreshes_total", reason="expired")
        return Freshness.GONE

    def _ask(
        self, batch: Batch, name: str, readers: Sequence[Collecting], *, awaited: bool, critical: bool
    ) -> list[asyncio.Future[Landing]]:
        found = {one.customer_id: one.found for one in readers}
        found[EVERYONE] = batch.everyone
        keys = dict.fromkeys(self._sections.key(name, one.customer_id) for one in readers)
        landings = self._fetches.ask(name, keys, batch.need, found)
        for one in readers:
            landing = landings[self._sections.key(name, one.customer_id)]
            landing.add_done_callback(partial(self._landed, batch, one, name, awaited, critical))
        return list(landings.values())

    def _landed(
        self,
        batch: Batch,
        collection: Collecting,
        name: str,
        awaited: bool,
        critical: bool,
        landing: asyncio.Future[Landing],
    ) -> None:
        if landing.cancelled():
            batch.done.cancel()
            return
        landed = landing.result()
        if isinstance(landed, SectionRecord):
            stale = ""
            if not batch.need.met_by(landed) or self._freshener.judge(landed, self._specs[name]) > Freshness.DUE:
                stale = "made from data that is out of date"
            collection.answers[name] = self._answer(name, landed, ServedFrom.ORIGIN, stale=stale)
        elif landed.unknown:
            batch.unknown += not collection.unknown
            collection.unknown = True
        else:
            collection.answers[name] = self.stand_in(batch, collection, name, landed)
        batch.waiting -= awaited
        batch.waiting_critical -= critical
        batch.progress()

    def _lacking(self, batch: Batch, found: Found, scope: Scope) -> bool:
        """Whether something shown is not at hand, fresh enough for this batch."""
        worst = Freshness.FRESH if batch.refreshing else Freshness.DUE
        for name in batch.names:
            if self._specs[name].scope is not scope:
                continue
            record = found.records.get(name)
            if (
                record is None
                or not batch.need.met_by(record)
                or self._freshener.judge(record, self._specs[name]) > worst
            ):
                return True
        return False

    def _count_l2(self, batch: Batch, found: Found) -> None:
        some = ServedFrom.L2 in found.tiers.values()
        result = "miss" if not some else "stale" if self._lacking(batch, found, Scope.CUSTOMER) else "hit"
        self._metrics.count("context_cache_requests_total", tier="l2", result=result)

    def _found(self, batch: Batch, collection: Collecting, name: str) -> Found:
        return batch.everyone if self._specs[name].scope is Scope.EVERYONE else collection.found

    def _answer(self, name: str, record: SectionRecord, tier: ServedFrom, *, stale: str = "") -> Answer:
        state = ProviderState.MISSING if record.section is None else ProviderState.FRESH
        outcome = self._outcome(name, ProviderState.STALE if stale else state, record=record, detail=stale)
        return Answer(outcome, record.section, tier, record)

    def _outcome(
        self, name: str, state: ProviderState, *, record: SectionRecord | None = None, detail: str = ""
    ) -> ProviderOutcome:
        spec = self._specs[name]
        return ProviderOutcome(
            provider=name,
            section=spec.section,
            state=state,
            source=spec.source,
            as_of=None if record is None else _EPOCH + timedelta(milliseconds=record.as_of_ms),
            latency_ms=0.0 if record is None else record.latency_ms,
            detail=detail,
        )

    def _closure(self, name: str) -> frozenset[str]:
        return frozenset((name,)).union(*(self._closure(needed) for needed in self._specs[name].depends_on))
