"""One real system for most tests of this folder: `make serve` on free ports with a state folder of its own."""

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
import yaml

from deployments.launch import free_port
from tests.fakes.vendor_server import KEYS, VendorServer
from tests.serve.parts import PersistentRedis, Vendors

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
def vendors() -> Iterator[VendorServer]:
    with Vendors() as server:
        yield server


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PersistentRedis]:
    server = PersistentRedis(tmp_path_factory.mktemp("redis"))
    yield server
    server.go_on()
    server.kill()


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory, vendors: VendorServer, redis: PersistentRedis) -> Iterator[System]:
    """With two enrichment replicas, and with a Redis and vendors that tests can slow, break and take away."""
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    deployments = [one for application in config["applications"] for one in application["deployments"]]
    next(one for one in deployments if one["name"] == "enrichment")["num_replicas"] = 2
    file = tmp_path_factory.mktemp("config") / "two_replicas.yaml"
    file.write_text(yaml.safe_dump(config))
    environment = {
        "REDIS_URL": redis.url,
        "RAPPORT_INGRESS__MAX_CONCURRENT": "400",  # two hundred readers come at once
        "CLEARBIT_API_KEY": KEYS["clearbit"],
        "CRUNCHBASE_API_KEY": KEYS["crunchbase"],
        "NEWS_API_KEY": KEYS["news_api"],
        "RAPPORT_CONTEXT__CLEARBIT_BASE_URL": vendors.url,
        "RAPPORT_CONTEXT__CRUNCHBASE_BASE_URL": vendors.url,
        "RAPPORT_CONTEXT__NEWS_BASE_URL": vendors.url,
        "RAPPORT_CONTEXT__NEWS_REQUESTS_PER_DAY": "100000",  # a free plan's would be spent half-way
    }
    started = System(tmp_path_factory.mktemp("state"), environment=environment, arguments=["--config", str(file)])
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
