"""Funding from Crunchbase."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time
from uuid import UUID

from models.enrichment.types import CompanyFunding, ProviderSpec
from models.resilience.deadline import Deadline
from providers.external.company import Company, CompanyProvider, WireModel, clip
from providers.http_base import never_above

#: The most that a card gives at once.
PAGE = 100
#: Pages read of one company's rounds; what is older says nothing that we show.
MAX_PAGES = 3
_INVESTORS = 20
_ORGANIZATION_FIELDS = (
    "identifier",
    "funding_total",
    "num_funding_rounds",
    "last_funding_type",
    "last_funding_at",
    "ipo_status",
)
_ROUND_FIELDS = ("identifier", "announced_on", "investment_type", "money_raised", "investor_identifiers")


class _Identifier(WireModel):
    uuid: UUID
    value: str = ""
    entity_def_id: str = ""


class _Money(WireModel):
    value_usd: float | None = None


class _Organization(WireModel):
    identifier: _Identifier
    funding_total: _Money | None = None
    num_funding_rounds: int | None = None
    last_funding_type: str | None = None
    last_funding_at: date | None = None
    ipo_status: str | None = None


class _Entity(WireModel):
    properties: _Organization


class _Search(WireModel):
    count: int
    entities: tuple[_Entity, ...]


class _Round(WireModel):
    identifier: _Identifier
    announced_on: date | None = None
    investment_type: str | None = None
    money_raised: _Money | None = None
    investor_identifiers: tuple[_Identifier, ...] | None = None


class _Cards(WireModel):
    raised_funding_rounds: tuple[_Round, ...]


class _CardAnswer(WireModel):
    cards: _Cards


class CrunchbaseProvider(CompanyProvider[CompanyFunding]):
    """What investors put in, by domain, from API v4 (https://data.crunchbase.com/docs/using-the-api).

    The organization is found by a search (https://data.crunchbase.com/docs/using-search-apis), its rounds by the card
    `raised_funding_rounds`, paged with `after_id` (https://data.crunchbase.com/docs/getting-more-results-from-card_id).
    Names of investors who are people are left out. 200 requests a minute are allowed; 429 does not say until when.
    """

    spec = ProviderSpec(
        name="crunchbase",
        section="company_funding",
        source="crunchbase",
        tier=2,
        timeout_s=3.0,
        ttl_s=24 * 3600.0,
        missing_ttl_s=3600.0,
        stale_while_revalidate_s=3600.0,
        tags=("vendors",),
        third_party=True,
    )
    limit = never_above(200, within_s=60.0)

    def credentials(self) -> Mapping[str, str]:
        return {"x-cb-user-key": self._key.get_secret_value()}

    async def load(self, company: Company, deadline: Deadline) -> CompanyFunding | None:
        organization = await self._find(company.domain, deadline) if company.domain else None
        if organization is None:
            return None
        rounds: list[_Round] = []
        if organization.num_funding_rounds:
            rounds = await self._rounds(organization.identifier.uuid, deadline)
        newest = rounds[0] if rounds else _Round(identifier=organization.identifier)
        total, raised = organization.funding_total or _Money(), newest.money_raised or _Money()
        return CompanyFunding(
            total_raised_usd=total.value_usd,
            funding_rounds=organization.num_funding_rounds or 0,
            last_round_type=clip(organization.last_funding_type or newest.investment_type, 50) or None,
            last_round_at=_midnight(organization.last_funding_at or newest.announced_on),
            last_round_usd=raised.value_usd,
            investors=_investors(rounds),
            ipo_status=clip(organization.ipo_status, 50) or None,
        )

    async def _find(self, domain: str, deadline: Deadline) -> _Organization | None:
        query = {"type": "predicate", "field_id": "website_url", "operator_id": "domain_eq", "values": [domain]}
        body = await self.ask(
            "POST",
            "/api/v4/searches/organizations",
            json={
                "field_ids": list(_ORGANIZATION_FIELDS),
                "query": [query],
                "order": [{"field_id": "rank_org", "sort": "asc"}],
                "limit": 1,
            },
            deadline=deadline,
        )
        if body is None:
            return None
        found = self.parse(_Search, body).entities
        return found[0].properties if found else None

    async def _rounds(self, organization: UUID, deadline: Deadline) -> list[_Round]:
        """The funding rounds, the newest first."""
        rounds: list[_Round] = []
        params: dict[str, str | int] = {
            "card_field_ids": ",".join(_ROUND_FIELDS),
            "order": "announced_on desc",
            "limit": PAGE,
        }
        path = f"/api/v4/entities/organizations/{organization}/cards/raised_funding_rounds"
        for _ in range(MAX_PAGES):
            body = await self.ask("GET", path, params=params, deadline=deadline)
            page = () if body is None else self.parse(_CardAnswer, body).cards.raised_funding_rounds
            rounds += page
            if len(page) < PAGE:
                break
            params["after_id"] = str(page[-1].identifier.uuid)
        return rounds


def _investors(rounds: Iterable[_Round]) -> tuple[str, ...]:
    names = (
        clip(investor.value, 200)
        for funding in rounds
        for investor in funding.investor_identifiers or ()
        if investor.entity_def_id == "organization"
    )
    return tuple(dict.fromkeys(name for name in names if name))[:_INVESTORS]


def _midnight(day: date | None) -> datetime | None:
    return None if day is None else datetime.combine(day, time.min, UTC)
