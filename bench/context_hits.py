"""What an L1 hit of customer context costs: over HTTP beside a no-op route, in one process beside two cache libraries.

Over HTTP the no-op is a Starlette route in the same running Serve, behind the same middleware, with a body of the same
size; both are driven in turns. In one process, `ContextOrchestrator.read` (a body ready to send, its ages current)
stands beside `cashews` (Redis with its client-side cache) and `aiocache` (memory before Redis), which return the bytes
stored.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from bench.graph import ROOT, drive, running_system

READ = "/api/v1/customers/customer_123/context?agent_type=support"
ROUNDS = 5
CONNECTIONS = (1, 8, 32)


class NoopDeployment:
    """Answers every read with the same bytes."""

    def __init__(self, settings: Any, body: bytes) -> None:
        from deployments.processes import configure_process

        configure_process(settings)
        self._settings, self._body = settings, body

    def __serve_build_asgi_app__(self) -> Any:  # the name is Ray's
        from starlette.applications import Starlette
        from starlette.requests import Request
        from starlette.responses import Response
        from starlette.routing import Route

        from deployments.ingress.middleware import stack
        from deployments.limits import build_rate_limiter
        from deployments.metrics import RayMetrics

        async def noop(_: Request) -> Response:
            return Response(self._body, media_type="application/json")

        return stack(
            Starlette(routes=[Route("/{customer_id}/context", noop)]),
            self._settings.ingress,
            rate_limiter=build_rate_limiter(self._settings),
            metrics=RayMetrics(),
            echo_request_id=False,
        )


def serve_noop(size: int) -> None:
    """Deploy the no-op into the running cluster, say so, and wait until standard input ends."""
    import ray
    from ray import serve

    from deployments.app import DEFAULTS
    from models.settings import load_settings

    ray.init(log_to_driver=False)
    noop = serve.deployment(**DEFAULTS, name="noop")(serve.ingress()(NoopDeployment))
    serve.run(noop.bind(load_settings(), b"x" * size), name="noop", route_prefix="/noop")
    print("ready", flush=True)
    sys.stdin.read()


@contextmanager
def noop(environment: dict[str, str], size: int) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.context_hits", "noop", str(size)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if not any("ready" in line for line in process.stdout):
            raise RuntimeError("the no-op did not start")
        yield
    finally:
        process.stdin.close()
        process.wait(timeout=60)


def over_http(customers: int, seconds: float) -> None:
    with running_system(customers) as (url, _, environment):
        running = json.loads((Path(environment["RAPPORT_STATE_DIR"]) / "running.json").read_text())
        body = httpx.get(url + READ).raise_for_status().content
        with noop({**environment, **running["environment"]}, len(body)):
            print(f"\nBodies of {len(body)} bytes, HAProxy mode, {seconds:.0f} s a turn, {ROUNDS} turns each\n")
            print("| connections | L1 hit req/s | p50 ms | p95 ms | no-op req/s | p50 ms | p95 ms | ratio |")
            print("|---|---|---|---|---|---|---|---|")
            for connections in CONNECTIONS:
                print(turns(url, connections, seconds), flush=True)


def turns(url: str, connections: int, seconds: float) -> str:
    """One line of the table; the ratio is the median over turns, whose order alternates."""
    targets = {"hit": READ, "noop": "/noop/customer_123/context?agent_type=support"}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in targets}
    for number in range(-1, ROUNDS):
        for name in targets if number % 2 else reversed(targets):
            requests = [{"method": "GET", "path": targets[name]}]
            run = drive(url, requests, connections=connections, seconds=1 if number < 0 else seconds)
            if run["errors"]:
                raise RuntimeError(f"{run['errors']:.0f} requests failed")
            if number >= 0:
                runs[name].append(run)
    pairs = zip(runs["hit"], runs["noop"], strict=True)
    ratio = statistics.median(hit["requests_per_s"] / other["requests_per_s"] for hit, other in pairs)
    cells = [
        str(statistics.median(run[field] for run in runs[name]))
        for name in targets
        for field in ("requests_per_s", "p50_ms", "p95_ms")
    ]
    return f"| {connections} | {' | '.join(cells)} | {ratio:.2f} |"


async def in_process(seconds: float) -> None:
    """Print microseconds a hit of each, taking turns."""
    from aiocache import RedisCache, SimpleMemoryCache
    from cashews import Cache

    from demo.seed import plant
    from models.clock import utc_now
    from models.enrichment.types import ContextRequest
    from models.resilience.deadline import Deadline
    from models.settings import ContextSettings
    from providers.context_service import build_orchestrator, load_views
    from providers.database import Database, migrate
    from tests.fakes.redis_server import RedisServer

    redis = RedisServer()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite+aiosqlite:///{folder}/rapport.db"
        await asyncio.to_thread(migrate, url)
        database = Database(url)
        await plant(database, customers=123, seed=7, now=utc_now())
        settings = ContextSettings(l1_ttl_s=3600)
        ours = build_orchestrator(database, settings=settings, views=load_views(settings), redis_url=redis.url)
        ours.start()
        request = ContextRequest(agent_type="support", deadline=Deadline.after(3600))
        body = (await ours.read("customer_123", request)).body
        cashews = Cache()
        cashews.setup(redis.url, client_side=True)
        await cashews.init()
        await cashews.set("customer_123:support", body, expire=3600)
        memory, shared = SimpleMemoryCache(), RedisCache(endpoint="127.0.0.1", port=redis.port)
        await memory.set("customer_123:support", body, ttl=3600)

        async def aiocache_read() -> Any:
            found = await memory.get("customer_123:support")
            return found if found is not None else await shared.get("customer_123:support")

        reads: dict[str, Callable[[], Awaitable[Any]]] = {
            "Rapport, body ready to send": lambda: ours.read("customer_123", request),
            "cashews, client-side cache": lambda: cashews.get("customer_123:support"),
            "aiocache, memory before Redis": aiocache_read,
        }
        rounds: dict[str, list[float]] = {name: [] for name in reads}
        for _ in range(ROUNDS + 1):
            for name, read in reads.items():
                rounds[name].append(await microseconds(read, seconds / 5))
        print(f"\nOne process, one loop, {len(body)} bytes; medians of {ROUNDS} rounds\n")
        print("| two-tier read, L1 hit | µs |\n|---|---|")
        for name, times in rounds.items():
            print(f"| {name} | {statistics.median(times[1:]):.1f} |")
        await cashews.close()
        await shared.close()
        await ours.close()
        await database.close()
    redis.stop()


async def microseconds(read: Callable[[], Awaitable[Any]], seconds: float) -> float:
    started, count = time.perf_counter(), 0
    while (now := time.perf_counter()) < started + seconds:
        for _ in range(200):
            await read()
        count += 200
    return (now - started) / count * 1e6


def measure(customers: int, seconds: float) -> None:
    """Print both tables of `bench/README.md`."""
    part = [sys.executable, "-m", "bench.context_hits", "process", str(seconds)]
    subprocess.run(part, cwd=ROOT, env=dict(os.environ), check=True)
    over_http(customers, seconds)


if __name__ == "__main__":
    if sys.argv[1] == "noop":
        # By its importable name: Ray pickles what stands in `__main__` by value.
        from bench import context_hits

        context_hits.serve_noop(int(sys.argv[2]))
    else:
        asyncio.run(in_process(float(sys.argv[2])))
