"""Recent news from NewsAPI."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, timedelta
from typing import Any

from pydantic import AwareDatetime

from models.enrichment.types import CompanyNews, NewsArticle, ProviderSpec
from models.errors import Forbidden, ProviderUnavailable, RapportError
from models.resilience.deadline import Deadline
from providers.base import ProviderResources
from providers.external.company import Company, CompanyProvider, WireModel, clip
from providers.http_answer import HttpAnswer
from providers.http_base import never_above

#: Articles shown; of each page some are withdrawn or the same story again, so a second one may be needed.
ARTICLES = 10
PAGE = 20
MAX_PAGES = 2
#: The free plan reaches one month back.
WINDOW = timedelta(days=28)
#: What stands in place of an article that its publisher withdrew.
_WITHDRAWN = "[Removed]"
_LONGEST_QUERY = 500
_LONGEST_URL = 2000


class _Source(WireModel):
    name: str | None = None


class _Article(WireModel):
    source: _Source | None = None
    title: str | None = None
    url: str | None = None
    publishedAt: AwareDatetime | None = None


class _Page(WireModel):
    status: str
    totalResults: int
    articles: tuple[_Article, ...]


class NewsApiProvider(CompanyProvider[CompanyNews]):
    """English articles of the last four weeks that name the company in title or description, from API v2.

    Request and paging: https://newsapi.org/docs/endpoints/everything, errors: https://newsapi.org/docs/errors. Names of
    authors are not read. Half of what the plan allows in a day may be asked in 12 hours; 429 does not say until when.
    """

    spec = ProviderSpec(
        name="news_api",
        section="company_news",
        source="news_api",
        tier=2,
        timeout_s=2.5,
        ttl_s=3600.0,
        missing_ttl_s=3600.0,
        stale_while_revalidate_s=3600.0,
        tags=("vendors",),
        third_party=True,
    )
    pause_s = 15 * 60.0

    def __init__(self, resources: ProviderResources, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(resources, clock=clock)
        self.limit = never_above(resources.settings.news_requests_per_day // 2, within_s=12 * 3600.0)

    def credentials(self) -> Mapping[str, str]:
        return {"x-api-key": self._key.get_secret_value()}

    async def load(self, company: Company, deadline: Deadline) -> CompanyNews | None:
        name = " ".join(company.name.replace('"', " ").split())[: _LONGEST_QUERY - 2]
        if not name:
            return None
        total = 0
        found: list[NewsArticle] = []
        for number in range(1, MAX_PAGES + 1):
            body = await self._page(f'"{name}"', number, deadline)
            if body is None:
                break
            page = self.parse(_Page, body)
            total = page.totalResults
            found = _distinct([*found, *_readable(page.articles)])
            if len(found) >= ARTICLES or number * PAGE >= total:
                break
        articles = sorted(found, key=lambda article: article.published_at, reverse=True)
        return CompanyNews(total=total, articles=tuple(articles[:ARTICLES])) if articles else None

    async def _page(self, query: str, number: int, deadline: Deadline) -> Any:
        params: dict[str, str | int] = {
            "q": query,
            "searchIn": "title,description",
            "from": (self._now() - WINDOW).date().isoformat(),
            "language": "en",
            "sortBy": "publishedAt",
            "pageSize": PAGE,
            "page": number,
        }
        return await self.ask("GET", "/v2/everything", params=params, deadline=deadline)

    def has_nothing(self, answer: HttpAnswer) -> bool:
        return super().has_nothing(answer) or _code(answer) == "maximumResultsReached"

    def failure(self, answer: HttpAnswer) -> RapportError | None:
        match _code(answer):
            case "apiKeyDisabled" | "apiKeyExhausted" | "apiKeyInvalid" | "apiKeyMissing":
                return Forbidden(self.says("it refuses our key or account"))
            case "rateLimited":
                wait_s = self.retry_after_s(answer) or self.pause_s
                return ProviderUnavailable(self.says("it wants us to slow down")).with_retry_after(wait_s)
            case str() if answer.status == 200:
                return ProviderUnavailable(self.says("it answered with an error"))
            case _:
                return super().failure(answer)


def _code(answer: HttpAnswer) -> str | None:
    """The code of an error; an error may come under any status."""
    match answer.body:
        case {"status": "error", "code": str(code)}:
            return code
        case _:
            return None


def _readable(articles: Iterable[_Article]) -> list[NewsArticle]:
    return [
        NewsArticle(
            title=title,
            source=clip(article.source.name if article.source else None, 100),
            url=article.url,
            published_at=article.publishedAt.astimezone(UTC),
        )
        for article in articles
        if (title := clip(article.title, 300)) not in ("", _WITHDRAWN)
        and article.publishedAt is not None
        and article.url is not None
        and article.url.startswith(("https://", "http://"))
        and len(article.url) <= _LONGEST_URL
    ]


def _distinct(articles: Iterable[NewsArticle]) -> list[NewsArticle]:
    """The first of those with the same title."""
    first: dict[str, NewsArticle] = {}
    for article in articles:
        first.setdefault(article.title.casefold(), article)
    return list(first.values())
