"""What context providers are made from and with."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from models.clock import utc_now
from models.enrichment.types import ProviderSpec, Section
from models.errors import DatabaseUnavailable, DeadlineExceeded, ProviderUnavailable, UnknownCustomer
from models.resilience.deadline import Deadline
from models.settings import ContextSettings
from providers.database import Database

if TYPE_CHECKING:
    from providers.systems.activity import RedisClient

S = TypeVar("S", bound=Section)
T = TypeVar("T")

#: Customers per statement.
_CHUNK = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderResources:
    """All that a provider may be built from; every provider class takes this as its only argument.

    `redis` is `None` where Rapport runs without; the client belongs to whoever built these resources.
    """

    database: Database
    now: Callable[[], datetime] = utc_now
    redis: RedisClient | None = None
    settings: ContextSettings = field(default_factory=ContextSettings)


class SqlProvider(ABC, Generic[S]):
    """A provider that reads our database: a subclass has a `spec` and a `load`, for one customer as for many."""

    spec: ClassVar[ProviderSpec]

    def __init__(self, resources: ProviderResources) -> None:
        self._database = resources.database
        self._now = resources.now

    async def fetch(
        self, customer_id: str, *, deadline: Deadline, known: Mapping[str, Section] | None = None
    ) -> S | None:
        """The section as of now. Raises `UnknownCustomer`, `ProviderUnavailable`, `DeadlineExceeded`."""
        sections = await self.fetch_many((customer_id,), deadline=deadline)
        if customer_id not in sections:
            raise UnknownCustomer("there is no such customer")
        return sections[customer_id]

    async def fetch_many(
        self,
        customer_ids: Sequence[str],
        *,
        deadline: Deadline,
        known: Mapping[str, Mapping[str, Section]] | None = None,
    ) -> Mapping[str, S | None]:
        """The section of each customer as of one instant. Raises `ProviderUnavailable`, `DeadlineExceeded`."""
        now = self._now()

        def work(connection: Connection) -> Mapping[str, S | None]:
            sections: dict[str, S | None] = {}
            for ids in in_chunks(customer_ids):
                sections.update(self.load(connection, ids, now))
            return sections

        return await self.read(work, deadline)

    @abstractmethod
    def load(self, connection: Connection, customer_ids: Sequence[str], now: datetime) -> Mapping[str, S | None]:
        """The section of each customer, `None` when there is nothing on one; who is no customer may be left out.

        Runs outside the event loop: it reads with as few statements as it takes, and touches only its arguments. An id
        may stand in `customer_ids` more than once.
        """

    async def read(self, work: Callable[[Connection], T], deadline: Deadline) -> T:
        """`Database.read` within the deadline. Raises `ProviderUnavailable`, `DeadlineExceeded`."""
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                return await self._database.read(work)
        except TimeoutError as exc:
            raise DeadlineExceeded(f"{self.spec.name} did not finish within its time budget") from exc
        except (DatabaseUnavailable, SQLAlchemyError) as exc:
            raise ProviderUnavailable(f"{self.spec.name}: {type(exc).__name__}") from exc


def in_chunks(customer_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """The ids in statement-sized chunks, each filled up to a power of two with its last id.

    Drivers remember a statement by its number of parameters, so there should be few such numbers.
    """
    for start in range(0, len(customer_ids), _CHUNK):
        chunk = customer_ids[start : start + _CHUNK]
        size = 1 << (len(chunk) - 1).bit_length()
        yield (*chunk, *[chunk[-1]] * (size - len(chunk)))
