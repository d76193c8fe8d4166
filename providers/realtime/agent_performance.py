"""How our own agents do right now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Double, and_, func, or_, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from models.enrichment.types import AgentPerformance, ProviderSpec, Scope
from providers.base import SqlProvider
from providers.queries import NOW, Query, instant
from providers.tables import Agent, AgentStatus, Conversation

_DAY = timedelta(hours=24)
_MONTH = timedelta(days=30)


class minutes_between(FunctionElement[float]):
    """Minutes from the first instant to the second."""

    type = Double()
    name = "minutes_between"
    inherit_cache = True


@compiles(minutes_between, "sqlite")
def _minutes_on_sqlite(element: minutes_between, compiler: SQLCompiler, **options: Any) -> str:
    start, end = (compiler.process(clause, **options) for clause in element.clauses)
    return f"((julianday({end}) - julianday({start})) * 1440.0)"


@compiles(minutes_between, "postgresql")
def _minutes_on_postgresql(element: minutes_between, compiler: SQLCompiler, **options: Any) -> str:
    start, end = (compiler.process(clause, **options) for clause in element.clauses)
    return f"(extract(epoch from ({end} - {start})) / 60.0)::float8"


_today = Conversation.started_at >= instant("yesterday")
_ended = Conversation.ended_at <= NOW
_AGENTS_AND_TALKS = Query(
    select(
        select(func.count()).select_from(Agent).scalar_subquery().label("agents_total"),
        select(func.count())
        .select_from(Agent)
        .where(Agent.status == AgentStatus.ONLINE.value)
        .scalar_subquery()
        .label("agents_available"),
        func.count().filter(or_(Conversation.ended_at.is_(None), Conversation.ended_at > NOW)),
        func.count().filter(_today),
        func.count().filter(and_(_today, _ended)),
        func.count().filter(and_(_today, _ended, Conversation.resolved)),
        func.avg(minutes_between(Conversation.started_at, Conversation.ended_at)).filter(and_(_today, _ended)),
        func.count(Conversation.csat),
        func.sum(Conversation.csat),
    ).where(
        Conversation.agent_id.in_(select(Agent.agent_id)),
        Conversation.started_at.between(instant("month_ago"), NOW),
    )
)


class AgentPerformanceProvider(SqlProvider[AgentPerformance]):
    """Agents online, their conversations of the last 24 hours and ratings of the last 30 days, the same for everyone.

    A conversation without an end counts as open for 30 days. Rates and times are of conversations that have ended.
    """

    spec = ProviderSpec(
        name="agent_performance",
        section="agent_performance",
        tier=2,
        ttl_s=30.0,
        scope=Scope.EVERYONE,
    )

    def load(
        self, connection: Connection, customer_ids: Sequence[str], now: datetime
    ) -> Mapping[str, AgentPerformance | None]:
        [row] = _AGENTS_AND_TALKS.rows(connection, now=now, yesterday=now - _DAY, month_ago=now - _MONTH)
        total, available, running, talks, ended, resolved, minutes, ratings, csat = row
        performance = AgentPerformance(
            agents_available=available,
            agents_total=total,
            open_conversations=running,
            conversations_24h=talks,
            resolution_rate_24h=round(resolved / ended, 2) if ended else None,
            avg_handle_minutes_24h=round(minutes, 1) if ended else None,
            avg_csat_30d=round(csat / ratings, 2) if ratings else None,
        )
        return dict.fromkeys(customer_ids, performance)
