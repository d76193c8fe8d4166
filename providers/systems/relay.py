"""Carries changes of customer data from the outbox to every cache, within half a second of their commit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from models.clock import WallClock, utc_now
from models.errors import DatabaseUnavailable, RapportError
from models.telemetry import Metrics, NoMetrics, Transition
from providers.database import Database
from providers.record_tables import ReceivedEvent
from providers.systems.outbox import CONTEXT_CHANGED, PendingMessage, SqlOutbox
from providers.systems.removal import remove_in_batches

logger = logging.getLogger(__name__)

#: `(customer_ids, tags)`: forgets these sections of these customers; no tags means all of them, no ids everybody's.
Invalidate = Callable[[Sequence[str], Sequence[str]], Awaitable[None]]


class ContextChangeRelay:
    """Looks every `interval_s` for undelivered changes and invalidates what they name, each customer once a batch.

    While `invalidate` or the database fails, changes wait and are tried again ever less often, up to `max_backoff_s`.
    Any number of replicas may run one.
    """

    def __init__(
        self,
        database: Database,
        invalidate: Invalidate,
        *,
        interval_s: float = 0.25,
        max_backoff_s: float = 5.0,
        batch: int = 500,
        keep: timedelta = timedelta(days=7),
        wall_clock: WallClock = utc_now,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        metrics: Metrics | None = None,
    ) -> None:
        self._database = database
        self._outbox = SqlOutbox(database, clock=wall_clock)
        self._invalidate = invalidate
        self._interval_s = interval_s
        self._max_backoff_s = max_backoff_s
        self._batch = batch
        self._keep = keep
        self._wall_clock = wall_clock
        self._sleep = sleep
        self._metrics = metrics or NoMetrics()
        self._transition = Transition("context changes", logger)
        self._passing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to deliver; call it inside the event loop. Starting twice is harmless."""
        if self._task is None:
            self._task = asyncio.create_task(self._deliver_forever(), name="context-change-relay")

    async def close(self) -> None:
        """Stop; what is undelivered stays for the next relay."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def deliver(self) -> int:
        """Deliver everything pending now; how many changes.

        Changes that fail hold up none of those behind them: all are tried before the first error is raised. One pass at
        a time, so that many callers do not walk through a long queue side by side. Raises `DatabaseUnavailable`,
        `CacheUnavailable`.
        """
        async with self._passing:
            return await self._pass()

    async def remove_expired(self) -> None:
        """Remove delivered messages and received events older than `keep`; for a periodic clean-up.

        An event that comes again after that counts anew. Raises `DatabaseUnavailable`.
        """
        before = self._wall_clock() - self._keep
        await self._outbox.remove_delivered(before=before)
        await remove_in_batches(self._database, ReceivedEvent.event_id, ReceivedEvent.received_at < before)

    async def _deliver_forever(self) -> None:
        pause_s = self._interval_s
        while True:
            try:
                await self.deliver()
            except Exception as error:  # whatever it was, the changes are still there and the relay must live
                self._transition.down(error)
                pause_s = min(pause_s * 2, self._max_backoff_s)
            else:
                self._transition.up()
                pause_s = self._interval_s
            await self._sleep(pause_s)

    async def _pass(self) -> int:
        total, position = 0, 0
        failure: RapportError | None = None

        async def send(messages: Sequence[PendingMessage]) -> None:
            nonlocal position
            position = messages[-1].message_id
            await self._send(messages)

        while True:
            try:
                delivered = await self._outbox.deliver(send, topic=CONTEXT_CHANGED, limit=self._batch, after=position)
            except DatabaseUnavailable:
                raise
            except RapportError as error:
                failure = failure or error
                continue
            total += delivered
            if delivered < self._batch:
                break
        if failure is not None:
            raise failure
        return total

    async def _send(self, messages: Sequence[PendingMessage]) -> None:
        failure: RapportError | None = None
        for tags, customer_ids in gathered(messages):
            try:
                await self._invalidate(customer_ids, tags)
            except RapportError as error:  # the others are forgotten at least in this process
                failure = failure or error
        if failure is not None:
            raise failure
        now = self._wall_clock()
        for message in messages:
            waited_s = (now - message.created_at).total_seconds()
            self._metrics.observe("context_invalidation_lag_seconds", max(0.0, waited_s))


def gathered(messages: Sequence[PendingMessage]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The changes as `(tags, customer ids)`, each customer and each tag that is meant for everybody once.

    A customer of whom everything changed stands among those without tags only.
    """
    changed: dict[str, set[str]] = {}
    everything: set[str] = set()
    for message in messages:
        tags = message.payload.get("tags") or ()
        changed.setdefault(message.subject_id, set()).update(tags)
        if not tags:
            everything.add(message.subject_id)
    for_everybody = changed.pop("", set())
    groups: dict[tuple[str, ...], list[str]] = {}
    for customer_id, tags in changed.items():
        groups.setdefault(() if customer_id in everything else tuple(sorted(tags)), []).append(customer_id)
    calls = [(tags, tuple(customer_ids)) for tags, customer_ids in groups.items()]
    return [(tuple(sorted(for_everybody)), ()), *calls] if for_everybody else calls
