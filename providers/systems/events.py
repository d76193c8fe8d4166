"""Events of other systems: what they report is kept, and the caches are told, in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from models.clock import WallClock, utc_now
from models.enrichment.events import (
    ClosedConversation,
    Event,
    IncidentReport,
    ProductActivity,
    SecurityFinding,
)
from models.enrichment.measures import Measure
from models.errors import FieldError, InvalidRequest
from models.ids import NewId, new_id
from models.telemetry import Metrics, NoMetrics
from providers.database import Database
from providers.record_tables import ReceivedEvent
from providers.systems.outbox import enqueue_context_change
from providers.systems.strategies import record_outcomes
from providers.table_types import Table
from providers.tables import Conversation, Customer, Incident, ProductEvent, SecurityEvent

#: How far the sender's clock may be ahead of ours.
CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """`event_ids` of all events in the order given, and the `new` ones: those that had not been received before."""

    event_ids: tuple[str, ...]
    new: tuple[Event, ...]


class SqlEvents:
    """Keeps what events report and tells the outbox which contexts change.

    A closed conversation counts in those of `experiments`, the active ones with context strategies, that its customer
    takes part in.
    """

    def __init__(
        self,
        database: Database,
        *,
        experiments: Collection[str] = (),
        clock: WallClock = utc_now,
        ids: NewId = new_id,
        metrics: Metrics | None = None,
    ) -> None:
        self._database = database
        self._experiments = frozenset(experiments)
        self._clock = clock
        self._ids = ids
        self._metrics = metrics or NoMetrics()

    async def accept(self, events: Sequence[Event]) -> Accepted:
        """All of the events or none; those whose id is known already change nothing.

        Raises `InvalidRequest` naming the event and field when a customer is unknown, when a record belongs to another
        customer, or when an event lies in the future; `DatabaseUnavailable`.
        """
        now = self._clock()
        named = [event if event.event_id else replace(event, event_id=self._ids("evt")) for event in events]
        for index, event in enumerate(named):
            if event.at > now + CLOCK_SKEW:
                raise _wrong(index, "at", "lies in the future; check the clock of the sender")
        async with self._database.transaction() as session:
            new = await self._remembered(session, named, now)
            await _check_customers(session, new)
            await self._keep_facts(session, new)
            for customer_id, tags in await _outdated(session, new.values()):
                enqueue_context_change(session, customer_id, tags=tags, at=now)
        for index, event in enumerate(named):
            result = "accepted" if index in new else "duplicate"
            self._metrics.count("context_events_total", type=event.type.value, result=result)
        return Accepted(event_ids=tuple(event.event_id for event in named), new=tuple(new.values()))

    async def announce(self, customer_ids: Sequence[str], tags: Sequence[str]) -> None:
        """Have the caches told later that these customers, or these tags, changed. Raises `DatabaseUnavailable`."""
        now = self._clock()
        async with self._database.transaction() as session:
            for customer_id in customer_ids or (None,):
                enqueue_context_change(session, customer_id, tags=tags, at=now)

    async def _remembered(self, session: AsyncSession, events: Sequence[Event], now: datetime) -> dict[int, Event]:
        """Record the ids; the events that are new, by their place in the request."""
        first: dict[str, int] = {}
        for index, event in enumerate(events):
            first.setdefault(event.event_id, index)
        rows = [
            {
                "event_id": event_id,
                "type": events[index].type.value,
                "customer_id": events[index].customer_id,
                "at": events[index].at,
                "received_at": now,
            }
            for event_id, index in sorted(first.items())  # one order everywhere, so that no two batches lock crosswise
        ]
        query = self._insert(ReceivedEvent).values(rows).on_conflict_do_nothing().returning(ReceivedEvent.event_id)
        new = set(await session.scalars(query))
        return {index: events[index] for event_id, index in first.items() if event_id in new}

    async def _keep_facts(self, session: AsyncSession, events: Mapping[int, Event]) -> None:
        activity: list[dict[str, Any]] = []
        records: dict[type[Table], dict[str, tuple[int, dict[str, Any]]]] = {
            Conversation: {},
            SecurityEvent: {},
            Incident: {},
        }
        for index, event in events.items():
            match event.fact:
                case ProductActivity() as fact:
                    activity.append({"customer_id": event.customer_id, "at": event.at, **asdict(fact)})
                case ClosedConversation() as fact:
                    row = {"customer_id": event.customer_id, **asdict(fact)}
                    _, earlier = records[Conversation].get(fact.conversation_id, (index, row))
                    if fact.csat is None and earlier["customer_id"] == event.customer_id:
                        row["csat"] = earlier["csat"]
                    records[Conversation][fact.conversation_id] = index, row
                    await self._count_outcomes(session, event, fact)
                case SecurityFinding() as fact:
                    row = {"customer_id": event.customer_id, "at": event.at, **asdict(fact)}
                    row["event_id"] = row.pop("finding_id")
                    records[SecurityEvent][fact.finding_id] = index, row
                case IncidentReport() as fact:
                    records[Incident][fact.incident_id] = index, asdict(fact)
        if activity:
            await session.execute(insert(ProductEvent), activity)
        await self._upsert(session, Conversation, "conversation_id", "conversation_id", records[Conversation])
        await self._upsert(session, SecurityEvent, "event_id", "finding_id", records[SecurityEvent])
        await self._upsert(session, Incident, "incident_id", "incident_id", records[Incident])

    async def _count_outcomes(self, session: AsyncSession, event: Event, talk: ClosedConversation) -> None:
        measures = {Measure.RESOLVED: float(talk.resolved)}
        if talk.csat is not None:
            measures[Measure.CSAT] = float(talk.csat)
        if talk.agent_id is not None:
            measures[Measure.HANDLE_MINUTES] = (talk.ended_at - talk.started_at) / timedelta(minutes=1)
        await record_outcomes(
            session,
            experiments=self._experiments,
            # Not of the event: a conversation that is reported twice, say once more with its rating, is one outcome.
            event_id=talk.conversation_id,
            customer_id=event.customer_id or "",
            started_at=talk.started_at,
            closed_at=talk.ended_at,
            measures=measures,
        )

    async def _upsert(
        self,
        session: AsyncSession,
        table: type[Conversation | SecurityEvent | Incident],
        key: str,
        field: str,
        records: Mapping[str, tuple[int, dict[str, Any]]],
    ) -> None:
        """Write the records over earlier ones of the same key and customer; a record never changes its customer.

        A rating is kept until another one comes.
        """
        if not records:
            return
        columns = table.__table__.c
        statement = self._insert(table).values([records[value][1] for value in sorted(records)])
        excluded = statement.excluded
        owned = columns.customer_id.is_not_distinct_from(excluded.customer_id) if "customer_id" in columns else None
        changes: dict[str, Any] = {each.name: excluded[each.name] for each in columns if each.name != key}
        if "csat" in columns:
            changes["csat"] = func.coalesce(excluded.csat, columns.csat)
        query = statement.on_conflict_do_update(
            index_elements=[key],
            set_=changes,
            where=owned,
        ).returning(columns[key])
        written = set(await session.scalars(query))
        for value, (index, _) in records.items():
            if value not in written:
                raise _wrong(index, field, "belongs to another customer")

    def _insert(self, table: type[Table]) -> sqlite.Insert | postgresql.Insert:
        if self._database.dialect == "sqlite":
            return sqlite.insert(table)
        return postgresql.insert(table)


async def _check_customers(session: AsyncSession, events: Mapping[int, Event]) -> None:
    """Whoever did something in the product, or is the subject of a finding, must be a customer."""
    needed = {i: event for i, event in events.items() if isinstance(event.fact, ProductActivity | SecurityFinding)}
    if not needed:
        return
    query = select(Customer.customer_id).where(Customer.customer_id.in_({e.customer_id for e in needed.values()}))
    # Until the commit nobody may remove them.
    known = set(await session.scalars(query.with_for_update(read=True, key_share=True)))
    for index, event in needed.items():
        if event.customer_id not in known:
            raise _wrong(index, "customer_id", "is not a customer")


async def _outdated(session: AsyncSession, events: Iterable[Event]) -> list[tuple[str | None, tuple[str, ...]]]:
    """Whose context changes and in which tags, each customer once; without a customer the tags are everybody's."""
    changes: dict[str | None, set[str] | None] = {}
    accounts: set[str] = set()
    for event in events:
        if event.account_id is not None:
            accounts.add(event.account_id)
            continue
        tags = changes.setdefault(event.customer_id, set())
        if not event.tags:
            changes[event.customer_id] = None  # everything, whatever the other events name
        elif tags is not None:
            tags.update(event.tags)
    if accounts:
        query = select(Customer.customer_id).where(Customer.account_id.in_(accounts))
        changes.update(dict.fromkeys(await session.scalars(query)))
    return [(customer_id, tuple(tags or ())) for customer_id, tags in changes.items()]


def _wrong(index: int, field: str, what: str) -> InvalidRequest:
    error = InvalidRequest(f"event {index + 1} of the list cannot be accepted; nothing was")
    error.with_fields(FieldError(f"/events/{index}/{field}", what))
    return error
