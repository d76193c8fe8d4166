"""Whichever of the two launching processes dies, and whenever: no process, no folder and no taken port is left."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import psutil
import pytest

from tests.serve.conftest import System

pytestmark = pytest.mark.timeout(400)

DURING_START, RUNNING = "Serve: deploying", "Rapport is ready"


def tree(system: System) -> dict[str, psutil.Process]:
    """Every process of the system, by process id and name; the supervisor and the launch by those words."""
    supervisor = psutil.Process(system.launcher.pid)
    (launch,) = (child for child in supervisor.children() if "--launch" in child.cmdline())
    others = {f"{one.pid} {one.name()}": one for one in launch.children(recursive=True)}
    return {"supervisor": supervisor, "launch": launch, **others}


def holds(process: psutil.Process, state: Path) -> bool:
    try:
        return bool(process.environ().get("RAPPORT_STATE_DIR") == str(state))
    except psutil.Error:
        return False


@pytest.mark.parametrize(
    ("moment", "victim"), [(DURING_START, "launch"), (DURING_START, "supervisor"), (RUNNING, "launch")]
)
def test_a_killed_launcher_leaves_nothing_behind(moment: str, victim: str, tmp_path: Path) -> None:
    system = System(tmp_path, customers=50)
    system.wait_for(moment)
    processes = tree(system)
    names = " ".join(processes)
    assert all(part in names for part in ("redis", "chroma", "raylet", "gcs_server")), names
    launch_command = processes["launch"].cmdline()
    run_dir = Path(launch_command[launch_command.index("--launch") + 1])
    assert (run_dir / "redis.sock").exists()

    processes[victim].send_signal(signal.SIGKILL)
    assert system.launcher.wait(timeout=120) != 0

    left = psutil.wait_procs(processes.values(), timeout=120)[1]
    assert left == []
    assert [process for process in psutil.process_iter() if holds(process, tmp_path)] == []
    for name in ("RAPPORT_INGRESS__PORT", "RAPPORT_KNOWLEDGE__PORT"):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", int(system.environment[name])))
    assert not run_dir.exists()
    assert not (tmp_path / "running.json").exists()


@pytest.mark.parametrize(("config", "named"), [("nowhere.yaml", "cannot be read"), ("broken.yaml", "is not YAML")])
def test_a_wrong_config_file_stops_the_start_and_is_named(config: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("applications: [")
    wrong = System(tmp_path, arguments=["--config", str(tmp_path / config)])
    assert wrong.launcher.wait(timeout=60) == 2
    assert wrong.launcher.stdout is not None
    said = wrong.launcher.stdout.read()
    assert config in said
    assert named in said
