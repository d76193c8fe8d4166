"""The metrics memory in Redis: shared by all ingress replicas, and outliving each of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from redis.asyncio import Redis
from redis.exceptions import RedisError

from deployments.ingress.metrics_page import Key
from models.errors import CacheUnavailable

_SEPARATOR = "\x1f"

#: KEYS: totals (hash), last sight of each process (sorted set). ARGV: now, fold before, separator, then triples of
#: process, series, total. Totals are written as they came in, because Lua prints fewer digits than a double has.
_RAISE_TO = """
local totals, seen, separator = KEYS[1], KEYS[2], ARGV[3]
for i = 4, #ARGV, 3 do
  local field = ARGV[i] .. separator .. ARGV[i + 1]
  local known = redis.call('HGET', totals, field)
  if not known or tonumber(ARGV[i + 2]) > tonumber(known) then
    redis.call('HSET', totals, field, ARGV[i + 2])
  end
  redis.call('ZADD', seen, ARGV[1], ARGV[i])
end
local gone = {}
for _, process in ipairs(redis.call('ZRANGEBYSCORE', seen, '-inf', '(' .. ARGV[2])) do
  gone[process] = true
  redis.call('ZREM', seen, process)
end
if next(gone) then
  for _, field in ipairs(redis.call('HKEYS', totals)) do
    local at = string.find(field, separator, 1, true)
    if gone[string.sub(field, 1, at - 1)] then
      redis.call('HINCRBYFLOAT', totals, string.sub(field, at), redis.call('HGET', totals, field))
      redis.call('HDEL', totals, field)
    end
  end
end
return redis.call('HGETALL', totals)
"""


class RedisCounterMemory:
    """`CounterMemory` in the hash `metrics:last`; one script, so that replicas never fold the same process twice."""

    def __init__(
        self,
        redis: Redis,
        *,
        prefix: str = "metrics",
        clock: Callable[[], float] = time.time,
        fold_after_s: float = 86_400.0,
    ) -> None:
        self._script = redis.register_script(_RAISE_TO)
        self._keys = [f"{prefix}:last", f"{prefix}:seen"]
        self._clock = clock
        self._fold_after_s = fold_after_s

    async def raise_to(self, seen: Mapping[Key, float]) -> Mapping[Key, float]:
        now = self._clock()
        arguments: list[str] = [repr(now), repr(now - self._fold_after_s), _SEPARATOR]
        for (process, series), value in seen.items():
            arguments += (process, series, repr(value))
        try:
            flat = await self._script(self._keys, arguments)
        except (RedisError, OSError) as exc:
            raise CacheUnavailable("the metrics memory does not answer") from exc
        texts = [item.decode() if isinstance(item, bytes) else str(item) for item in flat]
        return {
            (process, series): float(total)
            for field, total in zip(texts[::2], texts[1::2], strict=True)
            for process, _, series in [field.partition(_SEPARATOR)]
        }
