"""What `make serve` runs: launches the whole system, waits, and leaves no process behind."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from deployments.children import adopt_orphans, bury_orphans, end_descendants, spawn
from deployments.engines import check_engines
from deployments.launch import (
    ROOT,
    RUNNING,
    STARTUP_TIMEOUT_S,
    STARTUP_WITH_VLLM_TIMEOUT_S,
    Launch,
    startup_timeout_s,
)
from deployments.processes import open_database
from deployments.serve_config import Config, arguments, as_environment, read_config
from models.errors import ConfigurationError, RapportError
from models.settings import Settings, load_settings

#: How long a launch may take to stop before it is ended by force.
STOP_TIMEOUT_S = 60.0
DATABASE_TIMEOUT_S = 5.0


def running(state: Path) -> dict[str, Any] | None:
    """What the launcher of this state folder left, if it still runs."""
    try:
        found: dict[str, Any] = json.loads((state / RUNNING).read_text())
    except (OSError, ValueError):
        return None
    return found if psutil.pid_exists(found["pid"]) else None


def run_on_system(command: list[str], environment: Mapping[str, str], stopping: threading.Event) -> int:
    """Run `python COMMAND` beside the system and return its exit code; `stopping` ends it early."""
    child = spawn([sys.executable, *command], cwd=ROOT, environment={**os.environ, **environment})
    while child.poll() is None:
        if stopping.wait(0.1):
            child.terminate()
            child.wait()
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


def supervise(command_line: list[str], state: Path) -> int:
    """Run the launch in a session of its own, pass it the wish to stop, and end whatever it leaves behind.

    A terminal's Ctrl-C and many service managers signal the whole process group. In a session of its own the launch
    still has a working Redis, Chroma and Ray when it begins to stop them in order; and should Ray take the launching
    process with it, somebody is left to clean up. Should this process die, the launch is told to stop by the kernel.
    """
    wished = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: wished.set())
    adopt_orphans()
    run_dir = Path(tempfile.mkdtemp(prefix="rp", dir="/tmp"))  # short: the length of a socket's path is limited
    try:
        command = [sys.executable, "-m", "deployments.local", "--launch", str(run_dir), *command_line]
        child = spawn(command, cwd=ROOT, own_session=True)
        while child.poll() is None and not wished.wait(0.2):
            bury_orphans(besides=child)
        child.terminate()
        try:
            child.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    finally:
        end_descendants()
        shutil.rmtree(run_dir, ignore_errors=True)
        (state / RUNNING).unlink(missing_ok=True)
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        print(f"the launch was ended by {name}; what it had started has been stopped", file=sys.stderr)
        return 1
    return child.returncode


def main() -> int:
    """Start, wait for a signal (or for the command of `--run`), stop.

    Exit code 0 after a clean stop, 2 when something is missing or in the way, the command's own with `--run`.
    """
    parser = argparse.ArgumentParser(description="Run Rapport on this machine.")
    parser.add_argument("--customers", type=int, default=2000, help="size of the demo company (default 2000)")
    parser.add_argument("--dashboard-port", type=int, default=8265, help="port of the Ray dashboard (default 8265)")
    parser.add_argument("--no-redis", action="store_true", help="run in memory only, without the embedded Redis")
    parser.add_argument(
        "--config", default="serve_config.yaml", metavar="FILE", help="what to deploy (default serve_config.yaml)"
    )
    parser.add_argument(
        "--start-timeout",
        type=float,
        metavar="SECONDS",
        help=f"bound of the start (default {STARTUP_TIMEOUT_S:.0f}, with vLLM {STARTUP_WITH_VLLM_TIMEOUT_S:.0f})",
    )
    parser.add_argument("--launch", type=Path, help=argparse.SUPPRESS)
    parser.add_argument(
        "--run",
        nargs=argparse.REMAINDER,
        help="run `python ...` on the running system, or on one started for it, instead of waiting",
    )
    options = parser.parse_args()
    os.chdir(ROOT)
    try:
        config = read_config(ROOT / options.config)
        settings = load_settings(arguments(config))
        check_engines(settings)
        check_database(settings)
    except RapportError as exc:
        print(exc, file=sys.stderr)
        return 2
    if options.launch:
        return launch(settings, config, options)
    if (found := running(settings.state_dir)) is not None:
        if options.run:
            return run_on_system(options.run, found["environment"], threading.Event())
        print(f"Rapport already runs at {found['url']} (process {found['pid']})", file=sys.stderr)
        return 2
    return supervise(sys.argv[1:], settings.state_dir)


def launch(settings: Settings, config: Config, options: argparse.Namespace) -> int:
    """One launch from start to stop, in the process that drives Ray."""
    system = Launch(
        settings,
        config,
        run_dir=options.launch,
        customers=options.customers,
        dashboard_port=options.dashboard_port,
        with_redis=not options.no_redis,
        start_timeout_s=options.start_timeout or startup_timeout_s(settings),
        environment=as_environment(settings, arguments(config)),
    )
    adopt_orphans()
    try:
        system.open()
        if options.run and not system.stopping.is_set():
            return run_on_system(options.run, system.environment, system.stopping)
        if not system.stopping.is_set():
            token = system.state / "ray_token"
            print(WELCOME.format(url=system.url, dashboard=system.dashboard_port, token=token), flush=True)
        system.watch()
    except ConfigurationError as exc:
        print(exc, file=sys.stderr)
        return 2
    finally:
        system.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
