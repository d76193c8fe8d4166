"""Runs one campaign and writes its report.

    python -m batch.cli [--campaign-id cpn_...] [--config config/campaign/demo.yaml] [--customers 500]

A registered campaign brings its own name, seed and number of customers; what the file says stands for the rest.
On a running cluster (`--address`, `RAY_ADDRESS` or `ray job submit`) it shares the graph's models; otherwise it starts
a Ray of its own on loopback. Exit code: 0 all stages did their work, 3 the report was written but some stage failed or
did only a part, 1 no report, 2 wrong arguments or configuration, 4 the campaign was cancelled meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import ray

from batch.engines import engines_for
from batch.handles import graph_is_running
from batch.mapping import prepare_ray_data
from batch.pipeline import CampaignPipeline, Run
from models.campaign.config import CampaignConfig, load_campaign_config
from models.campaign.frames import ToneFrame, load_frames
from models.campaign.reporting import PAGE, CampaignReport
from models.campaign.types import COMMAND_LINE, StageState, Tone
from models.clock import utc_now
from models.errors import ConfigurationError, Conflict, DatabaseUnavailable, RapportError
from models.ids import new_id
from models.safety.pii import PatternPIIDetector
from models.settings import Settings, load_settings
from models.telemetry import configure_logging
from providers.database import Database
from providers.systems.audit import SqlAuditLog
from providers.systems.campaigns import CampaignStatus, SqlCampaignRegistry

OK, NO_REPORT, WRONG_INPUT, WITH_FAILURES, CANCELLED = 0, 1, 2, 3, 4
ROOT = Path(__file__).resolve().parents[1]
_LIBRARIES = ("ray", "scipy", "statsmodels", "scikit-learn")


def main(argv: list[str] | None = None) -> int:
    """Parse, load, run; the exit code."""
    try:
        arguments = _parse(argv)
        settings = load_settings()
        configure_logging(settings.log_level, redact=PatternPIIDetector().redact)
        path = Path(arguments.config) if arguments.config else ROOT / settings.campaign.config
        config = load_campaign_config(path)
        frames = load_frames(path.parent / config.frames)
    except ConfigurationError as exc:
        say(str(exc))
        return WRONG_INPUT
    with cluster(arguments.address) as where:
        say(f"Ray: {where}")
        try:
            return asyncio.run(_campaign(arguments, settings, config, frames, report_root(settings)))
        except Conflict:
            say("the campaign was cancelled; stopped")
            return CANCELLED
        except RapportError as exc:
            say(f"no report: {exc}")
            return NO_REPORT


def report_root(settings: Settings) -> Path:
    """The folder of all reports; a relative setting counts from the project, wherever the command was started."""
    return (ROOT / (settings.campaign.report_dir or settings.state_dir / "reports")).resolve()


def say(text: str) -> None:
    print(f"  campaign: {text}", flush=True)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m batch.cli", description="Run one campaign and write its report.")
    parser.add_argument("--campaign-id", type=_campaign_id, help="a registered campaign; without it one is registered")
    parser.add_argument("--config", help="the campaign file (default: the setting campaign.config)")
    parser.add_argument("--customers", type=_count, help="how many customers (default: as registered, or all)")
    parser.add_argument("--address", default=os.environ.get("RAY_ADDRESS"), help="a running Ray cluster, or `auto`")
    parser.add_argument("--as-of", type=_instant, help="the campaign's day, RFC 3339 (default: now)")
    parser.add_argument("--cpus", type=float, default=1.0, help="processors that Ray Data may use (default: 1)")
    return parser.parse_args(argv)


def _campaign_id(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text):
        raise argparse.ArgumentTypeError("must match [A-Za-z0-9_-]{1,64}")
    return text


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10_000_000:
        raise argparse.ArgumentTypeError("must be a whole number from 1 to 10,000,000")
    return int(text)


def _instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError("must be an RFC 3339 time such as 2026-11-01T08:00:00Z") from exc
    return instant.replace(tzinfo=instant.tzinfo or UTC).astimezone(UTC)


@contextmanager
def cluster(address: str | None) -> Iterator[str]:
    """Ray, joined or started; one that was started here is gone afterwards, with its files."""
    if address:
        ray.init(address=address, log_to_driver=False)
        try:
            yield f"joined the cluster at {address}"
        finally:
            ray.shutdown()
        return
    folder = tempfile.mkdtemp(prefix="rd", dir="/tmp")
    try:
        ray.init(
            num_cpus=max(2, os.cpu_count() or 2),
            include_dashboard=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
        )
        yield "started one of its own"
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


async def _campaign(
    arguments: argparse.Namespace,
    settings: Settings,
    config: CampaignConfig,
    frames: dict[Tone, ToneFrame],
    reports: Path,
) -> int:
    shared = graph_is_running()
    prepare_ray_data(cpus=arguments.cpus)
    database = Database(settings.database_url, pool_size=2, busy_timeout_s=settings.database.busy_timeout_s)
    registry, audit = SqlCampaignRegistry(database), SqlAuditLog(database)
    try:
        campaign_id, config, customers = await entered(registry, config, arguments.campaign_id, arguments.customers)
        folder = reports / campaign_id

        async def progress(stage: str, done: int, total: int) -> None:
            say(f"[{done}/{total}] {stage}")
            try:
                await registry.update(
                    campaign_id, status=CampaignStatus.RUNNING, stage=stage, progress=min(done / total, 0.99)
                )
            except DatabaseUnavailable as exc:  # a campaign outlives a missed report of its progress
                say(f"progress could not be kept: {exc}")

        pipeline = CampaignPipeline(
            config,
            frames,
            engines_for(settings, shared=shared),
            audit,
            Run(
                campaign_id=campaign_id,
                as_of=arguments.as_of or utc_now(),
                customers=customers,
                report_dir=folder,
                hash_salt=settings.hash_salt.get_secret_value(),
                versions={name: version(name) for name in _LIBRARIES},
            ),
            clock=utc_now,
            new_id=new_id,
            progress=progress,
        )
        try:
            report = await pipeline.run()
        except Exception as exc:
            await _end(registry, campaign_id, CampaignStatus.FAILED, error=type(exc).__name__)
            raise
        return await _finish(registry, report, folder)
    finally:
        await audit.close()
        await database.close()


async def entered(
    registry: SqlCampaignRegistry, config: CampaignConfig, campaign_id: str | None, customers: int | None
) -> tuple[str, CampaignConfig, int | None]:
    """The campaign's id, its configuration with the registered name and seed, and how many customers it is for.

    Without an id the campaign is registered. `customers` given here wins over the registered number. Raises `NotFound`.
    """
    if campaign_id is None:
        told = {"name": config.name, "customers": customers, "seed": config.seed}
        return (await registry.create(owner=COMMAND_LINE, config=told)).campaign_id, config, customers
    asked = (await registry.get(campaign_id)).config
    own = {name: asked[name] for name in ("name", "seed") if asked.get(name) is not None}
    return campaign_id, config.model_copy(update=own), customers or asked.get("customers")


async def _finish(registry: SqlCampaignRegistry, report: CampaignReport, folder: Path) -> int:
    campaign_id = report.provenance.campaign_id
    for stage in report.stages:
        first = next(iter(stage.failures), None)
        problem = f"{stage.error_code} {stage.error}" if stage.error_code else stage.note
        if first:
            problem = f"{problem} first failure: {first.key} {first.code} {first.detail}"
        rows = f"{stage.rows_out}/{stage.rows_in} in {stage.duration_s:.1f} s"
        say(f"{stage.name:<13} {stage.state.value:<10} {rows}  {problem.strip()}")
    if report.stages[-1].state is not StageState.COMPLETED:
        await _end(registry, campaign_id, CampaignStatus.FAILED, error=report.stages[-1].error or "no report")
        return NO_REPORT
    say(report.result.headline if report.result else "the experiment could not be analysed")
    say(f"report: {folder / PAGE}")
    troubled = ", ".join(f"{stage.name} {stage.state.value}" for stage in report.troubled)
    await registry.update(
        campaign_id,
        status=CampaignStatus.SUCCEEDED,
        stage="done",
        progress=1.0,
        report_path=str(folder),
        error=troubled or None,
    )
    return WITH_FAILURES if troubled else OK


async def _end(registry: SqlCampaignRegistry, campaign_id: str, status: CampaignStatus, *, error: str) -> None:
    try:
        await registry.update(campaign_id, status=status, error=error)
    except RapportError as exc:  # the run has failed already; its first cause is what the caller must see
        say(f"the campaign's status could not be kept: {exc}")


if __name__ == "__main__":
    sys.exit(main())
