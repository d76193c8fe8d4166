"""What happens at this moment: incidents, people at work, our own agents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta

import pytest
from redis.asyncio import Redis

from models.enrichment.types import AgentPerformance, CurrentActivity, OpenIncident, ProductStatus, Scope, Section
from models.errors import CacheUnavailable
from models.resilience.deadline import Deadline
from models.resilience.redis_client import connect
from providers.base import ProviderResources
from providers.database import Database
from providers.registry import build_providers
from providers.systems.activity import MOST_EVENTS, Activity, RecentActivity
from tests.fakes.business import (
    CUSTOMER,
    add,
    add_customer,
    agent,
    conversation,
    days,
    incident,
    minutes,
    used,
)
from tests.fakes.enrichment import NOW
from tests.fakes.redis_server import RedisServer

INSTANT = timedelta(microseconds=1)


async def fetch(
    database: Database, name: str, redis: Redis | None = None, customer_id: str = CUSTOMER
) -> Section | None:
    [provider] = build_providers(ProviderResources(database=database, now=lambda: NOW, redis=redis), [name])
    return await provider.fetch(customer_id, deadline=Deadline.after(20), known={})


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    started = RedisServer()
    yield started
    started.stop()


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator[Redis]:
    client = connect(server.url)
    await client.flushdb()
    yield client
    await client.aclose()


class TestProductStatus:
    async def test_nothing_is_wrong(self, database: Database) -> None:
        await add(database, incident(1, "critical", ago=days(3), lasted=days(2)))
        status = await fetch(database, "product_status", customer_id="*")
        assert status == ProductStatus(status="operational", incidents=(), resolved_24h=0)

    @pytest.mark.parametrize(
        ("severity", "status"),
        [("minor", "degraded"), ("odd", "degraded"), ("major", "outage"), ("critical", "outage")],
    )
    async def test_the_status_follows_from_the_worst(self, database: Database, severity: str, status: str) -> None:
        await add(database, incident(1, "minor", ago=minutes(5)), incident(2, severity, ago=days(40)))
        found = await fetch(database, "product_status", customer_id="*")
        assert isinstance(found, ProductStatus)
        assert found.status == status

    async def test_the_worst_and_newest_come_first_and_ends_count_to_the_instant(self, database: Database) -> None:
        await add(
            database,
            incident(1, "minor", ago=minutes(9)),
            incident(2, "major", ago=days(2)),
            incident(3, "major", ago=days(1), lasted=days(1) + INSTANT),
            incident(4, "critical", ago=days(1), lasted=days(1)),
            incident(5, "critical", ago=days(2), lasted=days(1) + INSTANT),
            incident(6, "critical", ago=days(2), lasted=days(1)),
            incident(7, "critical", ago=-INSTANT),
        )

        def shown(number: int, severity: str, ago: timedelta) -> OpenIncident:
            return OpenIncident(
                component="calendar", title=f"incident {number}", severity=severity, started_at=NOW - ago
            )

        assert await fetch(database, "product_status", customer_id="*") == ProductStatus(
            status="outage",
            incidents=(shown(3, "major", days(1)), shown(2, "major", days(2)), shown(1, "minor", minutes(9))),
            resolved_24h=2,
        )


class TestAgentPerformance:
    async def test_without_agents_there_is_nothing_to_average(self, database: Database) -> None:
        await add(database, conversation(1, ago=minutes(30), csat=1))
        assert await fetch(database, "agent_performance", customer_id="*") == AgentPerformance(
            agents_available=0,
            agents_total=0,
            open_conversations=0,
            conversations_24h=0,
            resolution_rate_24h=None,
            avg_handle_minutes_24h=None,
            avg_csat_30d=None,
        )

    async def test_only_talks_of_our_agents_count(self, database: Database) -> None:
        await add(
            database,
            *(agent(number, status) for number, status in enumerate(("online", "online", "busy", "offline"), 1)),
            conversation(1, agent="agt_1", ago=minutes(60), lasted=minutes(10), csat=4),
            conversation(2, agent="agt_2", ago=days(1), lasted=minutes(26), resolved=False),
            conversation(3, agent="agt_2", ago=minutes(5), csat=5, resolved=False),
            conversation(4, agent="agt_4", ago=minutes(5), lasted=minutes(6), of=None),
            conversation(5, agent="agt_1", ago=days(1) + INSTANT, lasted=minutes(1), csat=1),
            conversation(6, agent="agt_1", ago=days(30), lasted=minutes(1), csat=3),
            conversation(7, agent="agt_1", ago=days(30) + INSTANT, csat=1),
            conversation(8, agent="agt_9", ago=minutes(20), csat=1),
            conversation(9, agent=None, ago=minutes(20), csat=1),
            conversation(10, agent="agt_1", ago=-INSTANT, csat=1),
        )
        assert await fetch(database, "agent_performance", customer_id="*") == AgentPerformance(
            agents_available=2,
            agents_total=4,
            open_conversations=2,
            conversations_24h=4,
            resolution_rate_24h=0.5,
            avg_handle_minutes_24h=18.0,
            avg_csat_30d=3.25,
        )


def test_what_is_the_same_for_everyone_is_fetched_once() -> None:
    from providers.realtime.agent_performance import AgentPerformanceProvider
    from providers.realtime.product_status import ProductStatusProvider

    assert {AgentPerformanceProvider.spec.scope, ProductStatusProvider.spec.scope} == {Scope.EVERYONE}


class TestCurrentActivity:
    async def test_nobody_was_ever_there(self, database: Database, redis: Redis) -> None:
        await add_customer(database)
        assert await fetch(database, "current_activity", redis) == CurrentActivity(
            active_now=False, last_seen_at=None, active_people_15m=0, events_1h=0, recent_features=()
        )

    async def test_the_database_alone_tells_of_the_last_hour(self, database: Database) -> None:
        await add_customer(database)
        await add(database, used("login", ago=days(50)), used("feature_used", ago=days(20), feature="Inventory"))
        assert await fetch(database, "current_activity") == CurrentActivity(
            active_now=False, last_seen_at=NOW - days(20), active_people_15m=0, events_1h=0, recent_features=()
        )
        await add(
            database,
            used("login", ago=minutes(60), by="con_4"),
            used("login", ago=minutes(60) + INSTANT, by="con_5"),
            used("login", ago=minutes(15), by="con_3"),
            used("feature_used", ago=minutes(15) - INSTANT, feature="Tasks", quantity=3, by="con_2"),
            used("feature_used", ago=minutes(2), feature="Reports", by="con_2"),
            used("feature_used", ago=minutes(1), feature="Tasks"),
            used("login", ago=-INSTANT, by="con_6"),
        )
        assert await fetch(database, "current_activity") == CurrentActivity(
            active_now=True,
            last_seen_at=NOW - minutes(1),
            active_people_15m=2,
            events_1h=7,
            recent_features=("Tasks", "Reports"),
        )

    async def test_an_event_that_redis_and_the_database_know_counts_once(
        self, database: Database, redis: Redis
    ) -> None:
        await add_customer(database)
        await add(database, used("feature_used", ago=minutes(5), feature="Tasks", quantity=4))
        recent = RecentActivity(redis)
        for feature, ago in (("Tasks", minutes(5)), ("Calendar", minutes(1)), ("Reports", minutes(61))):
            for _ in range(2):
                await recent.record(CUSTOMER, contact_id="con_1", name="feature_used", feature=feature, at=NOW - ago)
        await recent.record(CUSTOMER, contact_id="con_2", name="login", feature=None, at=NOW + INSTANT)
        assert await fetch(database, "current_activity", redis) == CurrentActivity(
            active_now=True,
            last_seen_at=NOW - minutes(1),
            active_people_15m=1,
            events_1h=5,
            recent_features=("Calendar", "Tasks"),
        )

    async def test_without_redis_the_database_is_enough(self, database: Database) -> None:
        await add_customer(database)
        await add(database, used("feature_used", ago=minutes(5), feature="Tasks"))
        gone = RedisServer()
        client = connect(gone.url)
        try:
            alone = await fetch(database, "current_activity")
            gone.pause()
            assert await fetch(database, "current_activity", client) == alone
            gone.stop()
            assert await fetch(database, "current_activity", client) == alone
        finally:
            await client.aclose()
            if gone.process.poll() is None:
                gone.stop()


class TestRecentActivity:
    async def test_events_come_back_by_customer_and_time(self, redis: Redis) -> None:
        recent = RecentActivity(redis)

        def event(ago: timedelta) -> Activity:
            return Activity(contact_id="con_ü", name="feature_used", feature="Tasks", at=NOW - ago)

        async def record(customer_id: str, one: Activity) -> None:
            await recent.record(customer_id, contact_id=one.contact_id, name=one.name, feature=one.feature, at=one.at)

        for ago in (minutes(1), minutes(3) + INSTANT, minutes(3), minutes(2)):
            await record("customer_1", event(ago))
        await record("customer_2", event(minutes(1)))
        assert await recent.recent(["customer_2", "customer_1", "customer_3"], NOW - minutes(3)) == {
            "customer_1": [event(minutes(3)), event(minutes(2)), event(minutes(1))],
            "customer_2": [event(minutes(1))],
            "customer_3": [],
        }
        assert await recent.recent([], NOW) == {}

    async def test_it_keeps_the_newest_and_for_an_hour(self, redis: Redis) -> None:
        recent = RecentActivity(redis)
        ages = [timedelta(seconds=number) for number in range(MOST_EVENTS + 7)]
        for ago in ages:
            await recent.record(CUSTOMER, contact_id="con_1", name="login", feature=None, at=NOW - ago)
        kept = (await recent.recent([CUSTOMER], NOW - days(1)))[CUSTOMER]
        assert [event.at for event in kept] == [NOW - ago for ago in reversed(ages[:MOST_EVENTS])]
        [key] = await redis.keys()
        assert 3590 < await redis.ttl(key) <= 3600

    async def test_a_lost_redis_has_a_name(self) -> None:
        gone = RedisServer()
        gone.stop()
        client = connect(gone.url)
        recent = RecentActivity(client)
        with pytest.raises(CacheUnavailable):
            await recent.recent([CUSTOMER], datetime.min.replace(tzinfo=NOW.tzinfo))
        with pytest.raises(CacheUnavailable):
            await recent.record(CUSTOMER, contact_id="con_1", name="login", feature=None, at=NOW)
        await client.aclose()
