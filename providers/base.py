"""What context providers are made from and with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Generic, TypeVar

from sqlalchemy import Select, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from models.clock import utc_now
from models.enrichment.types import ProviderSpec, Section
from models.errors import DatabaseUnavailable, ProviderUnavailable
from models.resilience.deadline import Deadline
from providers.database import Database
from providers.tables import Subscription

S = TypeVar("S", bound=Section)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderResources:
    """All that a provider may be built from; every provider class takes this as its only argument."""

    database: Database
    now: Callable[[], datetime] = utc_now


class SqlProvider(ABC, Generic[S]):
    """A provider that reads our database: a subclass has a `spec` and a `load`."""

    spec: ClassVar[ProviderSpec]

    def __init__(self, resources: ProviderResources) -> None:
        self._database = resources.database
        self._now = resources.now

    async def fetch(self, customer_id: str, *, deadline: Deadline) -> S | None:
        """The section as of now. Raises `UnknownCustomer`, `ProviderUnavailable`, `DeadlineExceeded`."""
        try:
            async with deadline.enforce(self.spec.name), self._database.session() as session:
                return await self.load(session, customer_id, self._now())
        except (DatabaseUnavailable, SQLAlchemyError) as exc:
            raise ProviderUnavailable(f"{self.spec.name}: {type(exc).__name__}") from exc

    @abstractmethod
    async def load(self, session: AsyncSession, customer_id: str, now: datetime) -> S | None:
        """The section, or `None` when there is nothing on this customer; as few round trips as it takes."""


def current_subscription(customer_id: str) -> Select[Subscription]:
    """The newest subscription by its start."""
    return (
        select(Subscription)
        .where(Subscription.customer_id == customer_id)
        .order_by(Subscription.started_at.desc(), Subscription.subscription_id.desc())
        .limit(1)
    )
