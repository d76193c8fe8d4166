"""What customers' people do right now, in Redis: known the moment it is announced, and gone an hour later."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from redis.asyncio import Redis
from redis.exceptions import RedisError

from models.errors import CacheUnavailable

RedisClient: TypeAlias = Redis

KEPT = timedelta(hours=1)
#: Events kept of one customer; of more, the oldest are dropped.
MOST_EVENTS = 500

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """One product event of one contact; two that are equal are the same event."""

    contact_id: str
    name: str
    feature: str | None
    at: datetime


class RecentActivity:
    """The last hour's events of each customer, as a sorted set that expires by itself.

    Announcing the same event twice counts once. The client belongs to the caller.
    """

    def __init__(self, redis: Redis, *, prefix: str = "rapport:activity") -> None:
        self._redis = redis
        self._prefix = prefix

    async def record(self, customer_id: str, *, contact_id: str, name: str, feature: str | None, at: datetime) -> None:
        """Remember one event. Raises `CacheUnavailable`."""
        key = self._key(customer_id)
        instant = _microseconds(at)
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.zadd(key, {json.dumps([contact_id, name, feature, instant]): instant})
                pipe.zremrangebyrank(key, 0, -MOST_EVENTS - 1)
                pipe.pexpire(key, KEPT)
                await pipe.execute()
        except (RedisError, OSError) as exc:
            raise CacheUnavailable("recent activity could not be stored") from exc

    async def recent(self, customer_ids: Sequence[str], since: datetime) -> Mapping[str, list[Activity]]:
        """The events of each customer from `since` on, the oldest first. Raises `CacheUnavailable`."""
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for customer_id in customer_ids:
                    pipe.zrangebyscore(self._key(customer_id), _microseconds(since), "+inf")
                found = await pipe.execute()
        except (RedisError, OSError) as exc:
            raise CacheUnavailable("recent activity could not be read") from exc
        return {
            customer_id: [_activity(member) for member in members]
            for customer_id, members in zip(customer_ids, found, strict=True)
        }

    def _key(self, customer_id: str) -> str:
        return f"{self._prefix}:{customer_id}"


def _microseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def _activity(member: bytes | str) -> Activity:
    contact_id, name, feature, instant = json.loads(member)
    return Activity(contact_id=contact_id, name=name, feature=feature, at=_EPOCH + instant * _MICROSECOND)
