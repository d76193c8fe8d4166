"""One real system whose language model is vLLM on the processor: two replicas of a small model with random weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import psutil
import pytest
import yaml

from demo.tiny_model import make
from tests.serve.conftest import ROOT, System

#: What the launcher waits for, and a margin: two engines load one after the other beside everything else.
STARTUP_S = 900


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make(folder)
    return folder


@pytest.fixture(scope="session")
def vllm_system(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """`serve_config.vllm.yaml` as it is, but with both replicas from the start."""
    config = yaml.safe_load((ROOT / "serve_config.vllm.yaml").read_text())
    deployments = {one["name"]: one for app in config["applications"] for one in app["deployments"]}
    deployments["vllm"]["autoscaling_config"]["min_replicas"] = 2
    file = tmp_path_factory.mktemp("config") / "two_replicas.yaml"
    file.write_text(yaml.safe_dump(config))
    started = System(
        tmp_path_factory.mktemp("state"),
        environment={"RAPPORT_LANGUAGE_MODEL__VLLM__MODEL": str(model)},
        customers=200,
        arguments=["--config", str(file)],
    )
    try:
        started.wait_until_ready()
        yield started
    finally:
        code = started.stop()
    assert code == 0, "".join(started.output)


@pytest.fixture(scope="session")
def client(vllm_system: System) -> Iterator[openai.OpenAI]:
    """The official client, told nothing but another address."""
    with openai.OpenAI(base_url=f"{vllm_system.url}/v1", api_key="none", max_retries=0, timeout=60) as connected:
        yield connected


def engine_processes(system: System, title: str) -> list[psutil.Process]:
    """The processes that vLLM titles so (`VLLM::EngineCore`, `VLLM::Worker`), under this system's launcher."""
    family = psutil.Process(system.launcher.pid).children(recursive=True)
    return [process for process in family if title in " ".join(_command(process))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []
