"""What the enrichment deployment is made of, and the order in which its parts begin and end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from deployments.housekeeping import Housekeeping
from models.clock import WallClock, utc_now
from models.embedding.protocol import Embedder
from models.enrichment.history_release import AuditedHistory
from models.enrichment.orchestrator import ContextOrchestrator
from models.enrichment.protocol import Contexts
from models.enrichment.release import AuditedReader
from models.enrichment.selection import AgentViews
from models.enrichment.strategies import Strategies, StrategyReader, load_experiments
from models.settings import Settings, config_file
from models.telemetry import Metrics
from providers.context_service import build_orchestrator, load_views
from providers.database import Database
from providers.systems.audit import SqlAuditLog
from providers.systems.context_history import SqlContextHistory
from providers.systems.relay import ContextChangeRelay
from providers.systems.strategies import SqlAssignmentLog


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrichmentParts:
    """`reader` and `history` are the only ways to what is known of a customer: both audited, and `reader` by the
    strategies of experiments.
    """

    orchestrator: ContextOrchestrator
    reader: Contexts
    history: AuditedHistory
    relay: ContextChangeRelay
    audited: AuditedReader
    assignments: SqlAssignmentLog
    audit: SqlAuditLog
    housekeeping: Housekeeping
    database: Database

    def start(self) -> None:
        """Begin all work in the background; call it inside the event loop."""
        self.audit.start()
        self.assignments.start()
        self.orchestrator.start()
        self.relay.start()
        self.housekeeping.start()

    async def close(self) -> None:
        """End it, each part before those that it writes to. Raises `DatabaseUnavailable` when audit lines were lost."""
        try:
            await self.housekeeping.close()
            await self.relay.close()
            await self.audited.close()
            await self.orchestrator.close()
            await self.assignments.close()
            await self.audit.close()
        finally:
            await self.database.close()


def build_enrichment(
    settings: Settings,
    database: Database,
    *,
    embedder: Embedder,
    metrics: Metrics,
    clock: WallClock = utc_now,
) -> EnrichmentParts:
    """Everything over one database. Raises `ConfigurationError` naming the file and field that are wrong."""
    salt = settings.hash_salt.get_secret_value()
    views = load_views(settings.context, secret=salt)
    # Checked against all agent types as written: a strategy may name a vendor that has no key here.
    written = AgentViews.load(config_file(settings.context.agent_types))
    experiments = load_experiments(written, config_file(settings.context.strategies))
    orchestrator = build_orchestrator(
        database,
        settings=settings.context,
        views=views,
        redis_url=settings.redis.url.get_secret_value(),
        embedder=embedder,
        metrics=metrics,
    )
    audit = SqlAuditLog(database, metrics=metrics)
    audited = AuditedReader(orchestrator, views, audit, salt=salt, metrics=metrics)
    assignments = SqlAssignmentLog(database, metrics=metrics)
    versions = SqlContextHistory(database)
    relay = ContextChangeRelay(database, orchestrator.invalidate, metrics=metrics)
    retention = timedelta(days=settings.context.history_retention_days)

    async def prune_history() -> None:
        await versions.prune(clock() - retention)

    return EnrichmentParts(
        orchestrator=orchestrator,
        reader=StrategyReader(audited, Strategies(experiments, views, assignments)),
        history=AuditedHistory(versions, views, audit, salt=salt),
        relay=relay,
        audited=audited,
        assignments=assignments,
        audit=audit,
        housekeeping=Housekeeping({"delivered changes": relay.remove_expired, "context history": prune_history}),
        database=database,
    )
