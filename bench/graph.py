"""Measures the running graph: start-up, memory by process, and what each path costs beside two baselines.

Baselines, in the same run and interleaved with it: the no-op route `/health` of the same application (what proxy and
middleware cost), and the same `models/` objects in one plain Uvicorn process (what the graph costs).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench import topology
from deployments.launch import free_port

ROOT = Path(__file__).resolve().parent.parent
JSON = {"Content-Type": "application/json"}


def classify(message: str, **more: str) -> dict[str, Any]:
    body = json.dumps({"message": message, "channel": "chat", **more})
    return {"method": "POST", "path": "/api/v1/classify", "headers": JSON, "body": body}


#: Distinct messages, so that the embedder's cache does not answer for the model.
QUESTIONS = [
    f"How do I {verb} {thing} {when}?"
    for verb in ("invite", "remove", "change", "export", "find", "restore")
    for thing in ("a colleague", "my invoices", "the calendar", "a seat", "patient reminders", "reports")
    for when in ("today", "before the renewal", "from my phone", "for a second clinic", "without an administrator")
]
ORDERS = [f"Where is my order ORD-10123? I wrote {n} days ago" for n in range(2, 60)]


@contextmanager
def running_system(
    customers: int, *, environment: Mapping[str, str] | None = None, arguments: Sequence[str] = ()
) -> Iterator[tuple[str, float, dict[str, str]]]:
    """`make serve` on free ports with a fresh state folder: its URL, start-up seconds, and environment."""
    with tempfile.TemporaryDirectory(prefix="bench") as state:
        ports = [str(free_port()) for _ in range(3)]
        variables = {
            **os.environ,
            **(environment or {}),
            "RAPPORT_STATE_DIR": state,
            "RAPPORT_INGRESS__PORT": ports[0],
            "RAPPORT_KNOWLEDGE__PORT": ports[1],
        }
        command = [sys.executable, "-m", "deployments.local", "--customers", str(customers)]
        began = time.monotonic()
        launcher = subprocess.Popen(
            [*command, "--dashboard-port", ports[2], *arguments],
            cwd=ROOT,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert launcher.stdout is not None
        try:
            for line in launcher.stdout:
                if "Rapport is ready" in line:
                    break
            else:
                raise RuntimeError(f"the system did not start; status {launcher.wait()}")
            yield f"http://127.0.0.1:{ports[0]}", time.monotonic() - began, variables
        finally:
            launcher.send_signal(signal.SIGTERM)
            launcher.stdout.read()
            launcher.wait(timeout=120)


@contextmanager
def plain_process(environment: dict[str, str]) -> Iterator[str]:
    """The same `models/` objects, database and knowledge behind one Uvicorn process."""
    port = str(free_port())
    command = [sys.executable, "-m", "bench.plain", "--port", port]
    # Its log goes where a replica's log goes: to a file, here one that nobody reads.
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                if httpx.get(f"{url}/health", timeout=2).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def memory_by_process(supervisor: psutil.Process) -> dict[str, float]:
    """PSS in MiB of every process of the running system, by what it is. Shared pages are counted once in all."""
    sizes: dict[str, float] = defaultdict(float)
    for process in (supervisor, *supervisor.children(recursive=True)):
        try:
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            command = process.cmdline() or [process.name()]
        except (psutil.Error, OSError):
            continue
        kib = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        sizes[describe(command)] += kib / 1024
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def describe(command: list[str]) -> str:
    """A short name for a process of the system."""
    first = command[0]
    if first.startswith("ray::"):
        return first.removeprefix("ray::").split(".")[0].replace("ServeReplica:", "replica ")
    line = " ".join(command)
    known = ("gcs_server", "raylet", "redis-server", "chroma", "haproxy", "deployments.local", "dashboard", "agent")
    return next((name for name in known if name in line), Path(first).name)


def drive(url: str, requests: list[dict[str, Any]], *, connections: int, seconds: float) -> dict[str, float]:
    """One closed-loop run against the URL."""
    host, port = url.removeprefix("http://").split(":")
    return topology.drive(
        {"host": host, "port": int(port), "connections": connections, "seconds": seconds, "requests": requests}
    )


def open_session(url: str) -> str:
    answer = httpx.post(f"{url}/api/v1/sessions", json={"customer_id": "customer_123"}, timeout=30)
    answer.raise_for_status()
    session: str = answer.json()["session_id"]
    return session


def scenarios(url: str, connections: int) -> dict[str, list[dict[str, Any]]]:
    """Requests by path of the README; sessions are opened on the system that will be driven."""
    sessions = [open_session(url) for _ in range(connections)]
    messages = [
        {
            "method": "POST",
            "path": f"/api/v1/sessions/{sessions[index % connections]}/messages?wait=true",
            "headers": JSON,
            "body": json.dumps({"text": question}),
        }
        for index, question in enumerate(QUESTIONS)
    ]
    read = "/api/v1/customers/customer_{}/context?agent_type=support"
    cold = [{"method": "GET", "path": read.format(n) + "&force_refresh=true"} for n in range(1, 200)]
    return {
        "no-op /health": [{"method": "GET", "path": "/health"}],
        "1 classify, question": [classify(question) for question in QUESTIONS],
        "1 classify, order": [classify(order, customer_id="customer_123") for order in ORDERS],
        "2 context, L1 hit": [{"method": "GET", "path": read.format(123)}],
        "2 context, all providers": cold,
        "3 chat message": messages,
    }


def measure(customers: int, seconds: float, connections: tuple[int, ...]) -> None:
    """Print the tables of `bench/README.md`."""
    with running_system(customers) as (url, startup_s, environment):
        running = json.loads((Path(environment["RAPPORT_STATE_DIR"]) / "running.json").read_text())
        memory = memory_by_process(psutil.Process(running["pid"]).parent())
        print(f"\nStart-up with installed packages and an empty state folder: {startup_s:.1f} s\n")
        print("| process | PSS MiB |\n|---|---|")
        for name, size in memory.items():
            print(f"| {name} | {size:.0f} |")
        print(f"| **all** | **{sum(memory.values()):.0f}** |\n")
        with plain_process({**environment, **running["environment"]}) as plain:
            print(HEADER)
            for count in connections:
                graph_plans, plain_plans = scenarios(url, count), scenarios(plain, count)
                for name in graph_plans:
                    pair = []
                    for target, plans in ((url, graph_plans), (plain, plain_plans)):
                        drive(target, plans[name], connections=count, seconds=1)
                        pair.append(drive(target, plans[name], connections=count, seconds=seconds))
                    print(row(name, count, *pair), flush=True)


HEADER = """| path | connections | graph req/s | p50 ms | p95 ms | plain req/s | p50 ms | p95 ms | graph / plain |
|---|---|---|---|---|---|---|---|---|"""


def row(name: str, connections: int, graph: dict[str, float], plain: dict[str, float]) -> str:
    """One line of the table; failed requests are told, since they are fast."""
    errors = f" ({graph['errors']:.0f} and {plain['errors']:.0f} errors)" if graph["errors"] + plain["errors"] else ""
    cells = [f"{name}{errors}", str(connections)]
    cells += [str(side[field]) for side in (graph, plain) for field in ("requests_per_s", "p50_ms", "p95_ms")]
    return f"| {' | '.join(cells)} | {graph['requests_per_s'] / plain['requests_per_s']:.2f} |"
