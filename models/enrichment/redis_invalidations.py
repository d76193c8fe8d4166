"""The news of changed customer data, over Redis pub/sub."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from models.enrichment.generations import Change
from models.enrichment.redis_cache import translated
from models.telemetry import Transition

logger = logging.getLogger(__name__)

CHANNEL = "rapport:context:changed"


class RedisInvalidations:
    """`Invalidations` over pub/sub. Every (re)subscription is a gap, for pub/sub keeps nothing for the absent; so is
    news that cannot be read.
    """

    def __init__(
        self,
        client: Redis,
        *,
        heartbeat_s: float = 5.0,
        retry_after_s: float = 1.0,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._redis = client
        self._heartbeat_s = heartbeat_s
        self._retry_after_s = retry_after_s
        self._pause = pause
        self._state = Transition("context invalidations", logger)

    async def publish(self, change: Change) -> None:
        news = json.dumps({"customer_ids": change.customer_ids, "tags": change.tags})
        async with translated():
            await self._redis.publish(CHANNEL, news)

    async def listen(
        self, on_change: Callable[[Change], Awaitable[None]], on_gap: Callable[[], Awaitable[None]]
    ) -> None:
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(CHANNEL)
                    await self._follow(pubsub, on_change, on_gap)
            except (RedisError, OSError) as exc:
                self._state.down(exc)
            _heed_cancellation()
            await self._pause(self._retry_after_s)

    async def _follow(
        self, pubsub: PubSub, on_change: Callable[[Change], Awaitable[None]], on_gap: Callable[[], Awaitable[None]]
    ) -> None:
        unanswered = False
        while True:
            _heed_cancellation()
            message = await pubsub.get_message(timeout=self._heartbeat_s)
            if message is None:
                # A dead peer sends nothing, just as a quiet one: only an answered ping tells them apart.
                if unanswered:
                    raise TimeoutError("the subscription is silent")
                await pubsub.ping()
                unanswered = True
                continue
            unanswered = False
            if message["type"] == "subscribe":
                await on_gap()
                self._state.up()
            elif message["type"] == "message":
                change = _change(message["data"])
                await (on_gap() if change is None else on_change(change))


def _heed_cancellation() -> None:
    """redis-py sends commands with `asyncio.wait_for`, which before Python 3.12 loses a cancellation that comes just as
    the command has been sent; the task still knows of it.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _change(news: bytes) -> Change | None:
    try:
        told = json.loads(news)
        return Change(customer_ids=tuple(map(str, told["customer_ids"])), tags=tuple(map(str, told["tags"])))
    except (ValueError, KeyError, TypeError):
        return None
