"""Starts campaigns as Ray jobs on the cluster that serves, and reads how far they are from the register."""

from __future__ import annotations

import asyncio
import json
import logging
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import ray
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from deployments.ingress.services import CampaignReport
from models.campaign.types import COMMAND_LINE
from models.clock import WallClock, utc_now
from models.errors import Conflict, DependencyUnavailable, NotFound, Overloaded
from models.resilience.deadline import Deadline
from models.resilience.retry import RetryPolicy
from providers.systems.campaigns import CampaignRun, CampaignStatus, SqlCampaignRegistry

#: Campaigns that may be queued or running at once; more are refused, since each wants a share of the cluster.
MAX_LIVE_CAMPAIGNS = 4

#: A campaign is entered before its job is submitted, so a job may be missing this long after the last news.
MISSING_AFTER = timedelta(minutes=1)
#: One from the command line has no job at all and is given up when it was silent this long.
SILENT_AFTER = timedelta(hours=1)

#: How long the job API is asked again before a campaign is refused.
SUBMIT_WITHIN_S = 20.0
SUBMISSION = RetryPolicy(
    retries=4, base_s=1.0, max_s=5.0, retryable=lambda error: isinstance(error, RuntimeError | OSError)
)

_log = logging.getLogger(__name__)


class Jobs(Protocol):
    """The part of Ray's `JobSubmissionClient` used here; `get_job_status` raises `RuntimeError` for an unknown job."""

    def submit_job(
        self, *, entrypoint: str, submission_id: str, metadata: dict[str, str], entrypoint_num_cpus: int
    ) -> str: ...

    def get_job_status(self, job_id: str) -> JobStatus: ...

    def get_job_info(self, job_id: str) -> JobDetails: ...


def jobs_of_this_cluster() -> Jobs:
    client: Jobs = JobSubmissionClient(ray.get_runtime_context().gcs_address)
    return client


class RayJobCampaignDesk:
    """`deployments.ingress.services.CampaignDesk` over the Ray job API.

    A live run whose job has ended without saying so is marked failed when it is read and before live runs are counted.
    While the job API does not answer within `timeout_s`, the register is believed.
    """

    def __init__(
        self,
        registry: SqlCampaignRegistry,
        *,
        jobs: Callable[[], Jobs] = jobs_of_this_cluster,
        clock: WallClock = utc_now,
        timeout_s: float = 5.0,
        retry: RetryPolicy = SUBMISSION,
    ) -> None:
        self._retry = retry
        self._registry, self._jobs, self._clock, self._timeout_s = registry, jobs, clock, timeout_s

    async def start(self, config: Mapping[str, Any], *, owner: str, request_id: str) -> CampaignRun:
        live = await self._reconciled([run for run in await self._registry.list(limit=100) if not run.status.ended])
        running = sum(not run.status.ended for run in live)
        if running >= MAX_LIVE_CAMPAIGNS:
            raise Overloaded(f"{running} campaigns are running; try again when one has ended").with_retry_after(30.0)
        run = await self._registry.create(owner=owner, config=config)
        try:
            # The job agent of a busy or young cluster may not listen yet; the same submission id never starts two.
            await self._retry.run(
                lambda: asyncio.to_thread(self._submit, run, request_id), deadline=Deadline.after(SUBMIT_WITHIN_S)
            )
        except (RuntimeError, OSError) as exc:
            _log.exception("a campaign's job was not accepted")
            await self._registry.update(run.campaign_id, status=CampaignStatus.FAILED, error="the job was not accepted")
            raise DependencyUnavailable("the cluster did not accept the campaign's job") from exc
        return run

    async def get(self, campaign_id: str) -> CampaignRun:
        run = await self._registry.get(campaign_id)
        return run if run.status.ended else (await self._reconciled([run]))[0]

    async def report(self, campaign_id: str) -> CampaignReport:
        run = await self.get(campaign_id)
        if not run.status.ended:
            raise Conflict(f"campaign {campaign_id} is still {run.status.value}")
        if run.report_path is None:
            raise NotFound(f"campaign {campaign_id} ended without a report")
        return await asyncio.to_thread(self._read, Path(run.report_path), campaign_id)

    async def _reconciled(self, live: Sequence[CampaignRun]) -> list[CampaignRun]:
        """The runs as they are now, in order, those without a living job ended."""
        if not live:
            return []
        try:
            causes = await asyncio.wait_for(asyncio.to_thread(self._causes, live), self._timeout_s)
        except (TimeoutError, RuntimeError, OSError) as exc:  # unknown is not dead
            _log.warning("the state of campaign jobs is unknown", extra={"cause": type(exc).__name__})
            return list(live)
        return [await self._end(run, cause) if cause else run for run, cause in zip(live, causes, strict=True)]

    async def _end(self, run: CampaignRun, cause: str) -> CampaignRun:
        try:
            return await self._registry.update(run.campaign_id, status=CampaignStatus.FAILED, error=cause)
        except Conflict:  # the job has said so itself meanwhile
            return await self._registry.get(run.campaign_id)

    def _causes(self, runs: Sequence[CampaignRun]) -> list[str | None]:
        """Why each of these runs cannot be alive, or `None`."""
        jobs = self._jobs()
        return [self._cause(jobs, run) for run in runs]

    def _cause(self, jobs: Jobs, run: CampaignRun) -> str | None:
        silent = self._clock() - run.updated_at
        if run.owner == COMMAND_LINE:
            return "the command was not heard of any more" if silent > SILENT_AFTER else None
        try:
            status = jobs.get_job_status(run.campaign_id)
        except RuntimeError as exc:
            if "status code 404" not in str(exc):  # only the text tells an unknown job from a failed request
                raise
            return "the campaign's job is gone" if silent > MISSING_AFTER else None
        if not status.is_terminal():
            return None
        # What the job itself said last, for operators: it ended before it could write into the register.
        _log.warning("a campaign's job ended early", extra={"said": jobs.get_job_info(run.campaign_id).message})
        return f"the campaign's job ended early ({status.value.lower()})"

    def _submit(self, run: CampaignRun, request_id: str) -> None:
        try:
            self._jobs().submit_job(
                entrypoint=f"{shlex.quote(sys.executable)} -m batch.cli --campaign-id {shlex.quote(run.campaign_id)}",
                submission_id=run.campaign_id,
                metadata={"request_id": request_id},
                entrypoint_num_cpus=0,
            )
        except RuntimeError as exc:
            if "already exists" not in str(exc):  # an earlier try was accepted, and only its answer was lost
                raise

    def _read(self, folder: Path, campaign_id: str) -> CampaignReport:
        try:
            report = (folder / "report.json").read_bytes()
            json.loads(report)
            return CampaignReport(json=report, html=(folder / "report.html").read_bytes())
        except (OSError, ValueError) as exc:
            raise NotFound(f"the report of campaign {campaign_id} is gone") from exc
