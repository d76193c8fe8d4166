"""Money spent on language models, summed in Redis for all replicas."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from models.errors import CacheUnavailable
from models.llm.spend import NANO, Reservation, Scope, nano

# One step for all keys: adds ARGV[1] to each, unless that takes one over its limit (-1: none); then nothing is added
# and the number of that key is returned. A sum never falls below zero, as it could after Redis lost it. The last key
# marks the step as done: a client whose connection breaks sends it again, and money must not be counted twice.
_ADD = """
local amount, count = tonumber(ARGV[1]), #KEYS - 1
if redis.call('EXISTS', KEYS[count + 1]) == 1 then return 0 end
local sums = {}
for i = 1, count do
  local limit = tonumber(ARGV[2 * i])
  sums[i] = math.max(0, tonumber(redis.call('GET', KEYS[i]) or '0') + amount)
  if limit >= 0 and sums[i] > limit then return i end
end
for i = 1, count do
  redis.call('SET', KEYS[i], string.format('%.0f', sums[i]), 'PX', ARGV[2 * i + 1])
end
redis.call('SET', KEYS[count + 1], '', 'PX', 60000)
return 0
"""


class RedisSpendLedger:
    """A `SpendLedger` shared by every replica; sums expire after their scope's `keep_s`."""

    # The braces put all keys of a call on one node of a cluster.
    def __init__(self, redis: Redis, *, prefix: str = "{rapport:spend}:") -> None:
        self._redis = redis
        self._prefix = prefix
        self._script: Any = redis.register_script(_ADD)

    async def reserve(self, scopes: Sequence[Scope], usd: float) -> Reservation:
        limits = [-1 if scope.limit_usd is None else nano(scope.limit_usd) for scope in scopes]
        if full := await self._add(scopes, nano(usd), limits):
            raise scopes[full - 1].exhausted()
        return Reservation(scopes=tuple(scopes), usd=usd)

    async def settle(self, reservation: Reservation, usd: float) -> None:
        amount = nano(usd) - nano(reservation.usd)
        await self._add(reservation.scopes, amount, [-1] * len(reservation.scopes))

    async def spent(self, key: str) -> float:
        try:
            stored = await self._redis.get(self._prefix + key)
        except (RedisError, OSError, TimeoutError) as exc:
            raise CacheUnavailable(f"Redis did not tell what was spent: {type(exc).__name__}") from exc
        return int(stored or 0) / NANO

    async def _add(self, scopes: Sequence[Scope], amount: int, limits: Sequence[int]) -> int:
        arguments: list[int] = [amount]
        for scope, limit in zip(scopes, limits, strict=True):
            arguments += (limit, math.ceil(scope.keep_s * 1000))
        keys = [*(scope.key for scope in scopes), f"step:{secrets.token_hex(8)}"]
        try:
            full = await self._script(keys=[self._prefix + key for key in keys], args=arguments)
        except (RedisError, OSError, TimeoutError) as exc:
            raise CacheUnavailable(f"Redis did not count money: {type(exc).__name__}") from exc
        return int(full)
