"""What `make serve` runs: launches the whole system, waits, and leaves no process behind."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from deployments.engines import check_engines
from deployments.launch import ROOT, RUNNING, Launch
from deployments.processes import open_database
from models.errors import ConfigurationError, RapportError
from models.settings import Settings, load_settings

#: Marks every process of one launch, so that those which outlive their parent are found and ended.
MARK = "LAUNCHED_BY_RAPPORT"
#: How long a launch may take to stop before it is ended by force.
STOP_TIMEOUT_S = 60.0
DATABASE_TIMEOUT_S = 5.0


def marked(mark: str) -> Iterator[psutil.Process]:
    """Processes, other than this one, that were started by the launch with this mark."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                yield process


def running(state: Path) -> dict[str, Any] | None:
    """What the launcher of this state folder left, if it still runs."""
    try:
        found: dict[str, Any] = json.loads((state / RUNNING).read_text())
    except (OSError, ValueError):
        return None
    return found if psutil.pid_exists(found["pid"]) else None


def run_on_system(command: list[str], environment: Mapping[str, str]) -> int:
    """Run `python COMMAND` beside the system and return its exit code."""
    child = subprocess.run([sys.executable, *command], cwd=ROOT, env={**os.environ, **environment}, check=False)
    return child.returncode


WELCOME = """
Rapport is ready.

  API            {url}
  documentation  {url}/docs
  metrics        {url}/metrics
  Ray dashboard  http://127.0.0.1:{dashboard}   (token: {token})

Try:

  curl -s {url}/api/v1/classify -H 'content-type: application/json' \\
       -d '{{"message": "How do I invite a colleague?", "channel": "chat"}}'
  curl -s '{url}/api/v1/customers/customer_123/context?agent_type=support&format=prompt'
  curl -s {url}/api/v1/classify -H 'content-type: application/json' \\
       -d '{{"message": "Where is my order ORD-10123?", "channel": "chat", "customer_id": "customer_123"}}'

Ctrl-C stops everything.
"""


def check_database(settings: Settings) -> None:
    """Raises `ConfigurationError` naming DATABASE_URL when a configured database cannot be reached; asked first."""
    if not settings.database.url.get_secret_value():
        return

    async def ask() -> None:
        database = open_database(settings)
        try:
            async with asyncio.timeout(DATABASE_TIMEOUT_S):
                await database.ping()
        finally:
            await database.close()

    try:
        asyncio.run(ask())
    except (RapportError, TimeoutError) as exc:
        reason = str(exc) or f"no answer within {DATABASE_TIMEOUT_S:.0f} s"
        raise ConfigurationError(f"DATABASE_URL: {reason}") from exc


def supervise(arguments: list[str]) -> int:
    """Run the launch in a session of its own, pass it the wish to stop, and end whatever it leaves behind.

    A terminal's Ctrl-C and many service managers signal the whole process group. In a session of its own the launch
    still has a working Redis, Chroma and Ray when it begins to stop them in order; and should Ray take the launching
    process with it, somebody is left to clean up.
    """
    mark = secrets.token_hex(8)
    wished = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: wished.set())
    command = [sys.executable, "-m", "deployments.local", "--launch", *arguments]
    child = subprocess.Popen(command, cwd=ROOT, env={**os.environ, MARK: mark}, start_new_session=True)
    told = False
    while child.poll() is None:
        if wished.wait(0.2) and not told:
            told = True
            child.terminate()
            began = time.monotonic()
        if told and time.monotonic() - began > STOP_TIMEOUT_S:
            child.kill()
    sweep(mark)
    return child.returncode if child.returncode >= 0 else 1


def sweep(mark: str) -> None:
    """End every process that carries the mark, first kindly."""
    survivors = list(marked(mark))
    for process in survivors:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(survivors, timeout=5)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def main() -> int:
    """Start, wait for a signal (or for the command of `--run`), stop.

    Exit code 0 after a clean stop, 2 when something is missing or in the way, the command's own with `--run`.
    """
    parser = argparse.ArgumentParser(description="Run Rapport on this machine.")
    parser.add_argument("--customers", type=int, default=2000, help="size of the demo company (default 2000)")
    parser.add_argument("--dashboard-port", type=int, default=8265, help="port of the Ray dashboard (default 8265)")
    parser.add_argument("--no-redis", action="store_true", help="run in memory only, without the embedded Redis")
    parser.add_argument("--launch", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--run",
        nargs=argparse.REMAINDER,
        help="run `python ...` on the running system, or on one started for it, instead of waiting",
    )
    arguments = parser.parse_args()
    os.chdir(ROOT)
    try:
        settings = load_settings()
        check_engines(settings)
        check_database(settings)
    except RapportError as exc:
        print(exc, file=sys.stderr)
        return 2
    if arguments.launch:
        return launch(settings, arguments)
    if (found := running(settings.state_dir)) is not None:
        if arguments.run:
            return run_on_system(arguments.run, found["environment"])
        print(f"Rapport already runs at {found['url']} (process {found['pid']})", file=sys.stderr)
        return 2
    return supervise(sys.argv[1:])


def launch(settings: Settings, arguments: argparse.Namespace) -> int:
    """One launch from start to stop, in the process that drives Ray."""
    system = Launch(
        settings,
        customers=arguments.customers,
        dashboard_port=arguments.dashboard_port,
        with_redis=not arguments.no_redis,
    )

    def stop_on_signal() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: system.stopping.set())

    stop_on_signal()
    try:
        system.open()
        stop_on_signal()  # Ray has put a handler of its own in place
        if arguments.run and not system.stopping.is_set():
            return run_on_system(arguments.run, {})
        if not system.stopping.is_set():
            token = system.state / "ray_token"
            print(WELCOME.format(url=system.url, dashboard=system.dashboard_port, token=token), flush=True)
        system.stopping.wait()
    except ConfigurationError as exc:
        print(exc, file=sys.stderr)
        return 2
    finally:
        system.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
