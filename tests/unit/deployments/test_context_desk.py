"""The desk between the API, the caches and the database: what cannot be told now is left to the outbox."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

import pytest

from deployments.context_desk import ClusterContextDesk
from models.enrichment.events import Event, EventType, ProductActivity
from models.enrichment.types import ContextRequest
from models.errors import (
    CacheUnavailable,
    ContextEnrichmentError,
    DatabaseUnavailable,
    DeadlineExceeded,
    Internal,
    Overloaded,
)
from providers.systems.activity import RecentActivity
from providers.systems.events import Accepted, SqlEvents

AT = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)


@dataclass
class Cluster:
    """The caches, the database and Redis; `log` holds what was done, in order."""

    caches_fail: Exception | None = None
    database_fails: Exception | None = None
    redis_fails: Exception | None = None
    known: set[str] = field(default_factory=set)
    log: list[object] = field(default_factory=list)

    async def read_many(self, customer_ids: Sequence[str], request: ContextRequest) -> bytes:
        return b"{}"

    async def invalidate(self, customer_ids: Sequence[str], tags: Sequence[str]) -> None:
        if self.caches_fail is not None:
            raise self.caches_fail
        self.log.append(("invalidated", tuple(customer_ids), tuple(tags)))

    async def deliver_changes(self) -> None:
        if self.caches_fail is not None:
            raise self.caches_fail
        self.log.append("delivered")

    async def accept(self, events: Sequence[Event]) -> Accepted:
        if self.database_fails is not None:
            raise self.database_fails
        new = tuple(event for event in events if event.event_id not in self.known)
        self.known |= {event.event_id for event in new}
        self.log.append(("kept", len(new)))
        return Accepted(event_ids=tuple(event.event_id for event in events), new=new)

    async def announce(self, customer_ids: Sequence[str], tags: Sequence[str]) -> None:
        if self.database_fails is not None:
            raise self.database_fails
        self.log.append(("announced", tuple(customer_ids), tuple(tags)))

    async def record(self, customer_id: str, *, contact_id: str, name: str, feature: str | None, at: datetime) -> None:
        if self.redis_fails is not None:
            raise self.redis_fails
        self.log.append(("active", customer_id, contact_id, feature))


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def desk(cluster: Cluster) -> ClusterContextDesk:
    return ClusterContextDesk(cluster, cast("SqlEvents", cluster), cast("RecentActivity", cluster))


def activity(event_id: str = "evt_1") -> Event:
    fact = ProductActivity(contact_id="con_1", name="feature_used", feature="Reports", quantity=1)
    return Event(type=EventType.PRODUCT_ACTIVITY, at=AT, event_id=event_id, customer_id="customer_1", fact=fact)


async def test_an_invalidation_that_arrives_needs_no_database(cluster: Cluster, desk: ClusterContextDesk) -> None:
    cluster.database_fails = DatabaseUnavailable("gone")
    await desk.invalidate(["customer_1"], ["usage"])
    assert cluster.log == [("invalidated", ("customer_1",), ("usage",))]


@pytest.mark.parametrize(
    "error",
    [
        CacheUnavailable("redis"),
        ContextEnrichmentError("no replica"),
        DeadlineExceeded("slow"),
        Overloaded("busy"),
        Internal("a defect"),
    ],
)
async def test_an_invalidation_that_does_not_arrive_is_announced_and_said(
    cluster: Cluster, desk: ClusterContextDesk, error: Exception
) -> None:
    cluster.caches_fail = error
    with pytest.raises(CacheUnavailable):
        await desk.invalidate(["customer_1"], ["usage"])
    assert cluster.log == [("announced", ("customer_1",), ("usage",))]


async def test_an_invalidation_that_nobody_can_take_says_so(cluster: Cluster, desk: ClusterContextDesk) -> None:
    cluster.caches_fail, cluster.database_fails = CacheUnavailable("redis"), DatabaseUnavailable("gone")
    with pytest.raises(DatabaseUnavailable):
        await desk.invalidate(["customer_1"], [])


async def test_events_are_kept_noted_and_told_in_this_order(cluster: Cluster, desk: ClusterContextDesk) -> None:
    created = Event(type=EventType.CUSTOMER_CREATED, at=AT, event_id="evt_2", customer_id="customer_2")
    accepted = await desk.accept([activity(), created])
    assert len(accepted.new) == 2
    assert cluster.log == [("kept", 2), ("active", "customer_1", "con_1", "Reports"), "delivered"]


async def test_events_that_are_known_disturb_nobody(cluster: Cluster, desk: ClusterContextDesk) -> None:
    cluster.known = {"evt_1"}
    assert (await desk.accept([activity()])).new == ()
    assert cluster.log == [("kept", 0)]


async def test_kept_events_are_accepted_whatever_fails_afterwards(cluster: Cluster, desk: ClusterContextDesk) -> None:
    cluster.caches_fail = cluster.redis_fails = CacheUnavailable("redis")
    assert len((await desk.accept([activity()])).new) == 1
    assert cluster.log == [("kept", 1)]


async def test_events_that_cannot_be_kept_are_not_accepted(cluster: Cluster, desk: ClusterContextDesk) -> None:
    cluster.database_fails = DatabaseUnavailable("gone")
    with pytest.raises(DatabaseUnavailable):
        await desk.accept([activity()])
    assert cluster.log == []


async def test_without_redis_nobody_is_noted_as_active(cluster: Cluster) -> None:
    await ClusterContextDesk(cluster, cast("SqlEvents", cluster)).accept([activity()])
    assert cluster.log == [("kept", 1), "delivered"]
