"""Starts campaigns as Ray jobs on the cluster that serves, and reads how far they are from the register."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.job_submission import JobSubmissionClient

from deployments.ingress.services import CampaignReport
from models.errors import Conflict, DependencyUnavailable, NotFound, Overloaded
from providers.systems.campaigns import CampaignRun, CampaignStatus, SqlCampaignRegistry

#: Campaigns that may be queued or running at once; more are refused, since each wants a share of the cluster.
MAX_LIVE_CAMPAIGNS = 4


class RayJobCampaignDesk:
    """`deployments.ingress.services.CampaignDesk` over the Ray job API."""

    def __init__(self, registry: SqlCampaignRegistry) -> None:
        self._registry = registry

    async def start(self, config: Mapping[str, Any], *, owner: str, request_id: str) -> CampaignRun:
        live = [run for run in await self._registry.list(limit=100) if not run.status.ended]
        if len(live) >= MAX_LIVE_CAMPAIGNS:
            raise Overloaded(f"{len(live)} campaigns are running; try again when one has ended").with_retry_after(30.0)
        run = await self._registry.create(owner=owner, config=config)
        try:
            await asyncio.to_thread(self._submit, run, request_id)
        except (RuntimeError, ConnectionError, OSError) as exc:
            await self._registry.update(run.campaign_id, status=CampaignStatus.FAILED, error="the job was not accepted")
            raise DependencyUnavailable("the cluster did not accept the campaign's job") from exc
        return run

    async def get(self, campaign_id: str) -> CampaignRun:
        return await self._registry.get(campaign_id)

    async def report(self, campaign_id: str) -> CampaignReport:
        run = await self._registry.get(campaign_id)
        if not run.status.ended:
            raise Conflict(f"campaign {campaign_id} is still {run.status.value}")
        if run.report_path is None:
            raise NotFound(f"campaign {campaign_id} ended without a report")
        return await asyncio.to_thread(self._read, Path(run.report_path), campaign_id)

    def _submit(self, run: CampaignRun, request_id: str) -> None:
        address = ray.get_runtime_context().gcs_address
        customers = run.config.get("customers")
        size = f" --customers {int(customers)}" if customers is not None else ""
        JobSubmissionClient(address).submit_job(
            entrypoint=f"{sys.executable} -m batch.cli --campaign-id {run.campaign_id}{size}",
            submission_id=run.campaign_id,
            metadata={"request_id": request_id},
            entrypoint_num_cpus=0,
        )

    def _read(self, folder: Path, campaign_id: str) -> CampaignReport:
        try:
            report = (folder / "report.json").read_bytes()
            json.loads(report)
            return CampaignReport(json=report, html=(folder / "report.html").read_bytes())
        except (OSError, ValueError) as exc:
            raise NotFound(f"the report of campaign {campaign_id} is gone") from exc
