"""What the customer's people do right now."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection, func, literal, null, select, union_all

from models.enrichment.types import CurrentActivity, ProviderSpec, Section
from models.errors import CacheUnavailable
from models.resilience.deadline import Deadline
from models.telemetry import Transition
from providers.base import ProviderResources, SqlProvider, in_chunks
from providers.queries import IDS, NOW, Query, instant, one_of
from providers.tables import Customer, EventName, ProductEvent

if TYPE_CHECKING:
    from providers.systems.activity import RecentActivity

logger = logging.getLogger(__name__)

HOUR = timedelta(hours=1)
ACTIVE = timedelta(minutes=15)
_FEATURES_SHOWN = 5
#: Longer than this Redis is not waited for: the database knows nearly as much.
_REDIS_PATIENCE_S = 0.05

#: An event is known by who did what when; its value is how often.
_Event = tuple[str, str, str | None, datetime]
_Events = dict[_Event, int]
#: The events of the last hour and when the customer was last seen, by customer.
_Stored = Mapping[str, tuple[_Events, datetime | None]]

#: The events of the last hour, and for each kind of event a row without a contact that tells of the newest ever.
_EVENTS = Query(
    union_all(
        select(
            ProductEvent.customer_id,
            ProductEvent.contact_id,
            ProductEvent.name,
            ProductEvent.feature,
            ProductEvent.at,
            ProductEvent.quantity,
        ).where(
            ProductEvent.customer_id.in_(IDS),
            ProductEvent.name.in_(one_of(EventName)),
            ProductEvent.at.between(instant("since"), NOW),
        ),
        *(
            select(
                Customer.customer_id,
                null(),
                null(),
                null(),
                select(func.max(ProductEvent.at))
                .where(
                    ProductEvent.customer_id == Customer.customer_id,
                    ProductEvent.name == name.value,
                    ProductEvent.at <= NOW,
                )
                .scalar_subquery(),
                literal(0),
            ).where(Customer.customer_id.in_(IDS))
            for name in EventName
        ),
    )
)


class CurrentActivityProvider(SqlProvider[CurrentActivity]):
    """Who is at work at this moment: events announced within the last hour, and those the database holds.

    An event known to both counts once. Without Redis the section rests on the database alone.
    """

    spec = ProviderSpec(
        name="current_activity", section="current_activity", tier=2, ttl_s=10.0, stale_while_revalidate_s=10.0
    )

    def __init__(self, resources: ProviderResources) -> None:
        super().__init__(resources)
        self._recent: RecentActivity | None = None
        self._redis = Transition("recent activity", logger)
        if resources.redis is not None:
            from providers.systems.activity import RecentActivity  # only who has Redis needs its library

            self._recent = RecentActivity(resources.redis)

    async def fetch_many(
        self,
        customer_ids: Sequence[str],
        *,
        deadline: Deadline,
        known: Mapping[str, Mapping[str, Section]] | None = None,
    ) -> Mapping[str, CurrentActivity | None]:
        now = self._now()

        def work(connection: Connection) -> _Stored:
            stored: dict[str, tuple[_Events, datetime | None]] = {}
            for ids in in_chunks(customer_ids):
                stored.update(_stored(connection, ids, now))
            return stored

        announced, stored = await asyncio.gather(
            self._announced(customer_ids, now, deadline), self.read(work, deadline)
        )
        return {
            customer_id: _section(stored[customer_id], announced.get(customer_id, {}), now)
            for customer_id in customer_ids
        }

    def load(
        self, connection: Connection, customer_ids: Sequence[str], now: datetime
    ) -> Mapping[str, CurrentActivity | None]:
        stored = _stored(connection, customer_ids, now)
        return {customer_id: _section(mine, {}, now) for customer_id, mine in stored.items()}

    async def _announced(self, customer_ids: Sequence[str], now: datetime, deadline: Deadline) -> Mapping[str, _Events]:
        """The events of the last hour that Redis knows of; none when it does not answer."""
        if self._recent is None:
            return {}
        try:
            async with asyncio.timeout(deadline.child(_REDIS_PATIENCE_S).remaining_s()):
                found = await self._recent.recent(customer_ids, now - HOUR)
        except (CacheUnavailable, TimeoutError) as exc:
            self._redis.down(exc)
            return {}
        self._redis.up()
        return {
            customer_id: {(one.contact_id, one.name, one.feature, one.at): 1 for one in events if one.at <= now}
            for customer_id, events in found.items()
        }


def _stored(connection: Connection, customer_ids: Sequence[str], now: datetime) -> _Stored:
    events: defaultdict[str, _Events] = defaultdict(dict)
    seen: dict[str, datetime] = {}
    rows = _EVENTS.rows(connection, customer_ids, since=now - HOUR, now=now)
    for customer_id, contact_id, name, feature, at, quantity in rows:
        if contact_id is not None:
            event = (contact_id, name, feature, at)
            events[customer_id][event] = events[customer_id].get(event, 0) + quantity
        elif at is not None:
            seen[customer_id] = max(at, seen.get(customer_id, at))
    return {customer_id: (events[customer_id], seen.get(customer_id)) for customer_id in customer_ids}


def _section(stored: tuple[_Events, datetime | None], announced: _Events, now: datetime) -> CurrentActivity:
    written, last_seen_at = stored
    events = announced | written  # the database knows the quantity
    instants = [at for *_, at in events]
    if last_seen_at is not None:
        instants.append(last_seen_at)
    latest: dict[str, datetime] = {}
    for _, _, feature, at in events:
        if feature is not None:
            latest[feature] = max(at, latest.get(feature, at))
    by_time = sorted(latest, key=lambda feature: (now - latest[feature], feature))
    people = {contact_id for contact_id, _, _, at in events if at > now - ACTIVE}
    return CurrentActivity(
        active_now=bool(people),
        last_seen_at=max(instants, default=None),
        active_people_15m=len(people),
        events_1h=sum(events.values()),
        recent_features=tuple(by_time[:_FEATURES_SHOWN]),
    )
