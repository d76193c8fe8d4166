"""Unit tests start no Ray, open no network socket and never sleep: each of these raises."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest


def _refuse(what: str) -> Callable[..., Any]:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError(f"a unit test must not {what}")

    return refused


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "init", _refuse("start Ray"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", _refuse("open a socket"))
    monkeypatch.setattr(socket.socket, "bind", _refuse("open a socket"))


@pytest.fixture(autouse=True)
def _no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", _refuse("sleep; wait on an event"))
    asyncio_sleep = asyncio.sleep

    async def yield_only(delay: float, result: Any = None) -> Any:
        assert delay == 0, "a unit test must not sleep; wait on an event"
        return await asyncio_sleep(0, result)

    monkeypatch.setattr(asyncio, "sleep", yield_only)
