"""The trained model as a file: numbers as JSON, nothing that could run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import ConfigurationError
from models.insights.churn import ChurnModel
from models.insights.features import ACTION_FEATURES, CHURN_FEATURES
from models.insights.next_best_action import ActionModel

#: Another meaning of the numbers is another format.
FORMAT = 1
FILE_NAME = "insights.json"
#: The model of the demo company that ships with Rapport; `MODEL_CARD.md` beside it says how well it does.
SHIPPED = Path(__file__).parent / "artifacts" / FILE_NAME


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Insights:
    """Both models; `synthetic` says that they learnt from made-up history, `actions` is `None` where none is shown to
    help. `version` names the content."""

    churn: ChurnModel
    actions: ActionModel | None
    synthetic: bool
    trained_until: str

    @property
    def version(self) -> str:
        return _digest(self._content())[:12]

    def save(self, path: Path) -> None:
        content = self._content()
        text = json.dumps({"format": FORMAT, "sha256": _digest(content), "content": content}, indent=1)
        path.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path = SHIPPED) -> Insights:
        """Read what `save` wrote. Raises `ConfigurationError` for a damaged, edited or foreign file.

        The digest inside notices accidents and edits by hand; it is no signature.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            content = stored["content"]
            if stored["format"] != FORMAT:
                raise ConfigurationError(f"{path.name} is an insights model of another format; train it anew")
            if stored["sha256"] != _digest(content):
                raise ConfigurationError(f"{path.name} was changed after training, or is damaged")
            if tuple(content["churn"]["features"]) != CHURN_FEATURES:
                raise ConfigurationError(f"{path.name} was trained on other features; train it anew")
            return cls(
                churn=_churn(content["churn"]),
                actions=None if content["actions"] is None else _actions(content["actions"], path.name),
                synthetic=bool(content["synthetic"]),
                trained_until=str(content["trained_until"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise ConfigurationError(f"the insights model cannot be read from {path.name}") from exc

    def _content(self) -> dict[str, Any]:
        churn, actions = self.churn, self.actions
        return {
            "synthetic": self.synthetic,
            "trained_until": self.trained_until,
            "churn": {
                "features": list(CHURN_FEATURES),
                "horizon_days": churn.horizon_days,
                "weights": churn.weights.tolist(),
                "means": churn.means.tolist(),
                "intercept": churn.intercept,
            },
            "actions": None
            if actions is None
            else {
                "features": list(ACTION_FEATURES),
                "actions": list(actions.actions),
                "means": actions.means.tolist(),
                "scales": actions.scales.tolist(),
                "coefficients": actions.coefficients.tolist(),
                "covariance": actions.covariance.tolist(),
                "z": actions.z,
            },
        }


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _churn(stored: dict[str, Any]) -> ChurnModel:
    return ChurnModel(
        horizon_days=int(stored["horizon_days"]),
        weights=np.array(stored["weights"], dtype=np.float64),
        means=np.array(stored["means"], dtype=np.float64),
        intercept=float(stored["intercept"]),
    )


def _actions(stored: dict[str, Any], name: str) -> ActionModel:
    if tuple(stored["features"]) != ACTION_FEATURES:
        raise ConfigurationError(f"{name} was trained on other features; train it anew")
    return ActionModel(
        actions=tuple(str(action) for action in stored["actions"]),
        means=np.array(stored["means"], dtype=np.float64),
        scales=np.array(stored["scales"], dtype=np.float64),
        coefficients=np.array(stored["coefficients"], dtype=np.float64),
        covariance=np.array(stored["covariance"], dtype=np.float64),
        z=float(stored["z"]),
    )
