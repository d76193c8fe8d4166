"""One real system for all tests of this folder: `make serve` on free ports with a state folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.launch import free_port

ROOT = Path(__file__).resolve().parents[2]
CUSTOMERS = 500


class System:
    """A running system, as a user reaches it."""

    def __init__(
        self,
        state: Path,
        *,
        environment: dict[str, str] | None = None,
        customers: int = CUSTOMERS,
        arguments: Sequence[str] = (),
    ) -> None:
        self.state = state
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **os.environ,
            "RAPPORT_STATE_DIR": str(state),
            "RAPPORT_INGRESS__PORT": str(self.port),
            "RAPPORT_KNOWLEDGE__PORT": str(free_port()),
            **(environment or {}),
        }
        command = [sys.executable, "-m", "deployments.local", "--customers", str(customers)]
        self.launcher = subprocess.Popen(
            [*command, "--dashboard-port", str(free_port()), *arguments],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output: list[str] = []

    def wait_until_ready(self) -> None:
        self.wait_for("Rapport is ready")

    def wait_for(self, text: str) -> None:
        """Return when the launcher has said so."""
        assert self.launcher.stdout is not None
        for line in self.launcher.stdout:
            self.output.append(line)
            if text in line:
                return
        raise AssertionError("the system did not start:\n" + "".join(self.output))

    @property
    def running(self) -> dict[str, Any]:
        """What the launcher left for other commands: addresses and process ids."""
        loaded: dict[str, Any] = json.loads((self.state / "running.json").read_text())
        return loaded

    def stop(self) -> int:
        """End it as a user does, and return its exit code."""
        self.launcher.send_signal(signal.SIGTERM)
        assert self.launcher.stdout is not None
        self.output += self.launcher.stdout.readlines()
        return self.launcher.wait(timeout=120)


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    started = System(tmp_path_factory.mktemp("state"))
    try:
        started.wait_until_ready()
        yield started
    finally:
        code = started.stop()
    assert code == 0, "".join(started.output)


@pytest.fixture(scope="session")
def api(system: System) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=system.url, timeout=60.0, trust_env=False) as client:
        yield client
