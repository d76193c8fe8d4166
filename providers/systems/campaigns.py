"""The register of campaign runs: who started what, how far it is, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import select, tuple_, update

from models.clock import WallClock, utc_now
from models.errors import Conflict, NotFound
from models.ids import NewId, new_id
from providers.database import Database
from providers.record_tables import Campaign


class CampaignStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in _ENDED


_ENDED = frozenset({CampaignStatus.SUCCEEDED, CampaignStatus.FAILED, CampaignStatus.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignRun:
    """One run as it stands; `progress` is 0 to 1 over all stages, `config` is what it was started with."""

    campaign_id: str
    owner: str
    status: CampaignStatus
    stage: str
    progress: float
    config: Mapping[str, Any]
    report_path: str | None
    error: str | None
    created_at: datetime
    updated_at: datetime


class SqlCampaignRegistry:
    """Keeps campaign runs where the API and the batch job both see them."""

    def __init__(self, database: Database, *, clock: WallClock = utc_now, ids: NewId = new_id) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids

    async def create(self, *, owner: str, config: Mapping[str, Any]) -> CampaignRun:
        """Enter a queued run and return it with its id (`cpn_...`). Raises `DatabaseUnavailable`."""
        now = self._clock()
        row = Campaign(
            campaign_id=self._ids("cpn"),
            owner=owner,
            status=CampaignStatus.QUEUED.value,
            stage="",
            progress=0.0,
            config=dict(config),
            report_path=None,
            error=None,
            created_at=now,
            updated_at=now,
        )
        async with self._database.transaction() as session:
            session.add(row)
        return _run(row)

    async def update(
        self,
        campaign_id: str,
        *,
        status: CampaignStatus | None = None,
        stage: str | None = None,
        progress: float | None = None,
        report_path: str | None = None,
        error: str | None = None,
    ) -> CampaignRun:
        """Change what is given and return the run.

        Raises `NotFound`, `Conflict` when the run has ended (a late report of progress never revives a cancelled run),
        `DatabaseUnavailable`.
        """
        given = {
            "status": status.value if status else None,
            "stage": stage,
            "progress": progress,
            "report_path": report_path,
            "error": error,
        }
        values = {name: value for name, value in given.items() if value is not None}
        change = (
            update(Campaign)
            .where(Campaign.campaign_id == campaign_id, Campaign.status.not_in([ended.value for ended in _ENDED]))
            .values(updated_at=self._clock(), **values)
            .returning(Campaign)
        )
        async with self._database.transaction() as session:
            row = (await session.scalars(change)).one_or_none()
            if row is None:
                if await session.get(Campaign, campaign_id) is None:
                    raise NotFound(f"there is no campaign {campaign_id}")
                raise Conflict(f"campaign {campaign_id} has ended")
        return _run(row)

    async def get(self, campaign_id: str) -> CampaignRun:
        """Raises `NotFound`, `DatabaseUnavailable`."""
        async with self._database.session() as session:
            row = await session.get(Campaign, campaign_id)
        if row is None:
            raise NotFound(f"there is no campaign {campaign_id}")
        return _run(row)

    async def list(
        self, *, owner: str | None = None, limit: int = 50, before: CampaignRun | None = None
    ) -> list[CampaignRun]:
        """Runs newest first, of one owner or of all; `before` continues after the last run of the page before."""
        query = select(Campaign).order_by(Campaign.created_at.desc(), Campaign.campaign_id.desc()).limit(limit)
        if owner is not None:
            query = query.where(Campaign.owner == owner)
        if before is not None:
            page = tuple_(Campaign.created_at, Campaign.campaign_id)
            query = query.where(page < (before.created_at, before.campaign_id))
        async with self._database.session() as session:
            return [_run(row) for row in await session.scalars(query)]


def _run(row: Campaign) -> CampaignRun:
    return CampaignRun(
        campaign_id=row.campaign_id,
        owner=row.owner,
        status=CampaignStatus(row.status),
        stage=row.stage,
        progress=row.progress,
        config=row.config,
        report_path=row.report_path,
        error=row.error,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
