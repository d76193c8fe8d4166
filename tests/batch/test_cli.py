"""What the command line refuses before any Ray is started, and where it takes a campaign from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from batch import cli
from models.campaign.config import load_campaign_config
from models.campaign.experimentation import assign, plan_experiment
from models.campaign.types import TREATMENTS, Assignment
from models.errors import NotFound
from models.settings import load_settings
from providers.database import Database
from providers.systems.campaigns import SqlCampaignRegistry


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("Ray must not start for wrong input")

    monkeypatch.setattr(ray, "init", refused)
    monkeypatch.setenv("RAPPORT_STATE_DIR", str(tmp_path))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--customers", "0"],
        ["--customers", "many"],
        ["--campaign-id", "../../etc"],
        ["--as-of", "yesterday"],
        ["--surprise"],
    ],
)
def test_wrong_arguments_name_what_is_expected(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == cli.WRONG_INPUT
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize("content", ["name: [", "name: x\nseed: 1", None])
def test_a_wrong_campaign_file_stops_the_start(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "campaign.yaml"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert cli.main(["--config", str(path)]) == cli.WRONG_INPUT
    assert "campaign.yaml" in capsys.readouterr().out


def test_a_wrong_setting_stops_the_start(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RAPPORT_SAFETY__BLOCK_AT", "eleven")
    assert cli.main([]) == cli.WRONG_INPUT
    assert "RAPPORT_SAFETY__BLOCK_AT" in capsys.readouterr().out


AUDIENCE = [(f"customer_{i}", "loyal") for i in range(80)]


async def started(registry: SqlCampaignRegistry, asked: dict[str, Any]) -> tuple[str, int | None, list[Assignment]]:
    """Name, number of customers and assignments of a campaign that the API has registered."""
    run = await registry.create(owner="alice", config=asked)
    file = load_campaign_config(cli.ROOT / "config" / "campaign" / "demo.yaml")
    campaign_id, config, customers = await cli.entered(registry, file, run.campaign_id, None)
    assert campaign_id == run.campaign_id
    assert config.seed == asked["seed"]
    plan = plan_experiment(AUDIENCE, {"loyal": TREATMENTS}, salt=config.salt, alpha=0.05, primary_metric="visit")
    return config.name, customers, assign(AUDIENCE, plan)


async def test_a_registered_campaign_brings_its_name_seed_and_size(database_url: str) -> None:
    database = Database(database_url)
    registry = SqlCampaignRegistry(database)
    try:
        first = await started(registry, {"name": "spring", "customers": 60, "seed": 1})
        again = await started(registry, {"name": "spring", "customers": 60, "seed": 1})
        other = await started(registry, {"name": "spring", "customers": 60, "seed": 2})
        with pytest.raises(NotFound):
            await cli.entered(registry, load_campaign_config(cli.ROOT / "config/campaign/demo.yaml"), "cpn_x", None)
    finally:
        await database.close()
    assert first[:2] == ("spring", 60)
    assert first == again
    assert first[2] != other[2]


def test_paths_of_settings_do_not_depend_on_where_the_command_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAPPORT_CAMPAIGN__REPORT_DIR", "out/reports")
    monkeypatch.chdir(tmp_path)
    assert cli.report_root(load_settings()) == cli.ROOT / "out" / "reports"
    monkeypatch.setattr(cli, "cluster", lambda address: (_ for _ in ()).throw(InterruptedError))
    with pytest.raises(InterruptedError):  # the campaign file was found and read
        cli.main([])


def test_logs_of_a_campaign_hold_no_personal_data(monkeypatch: pytest.MonkeyPatch) -> None:
    redacts: list[Callable[[str], str]] = []
    monkeypatch.setattr(cli, "configure_logging", lambda level, *, redact: redacts.append(redact))
    monkeypatch.setattr(cli, "cluster", lambda address: (_ for _ in ()).throw(InterruptedError))
    with pytest.raises(InterruptedError):
        cli.main([])
    assert "jane.doe" not in redacts[0]("could not reach jane.doe@example.com")
