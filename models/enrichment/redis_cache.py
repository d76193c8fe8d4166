"""The shared tier of the context cache in Redis.

One hash per customer holds a packed record per provider, the name of the customer's generation (`:gen`) and those of
tags outdated for this customer alone (`:tag:NAME`). The hash `ctx:tags` holds the generation of each tag outdated for
everyone, the name of all these together (`:tags`), and an epoch. Whatever Redis evicts or loses takes with it the
generation that vouched for it, so nothing outdated ever comes back.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from models.enrichment.generations import Generations, Shelf, Write
from models.errors import CacheUnavailable

_TAGS = "ctx:tags"
_PREFIX = "ctx:c:"
#: Customers per script: long enough to save round trips, short enough not to hold up Redis.
_PER_SCRIPT = 50
#: How long the generation of a customer of whom nothing is kept yet waits for what is being fetched.
_FIRST_MS = 60_000
_RUN_ID = re.compile(rb"run_id:(\w+)")

#: A Redis that is full still answers; it gives no generation then, so that nothing is written.
_LOAD = """
local tags = redis.call('HGETALL', KEYS[1])
if #tags == 0 then
  local made = redis.pcall('HSET', KEYS[1], ':epoch', ARGV[1], ':tags', ARGV[1])
  if type(made) == 'number' then tags = {':epoch', ARGV[1], ':tags', ARGV[1]} end
end
local shelves = {tags}
for i = 2, #KEYS do
  local shelf = redis.call('HGETALL', KEYS[i])
  if #shelf == 0 then
    local made = redis.pcall('HSET', KEYS[i], ':gen', ARGV[i])
    if type(made) == 'number' then
      redis.call('PEXPIRE', KEYS[i], ARGV[#KEYS + 1])
      shelf = {':gen', ARGV[i]}
    end
  end
  shelves[i] = shelf
end
return shelves
"""
_SAVE = """
if redis.call('HGET', KEYS[1], ':tags') ~= ARGV[1] or redis.call('HGET', KEYS[2], ':gen') ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[2], unpack(ARGV, 4))
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[2], ARGV[3]) end
return 1
"""
#: A customer who has no hash has nothing to outdate, and what is being fetched for him has a generation to lose.
_OUTDATE = """
if #ARGV == 1 then return redis.call('UNLINK', KEYS[1]) end
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HDEL', KEYS[1], ':unknown')
for i = 2, #ARGV do redis.call('HSET', KEYS[1], ':tag:' .. ARGV[i], ARGV[1]) end
redis.call('HSET', KEYS[1], ':gen', ARGV[1])
return 1
"""
#: A Redis that is full refuses the first write; without any generation of tags it vouches for nothing.
_OUTDATE_TAGS = """
local made = redis.pcall('HSETNX', KEYS[1], ':epoch', ARGV[1])
if type(made) ~= 'number' then return redis.call('DEL', KEYS[1]) end
for i = 2, #ARGV do redis.call('HSET', KEYS[1], ARGV[i], ARGV[1]) end
return redis.call('HSET', KEYS[1], ':tags', ARGV[1])
"""
#: Another run of the server may have come back with data of an earlier day: all of it is outdated.
_NEW_RUN = """
if redis.call('HGET', KEYS[1], ':run') ~= ARGV[1] then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], ':run', ARGV[1], ':epoch', ARGV[2], ':tags', ARGV[2])
end
return 1
"""


#: A script, its keys and its arguments.
_Call = tuple[str, list[str], list[str | bytes]]


class RedisCache:
    """A `SectionCache` in Redis. Every connection first makes sure that the data is of the server's present run."""

    def __init__(self, client: Redis) -> None:
        self._redis = client
        client.connection_pool.connection_kwargs["redis_connect_func"] = _greet

    async def load(self, keys: Sequence[str]) -> list[Shelf]:
        calls: list[_Call] = []
        for first in range(0, len(keys), _PER_SCRIPT):
            some = keys[first : first + _PER_SCRIPT]
            names = [secrets.token_hex(8) for _ in range(len(some) + 1)]
            calls.append((_LOAD, [_TAGS, *(_PREFIX + key for key in some)], [*names, str(_FIRST_MS)]))
        shelves: list[Shelf] = []
        for tags, *hashes in await self._run(calls):
            shared = _pairs(tags)
            shelves += (_shelf(_pairs(one), shared) for one in hashes)
        return shelves

    async def save(self, writes: Sequence[Write]) -> list[bool]:
        calls: list[_Call] = []
        groups = _together(writes)
        for (key, tags, customer), some in groups.items():
            fields = [part for write in some for pair in write.values.items() for part in pair]
            ttl_ms = str(int(max(write.ttl_s for write in some) * 1000))
            calls.append((_SAVE, [_TAGS, _PREFIX + key], [tags, customer, ttl_ms, *fields]))
        landed = dict(zip(groups, await self._run(calls), strict=True))
        return [bool(landed[_under(write)]) for write in writes]

    async def outdate(self, keys: Sequence[str], tags: Sequence[str]) -> None:
        name = secrets.token_hex(8)
        if keys:
            await self._run([(_OUTDATE, [_PREFIX + key], [name, *tags]) for key in keys])
        elif tags:
            await self._run([(_OUTDATE_TAGS, [_TAGS], [name, *tags])])

    async def check_health(self) -> None:
        """Return if Redis answers; raise `CacheUnavailable` otherwise."""
        async with translated():
            await self._redis.ping()

    async def close(self) -> None:
        await self._redis.aclose()

    async def _run(self, calls: Sequence[_Call]) -> list[Any]:
        """The answers of the scripts, sent in one go."""
        async with translated():
            try:
                return await self._send(calls)
            except NoScriptError:
                for script in (_LOAD, _SAVE, _OUTDATE, _OUTDATE_TAGS):
                    await self._redis.script_load(script)
                return await self._send(calls)

    async def _send(self, calls: Sequence[_Call]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for script, keys, arguments in calls:
                pipe.evalsha(_sha(script), len(keys), *keys, *arguments)
            return await pipe.execute()


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Failures of Redis as `CacheUnavailable`."""
    try:
        yield
    except (RedisError, OSError) as exc:
        raise CacheUnavailable("the context cache does not answer") from exc


async def _greet(connection: Any) -> None:
    """Begin a new epoch if the server is not the run that the data is of."""
    await connection.on_connect()
    await connection.send_command("INFO", "server")
    info = await connection.read_response()
    run = _RUN_ID.search(info if isinstance(info, bytes) else str(info).encode())
    await connection.send_command("EVAL", _NEW_RUN, 1, _TAGS, run[1] if run else b"?", secrets.token_hex(8))
    await connection.read_response()


def _shelf(fields: Mapping[str, bytes], shared: Mapping[str, bytes]) -> Shelf:
    generations = None
    if ":gen" in fields and ":tags" in shared:
        generations = Generations(
            customer=fields[":gen"].decode(),
            tags=shared[":tags"].decode(),
            epoch=shared[":epoch"].decode(),
            tokens={tag: name.decode() for tag, name in shared.items() if not tag.startswith(":")},
            own_tokens={tag[5:]: name.decode() for tag, name in fields.items() if tag.startswith(":tag:")},
        )
    return Shelf(values=fields, generations=generations)


def _pairs(flat: Sequence[bytes]) -> dict[str, bytes]:
    return {flat[at].decode(errors="replace"): flat[at + 1] for at in range(0, len(flat), 2)}


def _under(write: Write) -> tuple[str, str, str]:
    return write.key, write.generations.tags, write.generations.customer


def _together(writes: Sequence[Write]) -> dict[tuple[str, str, str], list[Write]]:
    """The writes to one shelf under the same generations, in their order."""
    groups: dict[tuple[str, str, str], list[Write]] = {}
    for write in writes:
        groups.setdefault(_under(write), []).append(write)
    return groups


@cache
def _sha(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
