"""The training command says what it did by its exit code, and installs nothing that is no better than a simple rule."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from demo.seed import plant
from models.errors import Conflict
from models.insights.artifact import Insights
from providers.database import Database
from providers.insights_training import NO_GAIN, OK, TOO_LITTLE, WRONG_INPUT, learn, main, train
from tests.unit.insights.histories import outreach, snapshots

NOW = datetime(2026, 3, 14, tzinfo=UTC)


async def test_too_little_history_is_told_and_nothing_is_written(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    await plant(database, customers=40, seed=7, now=NOW)
    with pytest.raises(Conflict, match=r"too little history to learn from; it lacks .* customers who left"):
        await train(database_url, tmp_path / "out")
    assert not (tmp_path / "out").exists()


async def test_an_empty_database_is_too_little_too(database: Database, database_url: str, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="cut-offs"):
        await train(database_url, tmp_path / "out")


def test_exit_codes_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from providers.database import migrate

    url = f"sqlite+aiosqlite:///{tmp_path}/empty.db"
    assert main(["--database", url, "--out", str(tmp_path / "out")]) == WRONG_INPUT
    migrate(url)
    assert main(["--database", url, "--out", str(tmp_path / "out")]) == TOO_LITTLE
    assert main(["--database", "nonsense", "--out", str(tmp_path / "out")]) == WRONG_INPUT
    with pytest.raises(SystemExit, match="2"):
        main(["--database", url, "--out", str(tmp_path / "out"), "--until", "yesterday"])
    assert "too little history" in capsys.readouterr().out


def test_model_and_card_are_written(tmp_path: Path) -> None:
    assert learn(snapshots(), outreach(), tmp_path, until=NOW, synthetic=False, draws=50) == OK
    model = Insights.load(tmp_path / "insights.json")
    card = (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert model.version in card.splitlines()[0]
    assert "synthetic" not in card.splitlines()[0]
    assert "it is better than every baseline" in card
    assert "(calibration.png)" in card
    assert (tmp_path / "calibration.png").exists()
    assert model.actions is not None


def test_a_model_without_gain_is_not_installed_unless_forced(tmp_path: Path) -> None:
    history, tried = snapshots(signal=False), outreach(effect=0.0)
    assert learn(history, tried, tmp_path, until=NOW, synthetic=True, draws=50) == NO_GAIN
    assert not (tmp_path / "insights.json").exists()
    card = (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "it is NOT better than every baseline" in card
    assert "synthetic" in card.splitlines()[0]
    assert "No action is recommended to anybody" in card
    assert learn(history, tried, tmp_path, until=NOW, synthetic=True, force=True, draws=50) == OK
    assert Insights.load(tmp_path / "insights.json").actions is None
