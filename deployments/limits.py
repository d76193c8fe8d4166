"""The rate limit of the HTTP entrances: tokens are leased from Redis, so that spending one needs no network call."""

from __future__ import annotations

from models.resilience.bucket import LeasedTokenBucket, Limit, MemoryTokenStore
from models.resilience.redis_bucket import RedisTokenStore
from models.resilience.redis_client import connect
from models.settings import Settings


class CredentialLimiter:
    """`deployments.ingress.services.RateLimiter`: one bucket a principal, shared by all replicas."""

    def __init__(self, tokens: LeasedTokenBucket) -> None:
        self._tokens = tokens

    async def try_take(self, principal: str, *, per_minute: int) -> float:
        return await self._tokens.take(principal, Limit.per_minute(per_minute))


def build_rate_limiter(settings: Settings) -> CredentialLimiter:
    """Limits over all replicas with Redis, per replica without."""
    url = settings.redis.url.get_secret_value()
    store = RedisTokenStore(connect(url, timeout_s=settings.redis.timeout_s)) if url else MemoryTokenStore()
    return CredentialLimiter(LeasedTokenBucket(store))
