"""Waiting for what a real server does in its own time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], Awaitable[bool]], *, within_s: float = 10.0) -> None:
    """Ask again and again until it holds; `TimeoutError` after `within_s`."""
    async with asyncio.timeout(within_s):
        while not await condition():  # noqa: ASYNC110  another process has no event to set here
            await asyncio.sleep(0)
