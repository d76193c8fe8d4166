"""What a read costs that finds nothing in any cache: all providers on the database, beside the bare driver.

Alone: `ContextOrchestrator.read` of one random customer at a time, without a cache, and the statements that each
provider sends for one customer on a bare connection (sqlite3, asyncpg), one after the other; the sides take turns.
Under load: a closed loop at rising concurrency finds the highest rate, then independent callers come at 80 % of it.
Their times count from when they were due, in the same process as the reads they cause.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import Connection, make_url

from bench.company import kept_folder, postgresql_company, sqlite_company
from bench.load import percentile
from models.clock import utc_now
from models.enrichment.masking import FREE_TEXT_RULE, Mask, RuleSet
from models.enrichment.orchestrator import ContextOrchestrator
from models.enrichment.selection import AgentView, AgentViews
from models.enrichment.types import PERSONAL_FIELDS, ContextRequest, Scope
from models.resilience.deadline import Deadline
from providers.base import ProviderResources, SqlProvider
from providers.database import Database
from providers.external.company import VENDORS
from providers.registry import BUILT_IN, build_providers
from providers.systems.context_history import SqlContextHistory

ROUNDS = 10
READS = 40
CONCURRENCY = (1, 2, 4, 8, 16, 32)
#: Of the highest rate.
LOAD = 0.8
AGENT = "everything"
TEMPLATE = "customer_1"

#: A statement and its parameters, as a driver takes them.
Statement = tuple[str, tuple[Any, ...]]
#: Runs one statement on a bare connection and fetches every row.
Run = Callable[[str, Sequence[Any]], Awaitable[object]]


class Recorder:
    """A connection that notes what goes through its cursors to the driver."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.dialect = connection.dialect
        self.statements: list[Statement] = []

    @property
    def connection(self) -> Recorder:
        return self

    def cursor(self) -> _NotingCursor:
        return _NotingCursor(self._connection.connection.cursor(), self.statements)


@dataclass(frozen=True, slots=True)
class _NotingCursor:
    cursor: Any
    statements: list[Statement]

    def execute(self, sql: str, values: tuple[Any, ...]) -> None:
        self.statements.append((sql, values))
        self.cursor.execute(sql, values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cursor, name)


@dataclass(slots=True)
class Times:
    """Seconds: of whole reads, of the processor they used, and of each provider's statements on the bare driver."""

    reads: list[float] = field(default_factory=list)
    processor_s: float = 0.0
    bare: dict[str, list[float]] = field(default_factory=dict)

    def clear(self) -> None:
        self.reads.clear()
        self.processor_s = 0.0
        for listed in self.bare.values():
            listed.clear()


def database_providers(database: Database) -> list[SqlProvider[Any]]:
    """Every provider whose source is the database."""
    names = [name for name in BUILT_IN if name not in VENDORS]  # which are not built without a key
    built = build_providers(ProviderResources(database=database), names)
    return [one for one in built if isinstance(one, SqlProvider) and one.spec.source == "database"]


def orchestrator(database: Database, providers: Sequence[SqlProvider[Any]], *, history: bool) -> ContextOrchestrator:
    """One agent type sees everything, all of it masked; nothing is cached."""
    rules = RuleSet(dict.fromkeys((*PERSONAL_FIELDS, FREE_TEXT_RULE), Mask.REDACT))
    view = AgentView(agent_type=AGENT, providers=tuple(one.spec.name for one in providers), rules=rules)
    kept = SqlContextHistory(database) if history else None
    return ContextOrchestrator(providers, views=AgentViews([view], default=AGENT), history=kept)


async def statements(database: Database, providers: Sequence[SqlProvider[Any]]) -> dict[str, list[Statement]]:
    """What each provider sends for one customer; that customer's id stands in the parameters."""
    found: dict[str, list[Statement]] = {}
    for provider in providers:

        def record(connection: Connection, provider: SqlProvider[Any] = provider) -> list[Statement]:
            recorder: Any = Recorder(connection)
            provider.load(recorder, (TEMPLATE,), utc_now())
            noted: list[Statement] = recorder.statements
            return noted

        found[provider.spec.name] = await database.read(record)
        if not found[provider.spec.name]:
            raise RuntimeError(f"{provider.spec.name} went around its connection")
    return found


@asynccontextmanager
async def bare_driver(url: str) -> AsyncIterator[Run]:
    """One connection of the driver alone; sqlite3 answers in place, as nothing is cheaper."""
    parsed = make_url(url)
    if parsed.drivername.startswith("sqlite"):
        file = sqlite3.connect(f"file:{parsed.database}?mode=ro", uri=True, isolation_level=None)

        async def ask(sql: str, values: Sequence[Any]) -> object:
            return file.execute(sql, values).fetchall()

        yield ask
        file.close()
    else:
        server = await asyncpg.connect(parsed.set(drivername="postgresql").render_as_string(hide_password=False))

        async def fetch(sql: str, values: Sequence[Any]) -> object:
            return await server.fetch(sql, *values)

        yield fetch
        await server.close()


async def read(ours: ContextOrchestrator, customer: str) -> bool:
    """One read; whether it was complete."""
    reading = await ours.read(customer, ContextRequest(agent_type=AGENT, deadline=Deadline.after(10.0)))
    return reading.complete


async def alone(url: str, customers: int, chance: random.Random) -> tuple[Times, frozenset[str]]:
    """Rounds of reads and of bare statements, each for random customers; the side that begins alternates.

    Also which providers are about everyone.
    """
    database = Database(url)
    providers = database_providers(database)
    ours = orchestrator(database, providers, history=False)
    sent = await statements(database, providers)
    times = Times(bare={name: [] for name in sent})

    async def bare_round(run: Run) -> None:
        for _ in range(READS):
            customer = f"customer_{chance.randint(1, customers)}"
            for name, listed in sent.items():
                bound = [(sql, tuple(customer if v == TEMPLATE else v for v in values)) for sql, values in listed]
                started = time.perf_counter()
                for sql, values in bound:
                    await run(sql, values)
                times.bare[name].append(time.perf_counter() - started)

    async def read_round() -> None:
        began = time.process_time()
        for _ in range(READS):
            customer = f"customer_{chance.randint(1, customers)}"
            started = time.perf_counter()
            if not await read(ours, customer):
                raise RuntimeError("a provider did not answer")
            times.reads.append(time.perf_counter() - started)
        times.processor_s += time.process_time() - began

    async with bare_driver(url) as run:
        for number in range(-1, ROUNDS):
            if number == 0:  # the round before was to warm up
                times.clear()
            sides = (bare_round(run), read_round()) if number % 2 else (read_round(), bare_round(run))
            for side in sides:
                await side
    await ours.close()
    await database.close()
    return times, frozenset(one.spec.name for one in providers if one.spec.scope is Scope.EVERYONE)


async def closed_loop(ours: ContextOrchestrator, customers: int, callers: int, seconds: float) -> float:
    """Complete reads a second of so many callers, each of whom reads again when answered."""
    count = 0
    stop_at = time.perf_counter() + seconds

    async def caller(chance: random.Random) -> None:
        nonlocal count
        while time.perf_counter() < stop_at:
            count += await read(ours, f"customer_{chance.randint(1, customers)}")

    started = time.perf_counter()
    await asyncio.gather(*(caller(random.Random(seed)) for seed in range(callers)))
    return count / (time.perf_counter() - started)


async def open_loop(
    ours: ContextOrchestrator, customers: int, rate: float, seconds: float, chance: random.Random
) -> tuple[list[float], int]:
    """Seconds from when each read was due until it was answered, sorted, and how many were not complete."""
    times: list[float] = []
    partial = 0

    async def one(due: float) -> None:
        nonlocal partial
        partial += not await read(ours, f"customer_{chance.randint(1, customers)}")
        times.append(time.perf_counter() - due)

    due = started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        while (due := due + chance.expovariate(rate)) < started + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(due))
    return sorted(times), partial


async def under_load(url: str, customers: int, seconds: float, *, history: bool) -> str:
    """One line of the second table."""
    database = Database(url)
    providers = database_providers(database)
    rates: dict[int, float] = {}
    for callers in CONCURRENCY:
        ours = orchestrator(database, providers, history=history)  # whose breakers know nothing of the run before
        await closed_loop(ours, customers, callers, 0.5)
        rates[callers] = await closed_loop(ours, customers, callers, seconds / 5)
        await ours.close()
    callers = max(rates, key=rates.__getitem__)
    ours = orchestrator(database, providers, history=history)
    times, partial = await open_loop(ours, customers, LOAD * rates[callers], seconds, random.Random(11))
    await ours.close()
    await database.close()
    cells = [f"{rates[callers]:.0f}", str(callers), f"{LOAD * rates[callers]:.0f}", str(len(times)), str(partial)]
    cells += [f"{percentile(times, share) * 1e3:.1f}" for share in (0.50, 0.95, 0.99)]
    return " | ".join(cells)


def describe(name: str, times: Times, everyone: frozenset[str]) -> None:
    """Print how one read alone compares with the bare driver; `everyone` are the providers not about one customer."""
    p50 = {provider: statistics.median(listed) for provider, listed in times.bare.items()}
    slowest = max(p50, key=p50.__getitem__)
    slowest_own = max(p50.keys() - everyone, key=p50.__getitem__)
    sides = {
        f"slowest provider ({slowest})": times.bare[slowest],
        f"slowest about one customer ({slowest_own})": times.bare[slowest_own],
        "all providers, one by one": [sum(one) for one in zip(*times.bare.values(), strict=True)],
    }
    reads = sorted(times.reads)
    for side, bare in sides.items():
        cells = [name, f"{times.processor_s / len(reads) * 1e3:.2f}", _ms(reads, 0.50), _ms(reads, 0.95)]
        cells += [side, _ms(sorted(bare), 0.50), _ms(sorted(bare), 0.95)]
        cells += [_by_round(times.reads, bare, 0.50), _by_round(times.reads, bare, 0.95)]
        print(f"| {' | '.join(cells)} |", flush=True)


def _ms(ordered: list[float], share: float) -> str:
    return f"{percentile(ordered, share) * 1e3:.2f}"


def _by_round(ours: list[float], bare: list[float], share: float) -> str:
    """The median over rounds of the ratio of both sides' percentiles."""
    ratios = []
    for first in range(0, len(ours), READS):
        pair = [percentile(sorted(side[first : first + READS]), share) for side in (ours, bare)]
        ratios.append(pair[0] / pair[1])
    return f"{statistics.median(ratios):.2f}"


HEADER = """| database | processor ms a read | read p50 ms | p95 | beside, on the bare driver | p50 ms | p95 \
| ratio p50 | ratio p95 |
|---|---|---|---|---|---|---|---|---|"""
LOAD_HEADER = """| database | history | most reads/s | at callers | then reads/s | reads | partial | p50 ms | p95 \
| p99 |
|---|---|---|---|---|---|---|---|---|---|"""


def measure(customers: int, seconds: float, keep: Path | None) -> None:
    """Print the tables of `bench/README.md`; `seconds` is the length of the open-loop run."""
    logging.disable(logging.WARNING)  # a provider that is late under load is in the table
    with kept_folder(keep) as folder, ExitStack() as stack:
        urls = {
            "SQLite": sqlite_company(folder, customers),
            "PostgreSQL": stack.enter_context(postgresql_company(folder, customers)),
        }
        print(f"\n{customers:,} customers, {ROUNDS} rounds of {READS} reads, nothing cached\n\n{HEADER}")
        for name, url in urls.items():
            times, everyone = asyncio.run(alone(url, customers, random.Random(7)))
            describe(name, times, everyone)
        print(f"\nCallers at {LOAD:.0%} of the highest rate for {seconds:.0f} s\n\n{LOAD_HEADER}")
        for name, url in urls.items():
            for history in (False, True):
                row = asyncio.run(under_load(url, customers, seconds, history=history))
                print(f"| {name} | {'kept' if history else 'off'} | {row} |", flush=True)
