"""The section records of customers: looked up in both tiers of the cache, kept in both, forgotten in both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from models.enrichment.cache import CustomerEntry, TieredCache
from models.enrichment.dependencies import tags_of
from models.enrichment.encoding import StoredContext
from models.enrichment.generations import Change, Generations, Shelf, Write
from models.enrichment.guards import Landing
from models.enrichment.policy import MAX_SKEW_MS, Freshener, Freshness
from models.enrichment.records import SectionRecord, pack, unpack
from models.enrichment.types import ProviderSpec, Scope, ServedFrom

#: Where the sections that are about everyone are kept; no customer id looks like this.
EVERYONE = "*"
#: Under this name a shelf notes that there is no such customer.
_UNKNOWN = ":unknown"


@dataclass(slots=True, eq=False)
class Found:
    """What is at hand of one customer for one read.

    `records` may be used as fresh as they are, `fallbacks` only when their provider fails. `tiers` says where a record
    comes from, `landed` what became of asking for more. Without `generations` nothing fetched for this read may be
    written to the shared tier.
    """

    records: dict[str, SectionRecord] = field(default_factory=dict)
    fallbacks: dict[str, SectionRecord] = field(default_factory=dict)
    tiers: dict[str, ServedFrom] = field(default_factory=dict)
    landed: dict[str, Landing] = field(default_factory=dict)
    generations: Generations | None = None
    unknown_s: float = 0.0

    @property
    def unknown(self) -> bool:
        """Whether there is known to be no such customer, for `unknown_s` more."""
        return self.unknown_s > 0


class Sections:
    """All records of one process. Without a cache nothing is found and nothing is kept.

    `on_outdated` is called with the key of a customer whose data changed unheard, which a refused write tells.
    """

    def __init__(
        self,
        specs: Mapping[str, ProviderSpec],
        freshener: Freshener,
        cache: TieredCache | None,
        *,
        on_outdated: Callable[[str], None],
    ) -> None:
        self._specs = specs
        self._tags = tags_of(specs)
        #: All there are.
        self.tags = frozenset[str]().union(*self._tags.values())
        self._freshener = freshener
        self._cache = cache
        self._on_outdated = on_outdated
        self._retention_s = max((freshener.retention_s(spec) for spec in specs.values()), default=0.0)

    def key(self, name: str, customer_id: str) -> str:
        """Where this provider's record of this customer is kept."""
        return EVERYONE if self._specs[name].scope is Scope.EVERYONE else customer_id

    def at_hand(self, key: str) -> Found:
        """What L1 has. A record that L2 should confirm first is a fallback, as long as L2 can be asked."""
        entry = None if self._cache is None else self._cache.l1.peek(key)
        if entry is None:
            return Found()
        now = self._freshener.clock()
        found = Found(unknown_s=max(0.0, entry.unknown_until - now))
        ask_again = self._cache is not None and self._cache.shared
        for name, record in entry.records.items():
            kept = found.fallbacks if ask_again and now >= record.confirmed_until else found.records
            kept[name] = record
        found.tiers = dict.fromkeys(found.records, ServedFrom.L1)
        return found

    @property
    def shared(self) -> bool:
        """Whether looking further than L1 makes sense now."""
        return self._cache is not None and self._cache.shared

    async def look_up(self, keys: Sequence[str]) -> dict[str, Found] | None:
        """What both tiers have, L2 having the last word; `None` when L2 cannot be asked."""
        if self._cache is None:
            return None
        shelves = await self._cache.load(keys)
        if shelves is None:
            return None
        return {key: self._merge(self.at_hand(key), shelf) for key, shelf in zip(keys, shelves, strict=True)}

    def promote(self, key: str, found: Found) -> None:
        """Keep in L1 what was found in L2."""
        fresh = {name: found.records[name] for name, tier in found.tiers.items() if tier is ServedFrom.L2}
        if fresh or found.unknown:
            entry = self.entry(key)
            entry.records.update(fresh)
            if found.unknown:
                entry.unknown_until = self._freshener.clock() + found.unknown_s

    def entry(self, key: str) -> CustomerEntry:
        """The customer's entry in L1, made if need be."""
        if self._cache is None:
            return CustomerEntry()
        now = self._freshener.clock()
        entry = self._cache.l1.peek(key)
        if entry is None or now - entry.kept_at >= self._freshener.policy.l1_ttl_s:
            entry = entry or CustomerEntry()
            entry.kept_at = now
            self._cache.l1.keep(key, entry, ttl_s=self._retention_s)
        return entry

    def keep(self, key: str, name: str, record: SectionRecord, generations: Generations | None) -> None:
        """Keep in L1 at once and in L2 soon; contexts made without this record go."""
        if self._cache is None:
            return
        if self._cache.shared:
            confirmed_until = self._freshener.clock() + self._freshener.policy.l1_ttl_s
            record = replace(record, confirmed_until=confirmed_until)
        entry = self.entry(key)
        entry.records[name] = record
        entry.contexts.clear()
        if generations is not None:
            self._save(key, name, pack(record, generations.stamp(self._tags[name])), generations)

    def context(self, customer_id: str, view: str) -> StoredContext | None:
        """The encoded context for this view that is in memory; never waits."""
        if self._cache is None:
            return None
        entry = self._cache.l1.peek(customer_id)
        return None if entry is None else entry.contexts.get(view)

    def have_newer(self, customer_id: str, used: Mapping[str, SectionRecord | None]) -> bool:
        """Whether of one of these providers something else is in memory by now than what was used."""
        if self._cache is None:
            return False
        for name, record in used.items():
            entry = self._cache.l1.peek(self.key(name, customer_id))
            kept = None if entry is None else entry.records.get(name)
            if kept is None:
                continue
            if record is None:
                if self._freshener.judge(kept, self._specs[name]) is not Freshness.GONE:
                    return True
            elif kept.as_of_ms != record.as_of_ms or kept.section != record.section:
                return True
        return False

    def keep_context(
        self, customer_id: str, view: str, context: StoredContext, generations: Generations | None
    ) -> None:
        """Keep an encoded context in memory; who has one is not unknown, which the shared tier is told if need be."""
        entry = self.entry(customer_id)
        if entry.unknown_until > self._freshener.clock() and generations is not None:
            self._save_unknown(customer_id, 0.0, generations)
        entry.unknown_until = float("-inf")
        entry.keep_context(view, context)

    def keep_unknown(self, key: str, generations: Generations | None) -> None:
        """Remember for a while that there is no such customer."""
        ttl_s = self._freshener.policy.unknown_ttl_s
        if self._cache is None or ttl_s <= 0:
            return
        self.entry(key).unknown_until = self._freshener.clock() + ttl_s
        if generations is not None:
            self._save_unknown(key, ttl_s, generations)

    def forget(self, change: Change) -> None:
        """Drop from L1 what the change outdates."""
        if self._cache is None:
            return
        if not change.tags:
            self._cache.l1.drop(*change.customer_ids)
            return
        entries = (
            [entry for key in change.customer_ids if (entry := self._cache.l1.peek(key)) is not None]
            if change.customer_ids
            else self._cache.l1.values()
        )
        outdated = self.outdated_by(change)
        for entry in entries:
            entry.contexts.clear()
            if change.customer_ids:
                entry.unknown_until = float("-inf")
            for name in outdated & entry.records.keys():
                del entry.records[name]

    def forget_all(self) -> None:
        if self._cache is not None:
            self._cache.l1.clear()

    def outdated_by(self, change: Change) -> frozenset[str]:
        """The providers whose sections the change is about."""
        if not change.tags:
            return frozenset(self._specs)
        return frozenset(name for name, tags in self._tags.items() if not tags.isdisjoint(change.tags))

    def _merge(self, found: Found, shelf: Shelf) -> Found:
        now_ms, now = self._freshener.now_ms(), self._freshener.clock()
        generations = shelf.generations
        if generations is None:
            return found
        loaded: dict[str, SectionRecord] = {}
        for name, data in shelf.values.items():
            if name in self._specs:
                record = unpack(
                    self._specs[name].section,
                    data,
                    stamp=generations.stamp(self._tags[name]),
                    now_ms=now_ms,
                    clock_s=now,
                    confirm_s=self._freshener.policy.l1_ttl_s,
                )
                if record is not None:
                    loaded[name] = record
        found.generations = generations
        for name, record in loaded.items():
            mine = found.records.get(name) or found.fallbacks.get(name)
            if mine is not None and mine.as_of_ms > record.as_of_ms and name in found.records:
                continue  # fetched here a moment ago, and on its way to L2
            found.records[name], found.tiers[name] = record, ServedFrom.L2
        found.unknown_s = max(found.unknown_s, self._unknown_s(shelf, generations))
        return found

    def _unknown_s(self, shelf: Shelf, generations: Generations) -> float:
        """For how many seconds more the shelf says that there is no such customer."""
        data = shelf.values.get(_UNKNOWN)
        if data is None:
            return 0.0
        now_ms = self._freshener.now_ms()
        record = unpack("", data, stamp=generations.stamp(()), now_ms=now_ms, clock_s=0.0, confirm_s=0.0)
        if record is None or record.as_of_ms > now_ms + MAX_SKEW_MS:
            return 0.0
        return (record.as_of_ms + record.fresh_ms - now_ms) / 1000

    def _save_unknown(self, key: str, ttl_s: float, generations: Generations) -> None:
        now_ms, now = self._freshener.now_ms(), self._freshener.clock()
        record = SectionRecord(section=None, as_of_ms=now_ms, fresh_ms=int(ttl_s * 1000), latency_ms=0.0, read_at=now)
        self._save(key, _UNKNOWN, pack(record, generations.stamp(())), generations)

    def _save(self, key: str, name: str, value: bytes, generations: Generations) -> None:
        assert self._cache is not None  # noqa: S101
        write = Write(key=key, values={name: value}, generations=generations, ttl_s=self._retention_s)
        self._cache.save(write, refused=lambda: self._on_outdated(key))
