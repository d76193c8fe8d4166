"""Token buckets in Redis, shared by every replica."""

from __future__ import annotations

import math
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from models.errors import CacheUnavailable
from models.resilience.bucket import Lease, Limit

# Time is the server's: replicas' clocks differ. The grant rule is `models.resilience.bucket.grant`.
_LEASE = """
local capacity, per_second, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local state = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = tonumber(state[1]) or capacity
local at = tonumber(state[2]) or now
tokens = math.min(capacity, tokens + math.max(0, now - at) * per_second)
local granted = math.min(wanted, math.max(1, math.floor(tokens / 4)), math.floor(tokens))
local wait_ms = 0
if granted < 1 then
  granted = 0
  wait_ms = math.ceil((1 - tokens) / per_second * 1000)
end
redis.call('HSET', KEYS[1], 'tokens', string.format('%.6f', tokens - granted), 'at', string.format('%.6f', now))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {granted, wait_ms}
"""


class RedisTokenStore:
    """A `TokenStore` as one atomic Lua script; a bucket that would be full again is forgotten by Redis."""

    def __init__(self, redis: Redis, *, prefix: str = "rapport:tokens:") -> None:
        self._prefix = prefix
        self._script: Any = redis.register_script(_LEASE)

    async def lease(self, key: str, limit: Limit, wanted: int) -> Lease:
        refill_ms = math.ceil(limit.capacity / limit.per_second * 1000) + 1000
        try:
            granted, wait_ms = await self._script(
                keys=[self._prefix + key], args=[limit.capacity, limit.per_second, wanted, refill_ms]
            )
        except (RedisError, OSError, TimeoutError) as exc:
            raise CacheUnavailable(f"Redis did not lease rate-limit tokens: {type(exc).__name__}") from exc
        return Lease(granted=int(granted), retry_after_s=int(wait_ms) / 1000.0)
