"""Following the news ends when it is told to, whatever the client library makes of that."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from models.enrichment.redis_invalidations import RedisInvalidations


class ForgetfulClient:
    """A client whose subscribing loses the cancellation that arrives meanwhile, as redis-py's does on Python 3.11."""

    def __init__(self) -> None:
        self.subscribing = asyncio.Event()

    def pubsub(self) -> ForgetfulClient:
        return self

    async def __aenter__(self) -> ForgetfulClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def subscribe(self, _: str) -> None:
        self.subscribing.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    async def get_message(self, **_: object) -> None:
        await asyncio.Event().wait()


async def test_a_cancellation_that_the_library_loses_is_heeded_all_the_same() -> None:
    client: Any = ForgetfulClient()

    async def told(*_: object) -> None:
        return None

    listening = asyncio.create_task(RedisInvalidations(client).listen(told, told))
    await client.subscribing.wait()
    listening.cancel()
    done, _ = await asyncio.wait((listening,), timeout=5)
    assert done
    with pytest.raises(asyncio.CancelledError):
        await listening
