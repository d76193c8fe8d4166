"""Simulated traffic on two replicas: hit rate by tier, staleness, and what it costs in processor time.

Everything about the traffic is simulated: customers are drawn by Zipf's law, requests come independently of each other
at a steady rate, and 2 % of them are changes: a login, which goes through `SqlEvents` and the outbox as it does behind
`POST /api/v1/events`. Time is not: times to live, rate and duration are real seconds. Both replicas are processes with
an orchestrator each, over one Redis and one SQLite file; there is no HTTP between them and the traffic. The same
requests are played twice on a fresh copy of all: with the reads of a customer on one replica, and on either at random.

A login shows in the content of a later read as its `last_login_at`, so every read says which logins it has seen. A
read is stale when it lacks one that was committed before the read began; its lag is the age of the oldest such commit.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
import zlib
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path

import psutil

from bench.company import kept_folder, sqlite_company
from bench.graph import ROOT
from models.enrichment.events import Event, EventType, ProductActivity
from models.enrichment.types import ContextRequest, ServedFrom
from models.errors import RapportError
from models.resilience.deadline import Deadline
from models.settings import ContextSettings
from providers.context_service import build_orchestrator, load_views
from providers.database import Database
from providers.systems.events import SqlEvents
from providers.systems.relay import ContextChangeRelay
from tests.fakes.redis_server import RedisServer

REPLICAS = 2
EXPONENT = 1.1
CHANGES = 0.02
AGENT = "support"
#: A change must show this long after its commit.
BOUND_S = 1.0
DEADLINE_S = 2.0
#: What the extrapolation assumes a core to cost.
USD_PER_CORE_HOUR = 0.04
_LAST_LOGIN = b'"last_login_at":"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What both replicas play; they know the same plan, and each does its own part."""

    customers: int
    rate: float
    seconds: float
    warm_s: float
    affinity: bool
    url: str
    redis_url: str
    begin_at: float


@dataclass(slots=True)
class Played:
    """What one replica did after the warm-up, but for `changes`, which are all of them. Times are those of the clock.

    `reads` are (customer, begun, last login shown), `changes` (customer, login, committed). `sections` counts by tier
    where sections came from, `served` where the furthest section of a read did.
    """

    reads: list[tuple[int, float, float]] = field(default_factory=list)
    changes: list[tuple[int, float, float]] = field(default_factory=list)
    served: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    sections: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    late: list[float] = field(default_factory=list)
    partial: int = 0
    errors: int = 0
    processor_s: float = 0.0


def requests(plan: Plan) -> Iterator[tuple[float, int, bool, int]]:
    """Of every request: seconds from the beginning, customer, whether it is a change, and the replica that gets it.

    Customers are named in random order, so that the popular ones are not those that the demo made first.
    """
    chance = random.Random(5)
    names = list(range(1, plan.customers + 1))
    chance.shuffle(names)
    weights = list(accumulate(rank**-EXPONENT for rank in range(1, plan.customers + 1)))
    at = 0.0
    while (at := at + chance.expovariate(plan.rate)) < plan.seconds:
        customer = names[bisect(weights, chance.random() * weights[-1])]
        changes, anywhere = chance.random() < CHANGES, chance.randrange(REPLICAS)
        own = zlib.crc32(str(customer).encode()) % REPLICAS
        yield at, customer, changes, own if plan.affinity and not changes else anywhere


async def play(plan: Plan, replica: int) -> Played:
    """This replica's part of the plan."""
    mine = [one[:3] for one in requests(plan) if one[3] == replica]
    played = Played()
    database = Database(plan.url)
    settings = ContextSettings()
    ours = build_orchestrator(database, settings=settings, views=load_views(settings), redis_url=plan.redis_url)
    relay = ContextChangeRelay(database, ours.invalidate)
    events = SqlEvents(database)
    ours.start()
    relay.start()

    async def change(customer: int) -> None:
        at = time.time()
        fact = ProductActivity(contact_id="con_bench", name="login", feature=None, quantity=1)
        told = datetime.fromtimestamp(at, UTC)
        event = Event(type=EventType.PRODUCT_ACTIVITY, at=told, customer_id=f"customer_{customer}", fact=fact)
        await events.accept([event])
        played.changes.append((customer, told.timestamp(), time.time()))
        await relay.deliver()

    async def read(customer: int, due: float, counts: bool) -> None:
        began = time.time()
        request = ContextRequest(agent_type=AGENT, deadline=Deadline.after(DEADLINE_S))
        reading = await ours.read(f"customer_{customer}", request)
        if not counts:
            return
        played.late.append(time.time() - due)
        played.served[reading.served_from] += 1
        played.partial += not reading.complete
        for tier in ServedFrom:
            # One more stands at the end, of the whole.
            named = reading.body.count(b'"served_from":"%b"' % tier.value.encode())
            played.sections[tier] += named - (tier is reading.served_from)
        if (place := reading.body.find(_LAST_LOGIN)) >= 0:
            start = place + len(_LAST_LOGIN)
            shown = datetime.fromisoformat(reading.body[start : reading.body.index(b'"', start)].decode())
            played.reads.append((customer, began, shown.timestamp()))
        else:
            played.reads.append((customer, began, 0.0 if b'"engagement_metrics":{' in reading.body else -1.0))

    async def guarded(at: float, customer: int, changes: bool) -> None:
        try:
            await (change(customer) if changes else read(customer, plan.begin_at + at, at >= plan.warm_s))
        except RapportError:
            played.errors += 1

    warmed_s: float | None = None
    async with asyncio.TaskGroup() as group:
        for at, customer, changes in mine:
            await asyncio.sleep(max(0.0, plan.begin_at + at - time.time()))
            if warmed_s is None and at >= plan.warm_s:
                warmed_s = time.process_time()
            group.create_task(guarded(at, customer, changes))
    played.processor_s = time.process_time() - (warmed_s or 0.0)
    await relay.close()
    await ours.close()
    await database.close()
    return played


def staleness(parts: list[Played]) -> tuple[int, int, float]:
    """Reads that lacked a committed change, those that lacked one for longer than the bound, and the longest lag."""
    changes: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for part in parts:
        for customer, login, committed in part.changes:
            changes[customer].append((committed, login))
    lags = []
    for part in parts:
        for customer, began, shown in part.reads:
            # A login older than one that is shown cannot be told from it; half a microsecond is rounding.
            unseen = [
                committed for committed, login in changes[customer] if committed <= began and login > shown + 1e-6
            ]
            if unseen and shown >= 0:
                lags.append(began - min(unseen))
    return len(lags), sum(lag > BOUND_S for lag in lags), max(lags, default=0.0)


def run(plan: Plan) -> list[Played]:
    """Both replicas at the same time."""
    command = [sys.executable, "-m", "bench.context_traffic"]
    children = [
        subprocess.Popen([*command, str(replica)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for replica in range(REPLICAS)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write(pickle.dumps(plan))
        child.stdin.close()
    found = []
    for child in children:
        assert child.stdout is not None
        found.append(child.stdout.read())
        if child.wait():
            raise RuntimeError(f"a replica failed with status {child.returncode}")
    return [pickle.loads(one) for one in found]  # noqa: S301  # of our own children


def compare(seeded: Path, customers: int, rate: float, seconds: float, warm_s: float) -> None:
    """Print both tables."""
    hits, costs = [], []
    for affinity in (True, False):
        with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as folder:
            copy = Path(folder) / "rapport.db"
            with sqlite3.connect(seeded) as source, sqlite3.connect(copy) as target:
                source.backup(target)
            redis = RedisServer()
            plan = Plan(
                customers=customers,
                rate=rate,
                seconds=seconds,
                warm_s=warm_s,
                affinity=affinity,
                url=f"sqlite+aiosqlite:///{copy}",
                redis_url=redis.url,
                begin_at=time.time() + 10.0,  # both replicas have started by then
            )
            parts = run(plan)
            redis_s = sum(psutil.Process(redis.process.pid).cpu_times()[:2])
            redis.stop()
        name = "one replica a customer" if affinity else "either replica"
        hits.append(hit_row(name, parts))
        costs.append(cost_row(name, parts, redis_s * (seconds - warm_s) / seconds, seconds - warm_s))
    print("\n".join([HEADER, *hits, "", COST_HEADER, *costs]), flush=True)


def hit_row(name: str, parts: list[Played]) -> str:
    reads = sum(len(part.reads) for part in parts)
    served = {tier: sum(part.served[tier] for part in parts) for tier in ServedFrom}
    sections = {tier: sum(part.sections[tier] for part in parts) for tier in ServedFrom}
    stale, too_stale, longest_s = staleness(parts)
    cells = [name, str(reads)]
    cells += [f"{served[tier] / reads:.1%}" for tier in ServedFrom]
    cells += [f"{sections[tier] / sum(sections.values()):.1%}" for tier in ServedFrom]
    cells += [str(sum(len(part.changes) for part in parts)), str(stale), str(too_stale), f"{longest_s * 1e3:.0f}"]
    cells += [str(sum(part.partial for part in parts)), str(sum(part.errors for part in parts))]
    return f"| {' | '.join(cells)} |"


def cost_row(name: str, parts: list[Played], redis_s: float, seconds: float) -> str:
    reads = sum(len(part.reads) for part in parts)
    late = sorted(lateness for part in parts for lateness in part.late)
    each = [sum(part.processor_s for part in parts) / reads, redis_s / reads]
    cores = 10_000 * sum(each)
    cells = [name, f"{reads / seconds:.0f}", *(f"{one * 1e3:.2f}" for one in each)]
    cells += [f"{late[len(late) // 2] * 1e3:.1f}", f"{late[int(len(late) * 0.99)] * 1e3:.1f}"]
    cells += [f"{1 / sum(each):.0f}", f"{cores:.0f}", f"{cores * USD_PER_CORE_HOUR:.2f}"]
    return f"| {' | '.join(cells)} |"


HEADER = """| reads go to | reads | whole answer from L1 | L2 | a provider | sections from L1 | L2 | a provider \
| changes | stale reads | of these past 1 s | longest lag ms | partial or shown as stale | errors |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"""
COST_HEADER = """| reads go to | reads/s | processor s per 1,000 reads, replicas | Redis | p50 ms | p99 ms \
| reads/s a core | cores at 10,000 req/s | USD an hour |
|---|---|---|---|---|---|---|---|---|"""


def measure(customers: int, seconds: float, rate: float, keep: Path | None) -> None:
    """Print the tables of `bench/README.md`; the first third of each run warms up and is not counted."""
    with kept_folder(keep) as folder:
        sqlite_company(folder, customers)
        print(
            f"\nSimulated traffic: Zipf {EXPONENT} over {customers:,} customers, {rate:.0f} requests/s for "
            f"{seconds:.0f} s (counted after {seconds / 3:.0f} s), {CHANGES:.0%} changes, {REPLICAS} replicas, agent "
            f"type {AGENT}, times to live as configured by default\n"
        )
        compare(folder / "rapport.db", customers, rate, seconds, seconds / 3)


def child(replica: int) -> None:
    logging.disable(logging.WARNING)  # a provider that is late is in the table
    plan: Plan = pickle.loads(sys.stdin.buffer.read())  # noqa: S301  # of our own parent
    sys.stdout.buffer.write(pickle.dumps(asyncio.run(play(plan, replica))))


if __name__ == "__main__":
    # By its importable name: what is pickled must not stand in `__main__`.
    from bench import context_traffic

    context_traffic.child(int(sys.argv[1]))
