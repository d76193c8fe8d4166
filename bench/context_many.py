"""Many customers at once: `context:read`, reads while providers hang, and the memory of an entry in L1.

Each part runs in a process of its own. A replica that has everything in L1, one that starts beside a filled Redis, and
one that finds nothing anywhere read the same 1,000 customers in one call, in process; over HTTP the same call goes
through the ingress to the enrichment replica of the running system. Hung providers are fakes that never answer, among
fakes that do after a few milliseconds.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import random
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil

from bench.company import kept_folder, sqlite_company
from bench.graph import JSON, ROOT, drive, running_system
from bench.load import percentile
from models.enrichment.cache import LRUCache, TieredCache
from models.enrichment.orchestrator import ContextOrchestrator
from models.enrichment.policy import CachePolicy
from models.enrichment.selection import AgentViews
from models.enrichment.types import ContextRequest, Section
from models.resilience.deadline import Deadline
from models.settings import ContextSettings
from providers.context_service import build_orchestrator, load_views
from providers.database import Database
from tests.fakes.enrichment import FakeProvider, all_providers
from tests.fakes.redis_server import RedisServer

AGENT = "support"
TOGETHER = 1000
ROUNDS = 5
CALLS = 5
#: Room for everybody: by default L1 keeps 1,000 customers in all.
ENTRIES = 20_000

READS = 2000
CONCURRENCY = 50
DEADLINES_S = (0.05, 0.25)
#: Never answer.
HUNG = ("support_history", "feature_usage", "churn_prediction")
ANSWER_S = (0.001, 0.005)


def request(seconds: float = 60.0) -> ContextRequest:
    return ContextRequest(agent_type=AGENT, deadline=Deadline.after(seconds))


@asynccontextmanager
async def replica(url: str, redis_url: str) -> AsyncIterator[ContextOrchestrator]:
    """An orchestrator as the enrichment deployment has one."""
    settings = ContextSettings(l1_entries=ENTRIES)
    database = Database(url)
    made = build_orchestrator(database, settings=settings, views=load_views(settings), redis_url=redis_url)
    made.start()
    try:
        yield made
    finally:
        await made.close()
        await database.close()


async def in_process(url: str, customers: int) -> None:
    """Print customers a second of each kind of replica, taking turns."""
    redis = RedisServer()
    ids = [f"customer_{number}" for number in range(2, min(TOGETHER, customers - 1) + 2)]
    rates: dict[str, list[float]] = {name: [] for name in ("in L1", "in Redis", "nowhere")}
    size = 0
    for _ in range(ROUNDS):
        async with replica(url, redis.url) as warm:
            await warm.invalidate(ids)
            await _connected(warm)
            rates["nowhere"].append(len(ids) / await _seconds(lambda: warm.read_many(ids, request())))
            size = len(await warm.read_many(ids, request()))
            spent = [await _seconds(lambda: warm.read_many(ids, request())) for _ in range(CALLS)]
            rates["in L1"].append(len(ids) / statistics.median(spent))
        async with replica(url, redis.url) as fresh:
            await _connected(fresh)
            rates["in Redis"].append(len(ids) / await _seconds(lambda: fresh.read_many(ids, request())))
    redis.stop()
    print(f"\n`read_many` of {len(ids)} customers in one process, {size / len(ids):.0f} bytes each, {ROUNDS} rounds\n")
    print("| data | customers/s | ms a call |\n|---|---|---|")
    for name, found in rates.items():
        rate = statistics.median(found)
        print(f"| {name} | {rate:.0f} | {len(ids) / rate * 1e3:.1f} |")


async def _connected(ours: ContextOrchestrator) -> None:
    """Every connection is open and the code warm, the customers that will be measured still cold."""
    await ours.read("customer_1", request())
    await asyncio.sleep(0.2)  # what is written behind the answer is written


async def _seconds(call: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await call()
    return time.perf_counter() - started


def over_http(customers: int, seconds: float) -> None:
    """Print customers a second through the API, read just before."""
    ids = [f"customer_{number}" for number in range(1, min(TOGETHER, customers) + 1)]
    body = json.dumps({"customer_ids": ids, "agent_type": AGENT, "deadline_ms": 5000})
    one = {"method": "POST", "path": "/api/v1/context:read", "headers": JSON, "body": body}
    with running_system(customers, environment={"RAPPORT_CONTEXT__L1_ENTRIES": str(ENTRIES)}) as (url, _, _):
        answer = httpx.post(f"{url}{one['path']}", content=body, headers=JSON, timeout=60).raise_for_status()
        print(
            f"\n`POST /api/v1/context:read` of {len(ids)} customers, {len(answer.content) / 1e6:.1f} MB, HAProxy mode\n"
        )
        print("| connections | customers/s | p50 ms | p95 ms | the replica says, ms until encoding |")
        print("|---|---|---|---|---|")
        for connections in (1, 2, 4):
            drive(url, [one], connections=connections, seconds=1)
            run = drive(url, [one], connections=connections, seconds=seconds)
            if run["errors"]:
                raise RuntimeError(f"{run['errors']:.0f} requests failed")
            elapsed = httpx.post(f"{url}{one['path']}", content=body, headers=JSON, timeout=60).json()["elapsed_ms"]
            cells = [str(connections), f"{run['requests_per_s'] * len(ids):.0f}", str(run["p50_ms"])]
            print(f"| {' | '.join([*cells, str(run['p95_ms']), f'{elapsed:.1f}'])} |", flush=True)


class Slow(FakeProvider):
    """Answers after a few milliseconds, or never."""

    hung = False

    async def fetch(self, customer_id: str, *, deadline: Deadline, known: Mapping[str, Section]) -> Section | None:
        await asyncio.sleep(3600.0 if self.hung else random.uniform(*ANSWER_S))
        return self.answer  # type: ignore[return-value]  # a section in this benchmark


async def late(policy: CachePolicy, timeout_s: float) -> tuple[list[float], int, float]:
    """Seconds past the deadline of each read, sorted; how many waited for it; and the share of a core in use."""
    providers = all_providers(Slow, timeout_s=timeout_s)
    for name in HUNG:
        providers[name].hung = True  # type: ignore[attr-defined]  # it is a `Slow`
    ours = ContextOrchestrator(
        providers.values(), views=AgentViews.load(), cache=TieredCache(LRUCache(entries=1000)), policy=policy
    )
    past: list[float] = []
    waited = 0
    numbers = iter(range(READS))
    chance = random.Random(3)

    async def caller() -> None:
        nonlocal waited
        for number in numbers:
            given_s = chance.uniform(*DEADLINES_S)
            started = time.perf_counter()
            await ours.read(f"customer_{number}", request(given_s))
            past.append(time.perf_counter() - started - given_s)
            waited += past[-1] > -0.005

    began, began_s = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(CONCURRENCY)))
    share = (time.process_time() - began_s) / (time.perf_counter() - began)
    await ours.close()
    return sorted(past), waited, share


async def hung() -> None:
    """Print how late answers are: as configured, and with nothing but the deadline to end a read."""
    policies = {
        "as configured": (CachePolicy(), 1.0),
        "no breaker, no bulkhead": (CachePolicy(breaker_failures=10**9, max_in_flight=10**9), 60.0),
    }
    print(
        f"\n{len(HUNG)} providers hang, the others take {ANSWER_S[0] * 1e3:.0f} to {ANSWER_S[1] * 1e3:.0f} ms; {READS} "
        f"reads, {CONCURRENCY} at a time, deadlines of {DEADLINES_S[0] * 1e3:.0f} to {DEADLINES_S[1] * 1e3:.0f} ms\n"
    )
    print("| protection | of one core | waited for the deadline | late by, of these: p50 ms | p95 | p99 | longest |")
    print("|---|---|---|---|---|---|---|")
    for name, (policy, timeout_s) in policies.items():
        past, waited, share = await late(policy, timeout_s)
        of_these = past[-waited:] if waited else []
        cells = [f"{share:.0%}", str(waited)]
        cells += [f"{percentile(of_these, rank) * 1e3:.1f}" for rank in (0.50, 0.95, 0.99, 1.0)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


async def memory(url: str, customers: int, *, traced: bool) -> None:
    """Print KiB of an entry by what Python allocated, or by what the process grew."""
    wanted = min(10_000, customers)
    async with replica(url, "") as ours:
        await ours.read("customer_1", request())
        gc.collect()
        if traced:
            tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0] if traced else psutil.Process().memory_info().rss
        size = 0
        for first in range(1, wanted + 1, 250):
            ids = [f"customer_{number}" for number in range(first, min(first + 250, wanted + 1))]
            size += len(await ours.read_many(ids, request()))
        gc.collect()
        after = tracemalloc.get_traced_memory()[0] if traced else psutil.Process().memory_info().rss
        name = "allocated (tracemalloc)" if traced else "growth of the process (RSS)"
        print(
            f"| {name} | {wanted:,} | {(after - before) / wanted / 1024:.1f} | {size / wanted / 1024:.1f} |", flush=True
        )


def measure(customers: int, seconds: float, keep: Path | None) -> None:
    """Print the tables of `bench/README.md`."""
    with kept_folder(keep) as folder:
        url = sqlite_company(folder, customers)
        part("process", url, str(customers))
        part("hung")
        print("\n| memory of an entry in L1, one view | entries | KiB each | body KiB |\n|---|---|---|---|", flush=True)
        part("memory", url, str(customers))
        part("traced", url, str(customers))
    over_http(customers, seconds)


def part(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "bench.context_many", *arguments], cwd=ROOT, check=True)


def main(name: str, url: str = "", customers: str = "0") -> None:
    logging.disable(logging.WARNING)  # what hangs is told in the table
    if name == "process":
        asyncio.run(in_process(url, int(customers)))
    elif name == "hung":
        asyncio.run(hung())
    else:
        asyncio.run(memory(url, int(customers), traced=name == "traced"))


if __name__ == "__main__":
    main(*sys.argv[1:])
