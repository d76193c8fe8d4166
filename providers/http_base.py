"""Asking somebody else's HTTP API: within our deadline, within their limits, and never for more than we can hold.

What a source says is not trusted: an answer is read up to a fixed size (after decompression), must be JSON, and never
appears in an error. Keys are put on a request when it is sent and nowhere else; redirects, which would carry them to
another address, are not followed, and proxies and certificates named in environment variables are not used.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, ClassVar

import httpx

from models.enrichment.types import ProviderSpec
from models.errors import CacheUnavailable, ConfigurationError, Forbidden, ProviderUnavailable, RapportError
from models.resilience.bucket import Limit, MemoryTokenStore, TokenStore
from models.resilience.deadline import Deadline
from models.resilience.retry import RetryPolicy
from providers.http_answer import HttpAnswer, json_of, read_at_most, retry_after_s

#: The largest answer that is read, in bytes after decompression.
MAX_ANSWER_BYTES = 2 * 1024 * 1024
#: No source can make us stay away longer than this.
LONGEST_PAUSE_S = 24 * 3600.0
_CONNECT_TIMEOUT_S = 1.0
_LIMITS = httpx.Limits(max_connections=20, max_keepalive_connections=10, keepalive_expiry=30.0)
_REFUSALS = frozenset({401, 402, 403})
_GATEWAY_FAILURES = frozenset({502, 503, 504})


def never_above(requests: int, *, within_s: float) -> Limit:
    """A bucket that lets at most `requests` through in any stretch of `within_s` seconds (two or more).

    Half of them may come at once; a bucket of all of them, refilled in that time, would allow twice as many.
    """
    burst = requests // 2
    return Limit(capacity=burst, per_second=(requests - burst) / within_s)


class HttpProvider(ABC):
    """Base of providers that ask an HTTP API; `close()` it when done.

    A connection that is lost and a gateway that fails (502, 503, 504) are given one more try. A source that refuses us,
    or wants us to slow down, is left alone for as long as it says, or for `pause_s`; until then its error is raised at
    once and nothing is sent. `limit` holds over all replicas that share `tokens`, and per replica while that store is
    away.
    """

    spec: ProviderSpec
    #: At most this much is asked, whatever the demand.
    limit: Limit
    #: Statuses by which the source says that it has nothing.
    no_data: ClassVar[frozenset[int]] = frozenset({404})
    pause_s: ClassVar[float] = 60.0

    def __init__(
        self,
        *,
        base_url: str,
        now: Callable[[], datetime],
        tokens: TokenStore | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._clock = clock
        self._own_tokens = MemoryTokenStore(clock)
        self._tokens = tokens or self._own_tokens
        self._paused_until = -math.inf
        self._paused_by: Callable[[], RapportError] | None = None
        self._retry = RetryPolicy(retries=1, base_s=0.1, retryable=_worth_another_try)
        try:
            self._client = httpx.AsyncClient(
                base_url=base_url,
                headers={"accept": "application/json", "accept-encoding": "gzip", "user-agent": "rapport"},
                limits=_LIMITS,
                follow_redirects=False,
                trust_env=False,
            )
        except httpx.InvalidURL as exc:
            raise ConfigurationError(self.says("its base URL is malformed")) from exc

    @abstractmethod
    def credentials(self) -> Mapping[str, str]:
        """The headers that prove who we are."""

    def has_nothing(self, answer: HttpAnswer) -> bool:
        """Whether the source says that it has no data; asked before `failure`."""
        return answer.status in self.no_data

    def failure(self, answer: HttpAnswer) -> RapportError | None:
        """What is wrong with the answer, if anything; an error with a `retry_after_s` above 0 makes us stay away."""
        match answer.status:
            case 200:
                return None
            case status if status in _REFUSALS:
                return Forbidden(self.says("it refuses our key or account"))
            case 429:
                wait_s = self.retry_after_s(answer) or self.pause_s
                return ProviderUnavailable(self.says("it wants us to slow down")).with_retry_after(wait_s)
            case status if status in _GATEWAY_FAILURES:
                wait_s = self.retry_after_s(answer) or 0.0
                return ProviderUnavailable(self.says(f"it answered {status}")).with_retry_after(wait_s)
            case status:
                return ProviderUnavailable(self.says(f"it answered {status}"))

    def retry_after_s(self, answer: HttpAnswer) -> float | None:
        """How long the source asks us to stay away; `None` if it does not say."""
        return retry_after_s(answer.headers, self._now())

    def says(self, what: str) -> str:
        """A message for the log that names the source."""
        return f"{self.spec.source}: {what}"

    async def ask(
        self,
        method: str,
        path: str,
        *,
        deadline: Deadline,
        params: Mapping[str, str | int] | None = None,
        json: Any = None,
    ) -> Any:
        """The JSON of the answer, or `None` when the source has no data. The request must be safe to repeat.

        Raises `Forbidden`, `ProviderUnavailable`, `DeadlineExceeded`.
        """

        async def exchange() -> Any:
            return await self._exchange(method, path, params=params, json=json, deadline=deadline)

        async with deadline.enforce(self.spec.name):
            return await self._retry.run(exchange, deadline=deadline)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _exchange(
        self, method: str, path: str, *, params: Mapping[str, str | int] | None, json: Any, deadline: Deadline
    ) -> Any:
        self._raise_while_paused()
        await self._take_token()
        # The deadline is enforced around the exchange; only a connection has less time, so that a second try has some.
        timeout = httpx.Timeout(deadline.remaining_s() + 1.0, connect=_CONNECT_TIMEOUT_S)
        request = self._client.build_request(
            method, path, params=params, json=json, headers=self.credentials(), timeout=timeout
        )
        try:
            response = await self._client.send(request, stream=True)
        except httpx.TransportError as exc:
            raise ProviderUnavailable(self.says("no connection")).with_retry_after(0.0) from exc
        try:
            answer = await self._read(response)
        finally:
            await response.aclose()
        if self.has_nothing(answer):
            return None
        if (error := self.failure(answer)) is not None:
            self._pause(error)
            raise error
        if answer.body is None:
            raise ProviderUnavailable(self.says("its answer is not JSON"))
        return answer.body

    async def _read(self, response: httpx.Response) -> HttpAnswer:
        encoding = response.headers.get("content-encoding", "identity").lower()
        try:
            raw = await read_at_most(response.aiter_raw(), encoding=encoding, limit=MAX_ANSWER_BYTES)
        except (httpx.TransportError, ValueError) as exc:
            if response.status_code == 200:
                what = str(exc) if isinstance(exc, ValueError) else "its answer broke off"
                raise ProviderUnavailable(self.says(what)) from exc
            raw = b""  # a refusal is one, whatever it is wrapped in
        return HttpAnswer(
            status=response.status_code,
            headers=response.headers,
            body=json_of(raw, response.headers.get("content-type", "")),
        )

    async def _take_token(self) -> None:
        key = f"provider:{self.spec.name}"
        try:
            lease = await self._tokens.lease(key, self.limit, 1)
        except CacheUnavailable:
            lease = await self._own_tokens.lease(key, self.limit, 1)
        if not lease.granted:
            error = ProviderUnavailable(self.says("we have asked as often as we may"))
            raise error.with_retry_after(max(lease.retry_after_s, 0.001))

    def _pause(self, error: RapportError) -> None:
        wait_s = self.pause_s if isinstance(error, Forbidden) else error.retry_after_s
        if wait_s:
            self._paused_until = self._clock() + min(wait_s, LONGEST_PAUSE_S)
            self._paused_by = partial(type(error), f"{error} (not asked again yet)")  # not the error and its frames

    def _raise_while_paused(self) -> None:
        left_s = self._paused_until - self._clock()
        if self._paused_by is not None and left_s > 0:
            raise self._paused_by().with_retry_after(left_s)


def _worth_another_try(error: Exception) -> bool:
    # Only what may be tried again at once says 0; a source that names a time is not asked before it.
    return isinstance(error, ProviderUnavailable) and error.retry_after_s == 0.0
