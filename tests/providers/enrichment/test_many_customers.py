"""One customer or a thousand: the same values, few statements, and none that reads a whole table."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, text

import providers.registry
from models.enrichment.protocol import BulkContextProvider, ContextProvider
from models.enrichment.types import Scope, Section
from models.errors import ConfigurationError, UnknownCustomer
from models.resilience.deadline import Deadline
from providers.base import ProviderResources
from providers.database import Database
from providers.registry import BUILT_IN, build_providers, register_provider
from tests.fakes.business import (
    add,
    add_customer,
    contact,
    conversation,
    days,
    deal,
    minutes,
    security_event,
    subscription,
    ticket,
    used,
)
from tests.fakes.enrichment import NOW, FakeProvider

ON_THE_DATABASE = tuple(
    name for name, target in BUILT_IN.items() if target.startswith(("providers.internal.", "providers.realtime."))
)
BUSY, QUIET, ROWS_ONLY, UNKNOWN = "customer_1", "customer_2", "customer_3", "customer_4"


def built(database: Database) -> list[ContextProvider]:
    return build_providers(ProviderResources(database=database, now=lambda: NOW), ON_THE_DATABASE)


async def add_business(database: Database) -> None:
    """A customer with everything, one with nothing, and one who appears only in what somebody reported."""
    await add_customer(database, BUSY)
    await add_customer(database, QUIET)
    await add(
        database,
        contact("Ada", of=BUSY, primary=True),
        subscription(1, started=days(300), status="canceled", of=BUSY),
        subscription(2, started=days(3), renewal_at=NOW + days(9), of=BUSY),
        used("login", ago=days(2), of=BUSY),
        used("feature_used", ago=minutes(3), feature="Tasks", of=BUSY),
        deal(1, "proposal", of=BUSY),
        security_event(1, ago=days(3), of=BUSY),
        *(conversation(number, csat=5, of=customer) for customer in (BUSY, ROWS_ONLY) for number in (1, 2, 3)),
        ticket(1, "open", of=BUSY),
        ticket(1, "pending", of=ROWS_ONLY),
    )


async def test_many_are_answered_as_each_alone(database: Database) -> None:
    await add_business(database)
    asked = [UNKNOWN, BUSY, QUIET, BUSY, ROWS_ONLY]
    for provider in built(database):
        assert isinstance(provider, BulkContextProvider)
        together = await provider.fetch_many(asked, deadline=Deadline.after(20), known={})
        alone: dict[str, Section | None] = {}
        for customer_id in asked:
            try:
                alone[customer_id] = await provider.fetch(customer_id, deadline=Deadline.after(20), known={})
            except UnknownCustomer:
                assert provider.spec.name in ("customer_intelligence", "account_health")
        assert together == alone, provider.spec.name
        assert await provider.fetch_many([], deadline=Deadline.after(20), known={}) == {}
        if provider.spec.scope is Scope.CUSTOMER:
            assert together[BUSY] != together[QUIET], provider.spec.name


async def test_a_thousand_customers_are_read_in_one_go(database: Database) -> None:
    await add_business(database)
    asked = [f"customer_{number}" for number in range(1, 1001)]
    for provider in built(database):
        assert isinstance(provider, BulkContextProvider)
        found = await provider.fetch_many(asked, deadline=Deadline.after(20), known={})
        if provider.spec.name in ("customer_intelligence", "account_health"):
            assert set(found) == {BUSY, QUIET}
        else:
            assert list(found) == asked
        assert found[BUSY] is not None


async def test_one_statement_each_and_none_scans_a_table(database_url: str) -> None:
    if not database_url.startswith("sqlite"):
        pytest.skip("PostgreSQL scans small tables on purpose; SQLite's plan tells whether an index fits")
    database = Database(database_url, pool_size=1)
    await add_business(database)
    ran: list[str] = []

    def listen(connection: Connection) -> None:
        connection.connection.dbapi_connection.set_trace_callback(ran.append)  # type: ignore[union-attr]

    await database.read(listen)
    for provider in built(database):
        ran.clear()
        await provider.fetch(BUSY, deadline=Deadline.after(20), known={})
        [statement] = [statement for statement in ran if statement.startswith("SELECT")]
        plan = await database.read(lambda c, sql=statement: c.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}").all())  # type: ignore[misc]  # a default argument binds each
        # Whoever asks how all agents do has to look at all agents.
        allowed = ("SCAN CONSTANT ROW", "SCAN agents")
        scans = [str(step[-1]) for step in plan if str(step[-1]).startswith("SCAN")]
        assert not [scan for scan in scans if not scan.startswith(allowed)], (provider.spec.name, scans)
        # SQLite builds an index for one query when it finds none that fits.
        assert not [step for step in plan if "AUTOMATIC" in str(step[-1])], provider.spec.name
    await database.close()


class Horoscope(FakeProvider):
    """A provider of somebody else's."""

    def __init__(self, resources: ProviderResources) -> None:
        super().__init__("horoscope", section="company_news")


async def test_a_provider_can_be_registered_at_run_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers.registry, "_registered", {})
    resources = ProviderResources(database=database)
    with pytest.raises(ConfigurationError, match="unknown context provider"):
        build_providers(resources, ["horoscope"])
    register_provider("horoscope", Horoscope)
    [provider] = build_providers(resources, ["horoscope"])
    assert isinstance(provider, Horoscope)
    for taken in ("horoscope", "account_health"):
        with pytest.raises(ConfigurationError, match="twice"):
            register_provider(taken, Horoscope)


async def test_a_query_that_fails_says_so_as_sqlalchemy_does(database: Database) -> None:
    from sqlalchemy import column, select, table

    from models.errors import DatabaseUnavailable
    from providers.queries import Query

    nowhere = Query(select(column("a")).select_from(table("nowhere")))
    with pytest.raises(DatabaseUnavailable):
        await database.read(lambda connection: nowhere.rows(connection))
    assert await database.read(lambda connection: connection.scalar(text("SELECT 1"))) == 1
