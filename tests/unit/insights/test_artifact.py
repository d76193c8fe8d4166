"""The model file gives back what was trained, and nothing else; the card says what it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from models.errors import ConfigurationError
from models.insights.artifact import SHIPPED, Insights
from models.insights.features import churn_matrix
from tests.unit.insights.histories import action_model, busy, churn_model

INSIGHTS = Insights(churn=churn_model(), actions=action_model(), synthetic=True, trained_until="2026-01-01")


def test_what_is_saved_is_loaded_to_the_last_digit(tmp_path: Path) -> None:
    INSIGHTS.save(tmp_path / "insights.json")
    loaded = Insights.load(tmp_path / "insights.json")
    facts = [busy(1), busy(9, overdue=True)]
    assert loaded.version == INSIGHTS.version
    np.testing.assert_array_equal(
        loaded.churn.probabilities(churn_matrix(facts)), INSIGHTS.churn.probabilities(churn_matrix(facts))
    )
    assert loaded.actions is not None
    assert INSIGHTS.actions is not None
    assert loaded.actions.gains(facts) == INSIGHTS.actions.gains(facts)


def test_a_model_without_actions_is_one_too(tmp_path: Path) -> None:
    alone = Insights(churn=churn_model(), actions=None, synthetic=False, trained_until="2026-01-01")
    alone.save(tmp_path / "insights.json")
    assert Insights.load(tmp_path / "insights.json").actions is None


@pytest.mark.parametrize(
    "change",
    [
        lambda stored: stored["content"]["churn"]["weights"].__setitem__(0, 9.0),
        lambda stored: stored["content"].__setitem__("synthetic", False),
        lambda stored: stored.__setitem__("format", 2),
        lambda stored: stored["content"].pop("churn"),
        lambda stored: stored.__setitem__("content", []),
    ],
)
def test_a_changed_file_is_refused_by_name(tmp_path: Path, change: object) -> None:
    path = tmp_path / "insights.json"
    INSIGHTS.save(path)
    stored = json.loads(path.read_text())
    change(stored)  # type: ignore[operator]
    path.write_text(json.dumps(stored))
    with pytest.raises(ConfigurationError, match=r"insights\.json"):
        Insights.load(path)


@pytest.mark.parametrize("content", [b"", b"\x80\x04garbage", b'{"format": 1'])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "insights.json").write_bytes(content)
    with pytest.raises(ConfigurationError):
        Insights.load(tmp_path / "insights.json")
    with pytest.raises(ConfigurationError):
        Insights.load(tmp_path / "missing.json")


def test_the_shipped_model_is_synthetic_and_its_card_says_so_first() -> None:
    shipped = Insights.load()
    first = (SHIPPED.parent / "MODEL_CARD.md").read_text(encoding="utf-8").splitlines()[0]
    assert shipped.synthetic
    assert "synthetic" in first
    assert shipped.version in first
    assert (SHIPPED.parent / "calibration.png").stat().st_size > 1000


def test_the_shipped_model_fears_for_who_stopped_logging_in_and_does_not_pay() -> None:
    fading = busy(0, overdue=True)
    (low, _), (high, drivers) = Insights.load().churn.predict([busy(40), fading])
    assert high > 3 * low
    assert "logins_30d" in drivers


def test_a_prediction_needs_no_scikit_learn(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; import models.insights.artifact as a; from models.insights.types import Facts;"
        "a.Insights.load().churn.predict([Facts(tenure_days=99)]);"
        "assert not {'sklearn', 'scipy', 'matplotlib'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False).returncode == 0
