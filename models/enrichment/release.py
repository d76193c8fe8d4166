"""No context leaves with personal data unmasked unless the audit trail durably knows of it."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TypeVar

from models.clock import WallClock, utc_now
from models.enrichment.protocol import Contexts
from models.enrichment.selection import AgentView, AgentViews
from models.enrichment.types import ContextReading, ContextRequest, EnrichedContext
from models.errors import DatabaseUnavailable
from models.ids import NewId, new_id
from models.resilience.deadline import Clock, Deadline
from models.safety.audit import hash_subject
from models.safety.protocol import AuditLog
from models.safety.types import AuditRecord
from models.telemetry import Metrics, NoMetrics, principal, request_id

_MARK = b'{"masked":true,'
_Found = TypeVar("_Found")


def release_record(
    action: str, customer_id: str, view: AgentView, *, salt: str, at: datetime, ids: NewId, **details: float
) -> AuditRecord:
    """The line that says to whom which fields of a customer are shown unmasked: a pseudonym, never a value."""
    return AuditRecord(
        audit_id=ids("aud"),
        at=at,
        actor=principal.get() or "unknown",
        action=action,
        subject=hash_subject(salt, customer_id),
        outcome="unmasked",
        request_id=request_id.get(),
        details={"agent_type": view.agent_type, "fields": ",".join(view.unmasked), **details},
    )


@dataclass(slots=True, eq=False)
class Lease:
    """One caller's access to one customer's unmasked view, opened by `record`; `further` counts releases after it."""

    record: AuditRecord
    ends: float
    durable: asyncio.Future[bool]
    further: int = 0

    def covers(self, now: float) -> bool:
        """Whether the audit trail holds its record, and it has not ended."""
        return now < self.ends and self.durable.done() and self.durable.result()


_Key = tuple[str, str, str]


class Leases:
    """The accesses that are open, and what the audit trail is told of them.

    The first release to a caller opens a lease with a `context.release` record; those within `lease_s` after it are
    counted, and told in one `context.releases` record at its end. A crash loses that count, never the fact that access
    was open. A read that fails is counted too: the trail may say too much, never too little. At most `entries` are
    open; the oldest, which would end first, makes room. While the audit log is away, one record at a time probes it.
    """

    def __init__(
        self,
        audit: AuditLog,
        *,
        salt: str,
        lease_s: float,
        patience_s: float,
        entries: int,
        clock: Clock,
        wall_clock: WallClock,
        ids: NewId,
    ) -> None:
        self._audit = audit
        self._salt = salt
        self._lease_s = lease_s
        self._patience_s = patience_s
        self._entries = entries
        self._clock = clock
        self._wall_clock = wall_clock
        self._ids = ids
        self._open: OrderedDict[_Key, Lease] = OrderedDict()
        self._away = False
        self._writes: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def held(self, customer_id: str, view: AgentView) -> bool:
        """Count one more release under an open lease; false when there is none. Never waits."""
        lease = self._open.get((principal.get(), view.key, customer_id))
        if lease is None or not lease.covers(self._clock()):
            return False
        lease.further += 1
        return True

    def ask(self, customer_ids: Collection[str], view: AgentView) -> set[asyncio.Future[bool]] | None:
        """Begin to open access: each future tells whether a record is durable. `None` while the log is away."""
        self._end_due()
        if self._away and self._writes:
            return None
        actor, ends = principal.get(), self._clock() + self._lease_s
        durable: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        opened: dict[_Key, Lease] = {}
        waits: set[asyncio.Future[bool]] = set()
        for customer_id in dict.fromkeys(customer_ids):
            key = (actor, view.key, customer_id)
            if (lease := self._open.get(key)) is not None:
                lease.further += 1
                waits.add(lease.durable)
            else:
                self._open[key] = opened[key] = Lease(self._first(customer_id, view), ends, durable)
        if opened:
            waits.add(durable)
            write = asyncio.create_task(self._write(opened, durable))
            self._writes.add(write)
            write.add_done_callback(self._writes.discard)
        while len(self._open) > self._entries:
            self._end(self._open.popitem(last=False)[1])
        self._set_timer()
        return None if self._away else waits

    async def close(self) -> None:
        """End every lease, and wait for the records under way."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._open:
            self._end(self._open.popitem(last=False)[1])
        await asyncio.gather(*self._writes, return_exceptions=True)

    def _set_timer(self) -> None:
        """Counts are written when leases end, even if nobody reads any more."""
        if self._open and self._timer is None:
            first_s = next(iter(self._open.values())).ends - self._clock()
            self._timer = asyncio.get_running_loop().call_later(max(0.0, first_s), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._end_due()
        self._set_timer()

    def _end_due(self) -> None:
        now = self._clock()
        while self._open and next(iter(self._open.values())).ends <= now:
            self._end(self._open.popitem(last=False)[1])

    async def _write(self, opened: Mapping[_Key, Lease], durable: asyncio.Future[bool]) -> None:
        kept = False
        try:
            records = [lease.record for lease in opened.values()]
            await self._audit.record_durably(records, timeout_s=self._patience_s)
            kept = True
        except DatabaseUnavailable:
            pass  # told to those who wait
        finally:
            for key, lease in () if kept else opened.items():  # the next read asks again
                if self._open.get(key) is lease:
                    del self._open[key]
            self._away = not kept
            durable.set_result(kept)

    def _first(self, customer_id: str, view: AgentView) -> AuditRecord:
        return release_record(
            "context.release",
            customer_id,
            view,
            salt=self._salt,
            at=self._wall_clock(),
            ids=self._ids,
            lease_s=self._lease_s,
        )

    def _end(self, lease: Lease) -> None:
        if not lease.further:
            return
        first = lease.record
        details = {"agent_type": first.details["agent_type"], "release": first.audit_id, "count": lease.further}
        self._audit.record(
            replace(
                first,
                audit_id=self._ids("aud"),
                at=self._wall_clock(),
                action="context.releases",
                request_id="",
                details=details,
            )
        )


class AuditedReader:
    """`Contexts` that release unmasked fields only to a caller whose access is durably in the audit trail.

    Records name a pseudonym, never a value. Opening access runs beside the read itself; a read within an open lease
    waits for nothing. Where the record is not durable within `patience_s`, or by the deadline of the read, the masked
    view is served and counted, and bytes are marked: `ContextReading.masked`, and `"masked": true` at the top of many.
    """

    def __init__(
        self,
        contexts: Contexts,
        views: AgentViews,
        audit: AuditLog,
        *,
        salt: str,
        lease_s: float = 30.0,
        patience_s: float = 1.0,
        entries: int = 10_000,
        clock: Clock = time.monotonic,
        wall_clock: WallClock = utc_now,
        ids: NewId = new_id,
        metrics: Metrics | None = None,
    ) -> None:
        self._contexts = contexts
        self._views = views
        self._metrics = metrics or NoMetrics()
        self._leases = Leases(
            audit,
            salt=salt,
            lease_s=lease_s,
            patience_s=patience_s,
            entries=entries,
            clock=clock,
            wall_clock=wall_clock,
            ids=ids,
        )

    async def read(self, customer_id: str, request: ContextRequest) -> ContextReading:
        """The reading, or the masked one in its place; raises as the reader does."""
        view = self._views.resolve(request)
        if not view.unmasked or self._leases.held(customer_id, view):
            return await self._contexts.read(customer_id, request)
        reading, masked = await self._release((customer_id,), view, request, partial(self._contexts.read, customer_id))
        return replace(reading, masked=True) if masked else reading

    async def read_many(self, customer_ids: Sequence[str], request: ContextRequest) -> bytes:
        """As the reader's; if the access to one of them cannot be recorded, all are masked."""
        view = self._views.resolve(request)
        if not view.unmasked:
            return await self._contexts.read_many(customer_ids, request)
        body, masked = await self._release(customer_ids, view, request, partial(self._contexts.read_many, customer_ids))
        return _MARK + body.removeprefix(b"{") if masked else body

    async def enrich(self, customer_id: str, request: ContextRequest) -> EnrichedContext:
        """The context, or the masked one in its place; raises as the source does."""
        view = self._views.resolve(request)
        if not view.unmasked or self._leases.held(customer_id, view):
            return await self._contexts.enrich(customer_id, request)
        return (await self._release((customer_id,), view, request, partial(self._contexts.enrich, customer_id)))[0]

    async def enrich_many(self, customer_ids: Sequence[str], request: ContextRequest) -> dict[str, EnrichedContext]:
        """As the source's; if the access to one of them cannot be recorded, all are masked."""
        view = self._views.resolve(request)
        if not view.unmasked:
            return await self._contexts.enrich_many(customer_ids, request)
        return (await self._release(customer_ids, view, request, partial(self._contexts.enrich_many, customer_ids)))[0]

    async def close(self) -> None:
        """Hand the counts of open leases to the audit log, which must be closed after this."""
        await self._leases.close()

    async def _release(
        self,
        customer_ids: Collection[str],
        view: AgentView,
        request: ContextRequest,
        find: Callable[[ContextRequest], Awaitable[_Found]],
    ) -> tuple[_Found, bool]:
        """What `find` finds, and whether it had to be masked because the audit trail does not hold the release."""
        waits = self._leases.ask(customer_ids, view)
        if waits is not None:
            found = await find(request)
            if await _all_durable(waits, request.deadline):
                return found, False
        self._metrics.count("context_masked_releases_total")
        return await find(_masked(request, again=waits is not None)), True


async def _all_durable(waits: Collection[asyncio.Future[bool]], deadline: Deadline) -> bool:
    pending = [wait for wait in waits if not wait.done()]
    if pending:
        # Waited for, not awaited: a read that is cancelled must not cancel the record that others wait for.
        await asyncio.wait(pending, timeout=deadline.remaining_s())
    return all(wait.done() and wait.result() for wait in waits)


def _masked(request: ContextRequest, *, again: bool) -> ContextRequest:
    """The same request for the masked view; what was just fetched anew need not be once more."""
    return replace(request, masked=True, force_refresh=request.force_refresh and not again)
