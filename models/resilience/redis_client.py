"""How every part of Rapport connects to Redis."""

from __future__ import annotations

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError


def connect(url: str, *, timeout_s: float = 0.5) -> Redis:
    """A client that gives up after `timeout_s`; it connects with its first command.

    A broken connection is replaced once, at once: it may have died while it lay idle. A timeout is not tried again.
    """
    once = Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))
    return Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=once)
