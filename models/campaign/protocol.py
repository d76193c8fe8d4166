"""What a campaign relies on to know its audience."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from models.campaign.types import CustomerFeatures, Shard


class Audience(Protocol):
    """Customers who agreed to marketing, in order of their ids."""

    async def shards(self, *, limit: int | None, size: int) -> list[Shard]:
        """Stretches that cover the first `limit` customers, or all, without overlap. Raises `DatabaseUnavailable`."""
        ...

    async def read(self, shard: Shard, *, as_of: datetime) -> Sequence[CustomerFeatures]:
        """The customers of one shard as they were known on `as_of`. Raises `DatabaseUnavailable`."""
        ...

    async def without_consent(self) -> int:
        """How many customers are left out because they did not agree to marketing."""
        ...
