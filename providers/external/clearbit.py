"""Company profiles from Clearbit."""

from __future__ import annotations

from collections.abc import Mapping

from models.enrichment.types import CompanyEnrichment, ProviderSpec
from models.errors import ProviderUnavailable, RapportError
from models.resilience.deadline import Deadline
from providers.external.company import Company, CompanyProvider, WireModel, clip
from providers.http_answer import HttpAnswer
from providers.http_base import never_above

_TECHNOLOGIES = 50
_DESCRIPTION = 1000


class _Category(WireModel):
    industry: str | None = None


class _Geo(WireModel):
    countryCode: str | None = None


class _Metrics(WireModel):
    employees: int | None = None
    employeesRange: str | None = None
    annualRevenue: float | None = None


class _Company(WireModel):
    domain: str
    legalName: str | None = None
    description: str | None = None
    foundedYear: int | None = None
    category: _Category | None = None
    geo: _Geo | None = None
    metrics: _Metrics | None = None
    tech: tuple[str, ...] | None = None


class ClearbitProvider(CompanyProvider[CompanyEnrichment]):
    """Who the company is, by its domain, from the Company API (https://clearbit.com/docs#enrichment-api-company-api).

    202 means that the lookup is queued: there is no data now, and asking again after a few minutes finds it. 422 is a
    domain that cannot exist, 402 a spent quota
    (https://help.clearbit.com/hc/en-us/articles/10065050209815-What-is-a-202-Status-Code and its neighbours). 600
    requests a minute are allowed; 429 comes with `X-RateLimit-Reset` instead of `Retry-After`.
    """

    spec = ProviderSpec(
        name="clearbit",
        section="company_enrichment",
        source="clearbit",
        tier=2,
        timeout_s=2.5,
        ttl_s=24 * 3600.0,
        missing_ttl_s=300.0,
        stale_while_revalidate_s=3600.0,
        tags=("vendors",),
        third_party=True,
    )
    limit = never_above(600, within_s=60.0)
    no_data = frozenset({202, 404, 422})

    def credentials(self) -> Mapping[str, str]:
        return {"authorization": f"Bearer {self._key.get_secret_value()}"}

    async def load(self, company: Company, deadline: Deadline) -> CompanyEnrichment | None:
        if not company.domain:
            return None
        body = await self.ask("GET", "/v2/companies/find", params={"domain": company.domain}, deadline=deadline)
        if body is None:
            return None
        found = self.parse(_Company, body)
        category, geo, metrics = found.category or _Category(), found.geo or _Geo(), found.metrics or _Metrics()
        return CompanyEnrichment(
            legal_name=clip(found.legalName, 200) or None,
            domain=clip(found.domain, 253),
            industry=clip(category.industry, 200) or None,
            employees=metrics.employees,
            employees_range=clip(metrics.employeesRange, 50) or None,
            annual_revenue_usd=metrics.annualRevenue,
            founded_year=found.foundedYear,
            country=clip(geo.countryCode, 2) or None,
            description=clip(found.description, _DESCRIPTION),
            technologies=tuple(clip(name, 100) for name in (found.tech or ())[:_TECHNOLOGIES]),
        )

    def has_nothing(self, answer: HttpAnswer) -> bool:
        # An address that is not the API's answers 404 too, and must not pass for an unknown company.
        return super().has_nothing(answer) and not _is_unknown_route(answer)

    def failure(self, answer: HttpAnswer) -> RapportError | None:
        if _is_unknown_route(answer):
            return ProviderUnavailable(self.says("its address is not the Company API's"))
        return super().failure(answer)

    def retry_after_s(self, answer: HttpAnswer) -> float | None:
        named = super().retry_after_s(answer)
        reset = answer.headers.get("x-ratelimit-reset", "")
        if named is not None or not (reset.isascii() and reset.isdigit()):
            return named
        # Seconds since the epoch, or until then: the vendor's pages show both.
        left_s = float(reset[:12])
        epoch_s = self._now().timestamp()
        left_s = left_s - epoch_s if left_s > epoch_s / 2 else left_s
        return left_s if left_s > 0 else None


def _is_unknown_route(answer: HttpAnswer) -> bool:
    match answer:
        case HttpAnswer(status=404, body={"error": {"type": "unknown_route"}}):
            return True
        case _:
            return False
