"""What the command line refuses before any Ray is started."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from batch import cli


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
