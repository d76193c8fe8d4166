"""What data vendors are told of a customer, and whom they are asked about at all."""

from __future__ import annotations

import re
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError
from sqlalchemy import Connection, bindparam, select
from sqlalchemy.exc import SQLAlchemyError

from models.enrichment.types import CustomerIntelligence, Section
from models.errors import ConfigurationError, DatabaseUnavailable, ProviderUnavailable, UnknownCustomer
from models.resilience.bucket import TokenStore
from models.resilience.deadline import Deadline
from models.settings import ContextSettings
from providers.base import ProviderResources
from providers.http_base import HttpProvider
from providers.table_types import PortableText
from providers.tables import Account, Customer

S = TypeVar("S", bound=Section)
W = TypeVar("W", bound="WireModel")


@dataclass(frozen=True, slots=True)
class VendorSettings:
    """The names of the settings that hold a vendor's key and address."""

    key: str
    base_url: str


VENDORS: Mapping[str, VendorSettings] = {
    "clearbit": VendorSettings("clearbit_api_key", "clearbit_base_url"),
    "crunchbase": VendorSettings("crunchbase_api_key", "crunchbase_base_url"),
    "news_api": VendorSettings("news_api_key", "news_base_url"),
}
_ACCOUNT = (
    select(Account.company_name, Account.domain)
    .join(Customer, Customer.account_id == Account.account_id)
    .where(Customer.customer_id == bindparam("id", type_=PortableText()))
)
#: A host name with a top-level domain (RFC 1123); an e-mail address or a URL is none.
_DOMAIN = re.compile(r"(?=.{4,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")
#: What a header can hold; an error of the HTTP library would quote anything else.
_PLAUSIBLE_KEY = re.compile(r"[!-~]+")


def configured(settings: ContextSettings) -> frozenset[str]:
    """The vendors that may be asked: those with a key, and none while `external_enabled` is off."""
    if not settings.external_enabled:
        return frozenset()
    return frozenset(vendor for vendor in VENDORS if _key(settings, vendor).get_secret_value())


@dataclass(frozen=True, slots=True, kw_only=True)
class Company:
    """All that a vendor ever learns of a customer; `domain` is empty when we know no usable one."""

    name: str
    domain: str


def company_of(connection: Connection, customer_id: str) -> Company:
    """The customer's company. Raises `UnknownCustomer`."""
    row = connection.execute(_ACCOUNT, {"id": customer_id}).first()
    if row is None:
        raise UnknownCustomer("there is no such customer")
    return Company(name=" ".join(row.company_name.split()), domain=domain_of(row.domain))


def domain_of(text: str) -> str:
    """The text as a host name on the wire, without `www.`; empty if it is something else."""
    text = text.strip().rstrip(".").lower().removeprefix("www.")
    try:
        ascii_form = text.encode("idna").decode()
    except UnicodeError:
        return ""
    return ascii_form if _DOMAIN.fullmatch(ascii_form) else ""


class WireModel(BaseModel):
    """A part of a vendor's answer: unknown fields are ignored, known ones must be of their type."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class CompanyProvider(HttpProvider, Generic[S]):
    """A vendor who knows companies; `name` and `source` of its spec are the vendor's name.

    A customer who pays less than `external_min_mrr` a month (in the customer's own currency) is not asked about. Only
    where there is such a limit does the provider depend on what the customer pays, and goes out of date with it.
    """

    def __init__(self, resources: ProviderResources, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises `ConfigurationError` when the vendor has no usable key or address."""
        settings, vendor = resources.settings, self.spec.name
        self._key = _key(settings, vendor)
        if not _PLAUSIBLE_KEY.fullmatch(self._key.get_secret_value()):
            raise ConfigurationError(self.says(f"the setting {VENDORS[vendor].key} is empty, or cannot be a key"))
        self._database = resources.database
        self._min_mrr = settings.external_min_mrr
        if self._min_mrr > 0:
            self.spec = replace(self.spec, depends_on=("customer_intelligence",))
        super().__init__(
            base_url=getattr(settings, VENDORS[vendor].base_url),
            now=resources.now,
            tokens=_shared_tokens(resources),
            clock=clock,
        )

    async def fetch(self, customer_id: str, *, deadline: Deadline, known: Mapping[str, Section]) -> S | None:
        """What the vendor says of the customer's company.

        Raises `UnknownCustomer`, `ProviderUnavailable`, `DeadlineExceeded`, and `Forbidden` when it refuses us.
        """
        if not self._worth_asking(known):
            return None
        try:
            async with deadline.enforce(self.spec.name):
                company = await self._database.read(lambda connection: company_of(connection, customer_id))
        except (DatabaseUnavailable, SQLAlchemyError) as exc:
            raise ProviderUnavailable(self.says(f"our own database failed: {type(exc).__name__}")) from exc
        return await self.load(company, deadline)

    @abstractmethod
    async def load(self, company: Company, deadline: Deadline) -> S | None:
        """The section, or `None` when the vendor knows nothing of this company. Raises as `ask`."""

    def parse(self, model: type[W], body: object) -> W:
        """The vendor's JSON as the model. Raises `ProviderUnavailable` when it has another shape."""
        try:
            return model.model_validate(body)
        except ValidationError as exc:
            raise ProviderUnavailable(self.says("its answer has an unknown shape")) from exc

    def _worth_asking(self, known: Mapping[str, Section]) -> bool:
        if self._min_mrr <= 0:
            return True
        profile = known.get("customer_intelligence")
        if not isinstance(profile, CustomerIntelligence):
            raise ProviderUnavailable(self.says("not asked: what the customer pays is not known"))
        return profile.mrr >= self._min_mrr


def clip(text: str | None, length: int) -> str:
    """At most `length` printable characters in one line; empty for `None`."""
    return "".join(filter(str.isprintable, " ".join(text.split())))[:length] if text else ""


def _key(settings: ContextSettings, vendor: str) -> SecretStr:
    key: SecretStr = getattr(settings, VENDORS[vendor].key)
    return key


def _shared_tokens(resources: ProviderResources) -> TokenStore | None:
    if resources.redis is None:
        return None
    from models.resilience.redis_bucket import RedisTokenStore  # memory-only needs no Redis

    return RedisTokenStore(resources.redis)
