"""Who is a customer, on our database."""

from __future__ import annotations

from sqlalchemy import select

from providers.database import Database
from providers.tables import Customer


class SqlCustomerDirectory:
    """Knows which customer ids exist."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def exists(self, customer_id: str) -> bool:
        """Whether there is such a customer. Raises `DatabaseUnavailable`."""
        query = select(Customer.customer_id).where(Customer.customer_id == customer_id)
        async with self._database.session() as session:
            return await session.scalar(query) is not None
