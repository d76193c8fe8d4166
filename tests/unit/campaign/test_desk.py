"""A campaign whose job is dead ends in the register, and takes no place from others."""

from __future__ import annotations

import asyncio
import shlex
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ray.job_submission import JobDetails, JobStatus, JobType

from deployments.campaigns import MAX_LIVE_CAMPAIGNS, MISSING_AFTER, SILENT_AFTER, SUBMISSION, RayJobCampaignDesk
from models.campaign.types import COMMAND_LINE
from models.errors import DependencyUnavailable, Overloaded
from providers.database import Database, migrate
from providers.systems.campaigns import CampaignStatus, SqlCampaignRegistry

START = datetime(2026, 11, 1, 8, tzinfo=UTC)


class FakeJobs:
    """Jobs by id; one that is not there answers as Ray's client does."""

    def __init__(self) -> None:
        self.states: dict[str, JobStatus] = {}
        self.entrypoints: list[str] = []
        self.answering = threading.Event()
        self.answering.set()
        self.away = False
        #: What the next submissions meet, in order; `lost` is accepted and its answer lost.
        self.troubles: list[str] = []

    def submit_job(
        self, *, entrypoint: str, submission_id: str, metadata: dict[str, str], entrypoint_num_cpus: int
    ) -> str:
        trouble = self.troubles.pop(0) if self.troubles else ""
        if trouble == "refused":
            raise RuntimeError("Request failed with status code 500: no agent")
        if submission_id in self.states:
            raise RuntimeError(f"Request failed with status code 400: Job {submission_id} already exists")
        self.entrypoints.append(entrypoint)
        self.states[submission_id] = JobStatus.RUNNING
        if trouble == "lost":
            raise ConnectionError("the answer was lost")
        return submission_id

    def get_job_status(self, job_id: str) -> JobStatus:
        self.answering.wait(10)
        if self.away:
            raise ConnectionError("no dashboard")
        if job_id not in self.states:
            raise RuntimeError(f"Request failed with status code 404: Job {job_id} does not exist.")
        return self.states[job_id]

    def get_job_info(self, job_id: str) -> JobDetails:
        return JobDetails(
            type=JobType.SUBMISSION, entrypoint="", status=self.states[job_id], message="it ended", submission_id=job_id
        )


class Clock:
    now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jobs() -> FakeJobs:
    return FakeJobs()


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    migrate(url := f"sqlite+aiosqlite:///{tmp_path}/register.db")
    return url


@pytest.fixture
async def registry(database_url: str, clock: Clock) -> AsyncIterator[SqlCampaignRegistry]:
    database = Database(database_url)
    yield SqlCampaignRegistry(database, clock=clock)
    await database.close()


@pytest.fixture
def desk(registry: SqlCampaignRegistry, jobs: FakeJobs, clock: Clock) -> RayJobCampaignDesk:
    return RayJobCampaignDesk(registry, jobs=lambda: jobs, clock=clock, timeout_s=0.2)


async def fill(desk: RayJobCampaignDesk) -> list[str]:
    runs = [await desk.start({}, owner="alice", request_id="r") for _ in range(MAX_LIVE_CAMPAIGNS)]
    with pytest.raises(Overloaded):
        await desk.start({}, owner="alice", request_id="r")
    return [run.campaign_id for run in runs]


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.STOPPED, None])
async def test_a_dead_job_ends_its_campaign_and_makes_room(
    desk: RayJobCampaignDesk, jobs: FakeJobs, clock: Clock, status: JobStatus | None
) -> None:
    dead, *alive = await fill(desk)
    clock.now += 2 * MISSING_AFTER
    if status is None:
        del jobs.states[dead]
    else:
        jobs.states[dead] = status
    assert not (await desk.start({}, owner="bob", request_id="r")).status.ended
    ended = await desk.get(dead)
    assert ended.status is CampaignStatus.FAILED
    assert ended.error is not None
    assert "job" in ended.error
    assert [(await desk.get(one)).status.ended for one in alive] == [False] * len(alive)


async def test_get_ends_a_dead_campaign_by_itself(desk: RayJobCampaignDesk, jobs: FakeJobs) -> None:
    run = await desk.start({}, owner="alice", request_id="r")
    jobs.states[run.campaign_id] = JobStatus.STOPPED
    assert (await desk.get(run.campaign_id)).status is CampaignStatus.FAILED


async def test_a_campaign_that_said_how_it_ended_keeps_that(
    desk: RayJobCampaignDesk, jobs: FakeJobs, registry: SqlCampaignRegistry
) -> None:
    run = await desk.start({}, owner="alice", request_id="r")
    await registry.update(run.campaign_id, status=CampaignStatus.SUCCEEDED, report_path="x")
    jobs.states[run.campaign_id] = JobStatus.FAILED  # the command ends with 3 when a stage had failures
    assert (await desk.get(run.campaign_id)).status is CampaignStatus.SUCCEEDED


@pytest.mark.parametrize("trouble", ["away", "slow"])
async def test_an_unknown_job_state_is_not_taken_for_dead(
    desk: RayJobCampaignDesk, jobs: FakeJobs, clock: Clock, trouble: str
) -> None:
    run = await desk.start({}, owner="alice", request_id="r")
    clock.now += timedelta(days=1)
    jobs.away = trouble == "away"
    if trouble == "slow":
        jobs.answering.clear()
    found = await desk.get(run.campaign_id)
    jobs.answering.set()
    assert found.status is CampaignStatus.QUEUED


async def test_a_run_without_a_job_yet_or_from_the_command_line_lives_until_it_is_silent(
    desk: RayJobCampaignDesk, registry: SqlCampaignRegistry, clock: Clock
) -> None:
    entered = await registry.create(owner="alice", config={})
    typed = await registry.create(owner=COMMAND_LINE, config={})
    assert not (await desk.get(entered.campaign_id)).status.ended
    clock.now += 2 * MISSING_AFTER
    assert (await desk.get(entered.campaign_id)).status.ended
    assert not (await desk.get(typed.campaign_id)).status.ended
    clock.now += SILENT_AFTER
    assert (await desk.get(typed.campaign_id)).status.ended


async def test_the_job_is_told_the_campaign_alone(
    desk: RayJobCampaignDesk, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/some folder/python")
    run = await desk.start({"customers": 50, "seed": 3}, owner="alice", request_id="r")
    assert shlex.split(jobs.entrypoints[0]) == [
        "/some folder/python", "-m", "batch.cli", "--campaign-id", run.campaign_id,
    ]  # fmt: skip


@pytest.mark.parametrize("troubles", [["refused", "refused"], ["lost"]])
async def test_a_job_api_in_trouble_is_asked_again_and_starts_one_job(
    registry: SqlCampaignRegistry, jobs: FakeJobs, clock: Clock, troubles: list[str]
) -> None:
    jobs.troubles = troubles
    retry = replace(SUBMISSION, base_s=0.0, sleep=lambda _: asyncio.sleep(0))
    desk = RayJobCampaignDesk(registry, jobs=lambda: jobs, clock=clock, retry=retry)
    run = await desk.start({"customers": 10}, owner="key:test", request_id="req_1")
    assert len(jobs.entrypoints) == 1
    assert (await desk.get(run.campaign_id)).status is CampaignStatus.QUEUED


async def test_a_job_api_that_stays_away_is_told_and_the_run_ends(
    registry: SqlCampaignRegistry, jobs: FakeJobs, clock: Clock
) -> None:
    jobs.troubles = ["refused"] * 10
    retry = replace(SUBMISSION, base_s=0.0, sleep=lambda _: asyncio.sleep(0))
    desk = RayJobCampaignDesk(registry, jobs=lambda: jobs, clock=clock, retry=retry)
    with pytest.raises(DependencyUnavailable):
        await desk.start({"customers": 10}, owner="key:test", request_id="req_1")
    assert [run.status for run in await registry.list()] == [CampaignStatus.FAILED]
