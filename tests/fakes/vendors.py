"""One data vendor's provider at a desk of its own: a local server, our database, and a clock moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from redis.asyncio import Redis

from models.enrichment.types import CompanyEnrichment, CompanyFunding, CompanyNews, NewsArticle, Section
from models.errors import RapportError
from models.resilience.deadline import Deadline
from models.settings import ContextSettings
from providers.base import ProviderResources
from providers.database import Database, migrate
from providers.external.clearbit import ClearbitProvider
from providers.external.company import VENDORS, CompanyProvider
from providers.external.crunchbase import CrunchbaseProvider
from providers.external.news_api import NewsApiProvider
from providers.tables import Account, Contact, Customer
from tests.fakes.enrichment import HandClock
from tests.fakes.vendor_server import (
    KEYS,
    UPSTREAM_TEXT,
    Fault,
    VendorServer,
    article,
    company,
    funding_round,
    organization,
)

CUSTOMER = "customer_acme_7"
DOMAIN = "acme.example"

PROVIDERS: dict[str, type[CompanyProvider[Any]]] = {
    "clearbit": ClearbitProvider,
    "crunchbase": CrunchbaseProvider,
    "news_api": NewsApiProvider,
}
KNOWN: dict[str, Section] = {
    "clearbit": CompanyEnrichment(
        legal_name="Acme Corporation, Inc.",
        domain=DOMAIN,
        industry="Internet Software & Services",
        employees=420,
        employees_range="251-1K",
        annual_revenue_usd=250_000_000.0,
        founded_year=1949,
        country="US",
        description="Makes everything that a coyote needs.",
        technologies=("google_analytics", "salesforce"),
    ),
    "crunchbase": CompanyFunding(
        total_raised_usd=21_500_000.0,
        funding_rounds=2,
        last_round_type="series_a",
        last_round_at=datetime(2023, 5, 4, tzinfo=UTC),
        last_round_usd=1_000_000.0,
        investors=("Sequoia", "Index"),
        ipo_status="private",
    ),
    "news_api": CompanyNews(
        total=2,
        articles=(
            NewsArticle(
                title="Acme Corp ships rockets",
                source="The Daily",
                url="https://news.example/story",
                published_at=datetime(2024, 11, 13, 18, tzinfo=UTC),
            ),
            NewsArticle(
                title="Acme Corp hires",
                source="The Daily",
                url="https://news.example/story",
                published_at=datetime(2024, 11, 2, 8, tzinfo=UTC),
            ),
        ),
    ),
}


@dataclass(slots=True, kw_only=True)
class Desk:
    """A vendor's provider, the server it talks to, and the clock by which it waits."""

    vendor: str
    provider: CompanyProvider[Any]
    server: VendorServer
    clock: HandClock
    build: Callable[..., CompanyProvider[Any]]

    async def fetch(
        self, customer_id: str = CUSTOMER, *, timeout_s: float = 20.0, known: dict[str, Section] | None = None
    ) -> Section | None:
        section: Section | None = await self.provider.fetch(
            customer_id, deadline=Deadline.after(timeout_s), known=known or {}
        )
        return section

    async def failure(self, *faults: Fault) -> RapportError:
        """The error of a fetch that meets these; it quotes neither the vendor nor the key."""
        self.server.faults += faults
        with pytest.raises(RapportError) as caught:
            await self.fetch()
        assert UPSTREAM_TEXT not in str(caught.value)
        assert KEYS[self.vendor] not in str(caught.value)
        return caught.value


#: Customer -> name and domain of the company.
_COMPANIES = {
    CUSTOMER: ("Acme Corp", f"WWW.{DOMAIN}"),
    "customer_1": ("No Site", ""),
    "customer_2": ("Odd", "dana.reyes@mail.example"),
    "customer_3": ("Zzz", "zzz.example"),
}
_LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


async def fill(url: str) -> None:
    """Create a database with four customers."""
    await asyncio.to_thread(migrate, url)
    database = Database(url)
    async with database.transaction() as session:
        for number, (customer, (name, domain)) in enumerate(_COMPANIES.items()):
            for row in (
                Account(
                    account_id=f"acc_{number}",
                    company_name=name,
                    industry="Dentistry",
                    country="DE",
                    domain=domain,
                    employees=9,
                    created_at=_LONG_AGO,
                ),
                Customer(
                    customer_id=customer,
                    account_id=f"acc_{number}",
                    lifecycle="new",
                    health_score=50,
                    churn_risk=0.5,
                    customer_since=_LONG_AGO,
                    marketing_consent=False,
                    updated_at=_LONG_AGO,
                ),
                Contact(
                    contact_id=f"con_{number}",
                    customer_id=customer,
                    name="Jordan Blake",
                    email="jordan.blake@acme.example",
                    role="owner",
                    is_primary=True,
                    created_at=_LONG_AGO,
                ),
            ):
                session.add(row)
                await session.flush()
    await database.close()


@asynccontextmanager
async def vendor_server() -> AsyncIterator[VendorServer]:
    """A server that knows Acme; every fault that a test scripted must have been met."""
    async with VendorServer() as running:
        running.companies[DOMAIN] = company(DOMAIN)
        running.organizations[DOMAIN] = organization(1)
        running.rounds[organization(1)["identifier"]["uuid"]] = [
            funding_round(11, "2021-02-03", investors=("Index", "Sequoia")),
            funding_round(12, "2023-05-04", investors=("Sequoia", "person:Robin Angel")),
        ]
        running.articles = [
            article("Acme Corp hires", "2024-11-02T08:00:00Z"),
            article("Acme Corp ships rockets", "2024-11-13T18:00:00Z"),
            article("Acme Corp opened long ago", "2024-01-01T00:00:00Z"),
            article("Somebody else", "2024-11-12T00:00:00Z", description="Nothing of interest"),
        ]
        yield running
        assert running.faults == [], "the provider made fewer calls than the test scripted"


def settings_of(server: VendorServer, **more: object) -> ContextSettings:
    addresses = {name.base_url: server.url for name in VENDORS.values()}
    keys = {VENDORS[vendor].key: key for vendor, key in KEYS.items()}
    return ContextSettings.model_validate({**addresses, **keys, **more})


@asynccontextmanager
async def open_desk(vendor: str, server: VendorServer, database_url: str) -> AsyncIterator[Desk]:
    """The vendor's provider, asking `server`; whatever the desk builds is closed in the end."""
    clock, database = HandClock(), Database(database_url)
    built: list[CompanyProvider[Any]] = []

    def build(*, redis: Redis | None = None, **settings: object) -> CompanyProvider[Any]:
        resources = ProviderResources(
            database=database, now=clock.wall, redis=redis, settings=settings_of(server, **settings)
        )
        built.append(PROVIDERS[vendor](resources, clock=clock))
        return built[-1]

    try:
        yield Desk(vendor=vendor, provider=build(), server=server, clock=clock, build=build)
    finally:
        for provider in built:
            await provider.close()
        await database.close()
