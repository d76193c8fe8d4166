"""What is particular to each data vendor's format, over real connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from models.enrichment.types import CompanyEnrichment, CompanyFunding, CompanyNews
from models.errors import Forbidden, ProviderUnavailable
from providers.external import crunchbase, news_api
from tests.fakes.vendor_server import (
    Fault,
    Json,
    VendorServer,
    article,
    company,
    funding_round,
    organization,
    refusal,
    whole,
)
from tests.fakes.vendors import DOMAIN, KNOWN, Desk, fill, open_desk, vendor_server

ACME_UUID = organization(1)["identifier"]["uuid"]


@pytest.fixture(scope="module")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('vendors')}/rapport.db"
    asyncio.run(fill(url))
    return url


@pytest.fixture
async def server() -> AsyncIterator[VendorServer]:
    async with vendor_server() as running:
        yield running


@pytest.fixture
async def clearbit(server: VendorServer, database_url: str) -> AsyncIterator[Desk]:
    async with open_desk("clearbit", server, database_url) as desk:
        yield desk


@pytest.fixture
async def crunch(server: VendorServer, database_url: str) -> AsyncIterator[Desk]:
    async with open_desk("crunchbase", server, database_url) as desk:
        yield desk


@pytest.fixture
async def news(server: VendorServer, database_url: str) -> AsyncIterator[Desk]:
    async with open_desk("news_api", server, database_url) as desk:
        yield desk


async def test_clearbit_has_no_data_while_a_lookup_is_queued(clearbit: Desk) -> None:
    clearbit.server.queued.add(DOMAIN)
    assert await clearbit.fetch() is None
    clearbit.server.queued.clear()
    assert await clearbit.fetch() == KNOWN["clearbit"]


async def test_a_domain_that_clearbit_finds_invalid_has_no_data(clearbit: Desk) -> None:
    clearbit.server.faults.append(refusal(422))
    assert await clearbit.fetch() is None


async def test_a_spent_quota_at_clearbit_is_a_refusal(clearbit: Desk) -> None:
    clearbit.server.over_quota = True
    assert isinstance(await clearbit.failure(), Forbidden)


async def test_an_address_that_is_not_clearbits_is_not_taken_for_an_unknown_company(clearbit: Desk) -> None:
    clearbit.provider = clearbit.build(clearbit_base_url=f"{clearbit.server.url}/elsewhere")
    assert isinstance(await clearbit.failure(), ProviderUnavailable)


@pytest.mark.parametrize("form", ["epoch", "left"])
async def test_clearbit_says_when_its_limit_is_reset(clearbit: Desk, form: str) -> None:
    reset = 90 if form == "left" else round((clearbit.clock.wall() + timedelta(seconds=90)).timestamp())
    error = await clearbit.failure(refusal(429, {"x-ratelimit-limit": "600", "x-ratelimit-reset": str(reset)}))
    assert error.retry_after_s == pytest.approx(90.0)


@pytest.mark.parametrize(
    "sparse", [{"domain": DOMAIN}, company(DOMAIN, category=None, geo=None, metrics=None, tech=None, legalName=None)]
)
async def test_what_clearbit_does_not_say_stays_unknown(clearbit: Desk, sparse: Json) -> None:
    clearbit.server.companies[DOMAIN] = sparse
    section = await clearbit.fetch()
    assert isinstance(section, CompanyEnrichment)
    assert section.domain == DOMAIN
    assert (section.legal_name, section.industry, section.employees, section.country) == (None, None, None, None)
    assert section.technologies == ()


async def test_texts_of_a_vendor_are_bounded_and_printable(clearbit: Desk) -> None:
    clearbit.server.companies[DOMAIN] = company(
        DOMAIN, legalName="Ac\u202eme\x00\x07 \n Inc", description="long " * 10_000, tech=["t" * 500] * 500
    )
    section = await clearbit.fetch()
    assert isinstance(section, CompanyEnrichment)
    assert section.legal_name == "Acme Inc"
    assert len(section.description) <= 1000
    assert len(section.technologies) == 50
    assert {len(name) for name in section.technologies} == {100}


async def test_crunchbase_is_asked_in_its_own_words(crunch: Desk) -> None:
    await crunch.fetch()
    search, card = crunch.server.calls
    assert (search.method, search.path) == ("POST", "/api/v4/searches/organizations")
    assert search.headers["content-type"] == "application/json"
    assert json.loads(search.body)["limit"] == 1
    assert card.path == f"/api/v4/entities/organizations/{ACME_UUID}/cards/raised_funding_rounds"
    assert card.query["order"] == "announced_on desc"


async def test_rounds_come_page_by_page(crunch: Desk) -> None:
    count = crunchbase.PAGE + 30
    crunch.server.rounds[ACME_UUID] = [
        funding_round(number, f"{1900 + number}-01-01", investors=(f"Fund {number}",)) for number in range(count)
    ]
    section = await crunch.fetch()
    assert isinstance(section, CompanyFunding)
    assert section.investors[:2] == (f"Fund {count - 1}", f"Fund {count - 2}")
    _, first, second = crunch.server.calls
    assert "after_id" not in first.query
    assert second.query["after_id"] == f"00000000-0000-4000-8000-{count - crunchbase.PAGE:012d}"


async def test_rounds_are_not_paged_for_ever(crunch: Desk) -> None:
    crunch.server.rounds[ACME_UUID] = [funding_round(number, "2020-01-01") for number in range(900)]
    await crunch.fetch()
    assert len(crunch.server.calls) == 1 + crunchbase.MAX_PAGES


async def test_a_company_without_rounds_costs_one_call(crunch: Desk) -> None:
    crunch.server.organizations[DOMAIN] = organization(
        1, funding_total=None, num_funding_rounds=0, last_funding_at=None, last_funding_type=None, ipo_status="public"
    )
    assert await crunch.fetch() == CompanyFunding(
        total_raised_usd=None,
        funding_rounds=0,
        last_round_type=None,
        last_round_at=None,
        last_round_usd=None,
        investors=(),
        ipo_status="public",
    )
    assert len(crunch.server.calls) == 1


async def test_a_round_of_unknown_size_has_no_amount(crunch: Desk) -> None:
    crunch.server.rounds[ACME_UUID] = [funding_round(1, "2023-05-04", money_raised=None, investor_identifiers=None)]
    section = await crunch.fetch()
    assert isinstance(section, CompanyFunding)
    assert (section.last_round_usd, section.investors) == (None, ())


async def test_an_identifier_of_crunchbase_cannot_lead_to_another_path(crunch: Desk) -> None:
    crunch.server.organizations[DOMAIN] = organization(1, identifier={"uuid": "../../searches/people", "value": "x"})
    assert isinstance(await crunch.failure(), ProviderUnavailable)
    assert len(crunch.server.calls) == 1


async def test_news_are_asked_for_by_the_quoted_name(news: Desk) -> None:
    await news.fetch()
    [call] = news.server.calls
    assert call.path == "/v2/everything"
    assert call.query == {
        "q": '"Acme Corp"',
        "searchIn": "title,description",
        "from": "2024-10-17",
        "language": "en",
        "sortBy": "publishedAt",
        "pageSize": "20",
        "page": "1",
    }


def stories(count: int, *, title: str = "Acme Corp, part {}", **changes: object) -> list[Json]:
    return [article(title.format(number), f"2024-11-10T10:{number:02d}:00Z", **changes) for number in range(count)]


async def test_a_page_that_holds_enough_is_the_only_one(news: Desk) -> None:
    news.server.articles = stories(45)
    section = await news.fetch()
    assert isinstance(section, CompanyNews)
    assert section.total == 45
    assert [item.title for item in section.articles[:2]] == ["Acme Corp, part 44", "Acme Corp, part 43"]
    assert len(section.articles) == news_api.ARTICLES
    assert len(news.server.calls) == 1


async def test_a_page_of_withdrawn_and_repeated_articles_is_followed_by_the_next(news: Desk) -> None:
    repeated = stories(30, title="Acme Corp again")
    repeated[3] |= {"title": "ACME CORP AGAIN"}
    withdrawn = [article("[Removed]", "2024-11-12T00:00:00Z") for _ in range(5)]
    unreachable = [article("Acme Corp, a trap", "2024-11-12T00:00:00Z", url="javascript:alert(1)")]
    old = article("Acme Corp before that", "2024-11-01T00:00:00Z")
    news.server.articles = [*repeated, *withdrawn, *unreachable, old]
    section = await news.fetch()
    assert isinstance(section, CompanyNews)
    assert [item.title for item in section.articles] == ["Acme Corp again", "Acme Corp before that"]
    assert [call.query["page"] for call in news.server.calls] == ["1", "2"]


async def test_the_end_of_what_a_plan_may_see_ends_the_pages(news: Desk) -> None:
    news.server.articles = [*stories(30, title="Acme Corp again")]
    news.server.max_results = 20
    section = await news.fetch()
    assert isinstance(section, CompanyNews)
    assert len(section.articles) == 1
    assert len(news.server.calls) == 2


async def test_no_news_is_no_data(news: Desk) -> None:
    news.server.articles = []
    assert await news.fetch() is None


def coded(code: str, *, status: int) -> Fault:
    return whole(json.dumps({"status": "error", "code": code, "message": "x"}).encode(), status=status)


@pytest.mark.parametrize("status", [200, 401, 429])
@pytest.mark.parametrize("code", ["apiKeyInvalid", "apiKeyExhausted"])
async def test_newsapi_refuses_by_code_whatever_the_status(news: Desk, code: str, status: int) -> None:
    assert isinstance(await news.failure(coded(code, status=status)), Forbidden)


@pytest.mark.parametrize("status", [200, 426, 429])
async def test_newsapi_slows_us_down_by_code(news: Desk, status: int) -> None:
    error = await news.failure(coded("rateLimited", status=status))
    assert error.retry_after_s == news.provider.pause_s
    await news.failure()
    assert len(news.server.calls) == 1


@pytest.mark.parametrize("status", [200, 400, 426, 500])
async def test_any_other_error_of_newsapi_is_a_failure(news: Desk, status: int) -> None:
    assert isinstance(await news.failure(coded("parameterInvalid", status=status)), ProviderUnavailable)
    assert await news.fetch() == KNOWN["news_api"]


async def test_times_of_articles_are_told_in_utc(news: Desk) -> None:
    news.server.articles = [article("Acme Corp abroad", "2024-11-12T23:30:00+05:30")]
    section = await news.fetch()
    assert isinstance(section, CompanyNews)
    assert section.articles[0].published_at == datetime(2024, 11, 12, 18, 0, tzinfo=UTC)
    assert section.articles[0].published_at.tzinfo is UTC
