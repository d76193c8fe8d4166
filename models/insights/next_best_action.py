"""Which action helps: its expected gain over doing nothing, and the rules that say whom it may be offered to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from models.errors import ConfigurationError
from models.insights.features import ACTION_FEATURES, Floats, action_matrix
from models.insights.types import Action, Facts


@dataclass(frozen=True, slots=True)
class Rule:
    """Whom an action may be offered to, and why it is offered, without numbers that change by the day."""

    eligible: Callable[[Facts], bool]
    reason: str


#: An action that has no rule is never offered.
RULES: Mapping[str, Rule] = MappingProxyType(
    {
        Action.TRAINING_SESSION: Rule(lambda f: f.at_risk, "Training helps customers who use the product like this"),
        Action.RENEWAL_CALL: Rule(lambda f: f.at_risk, "A call about the renewal helps customers like this"),
        Action.UPGRADE_OFFER: Rule(
            lambda f: f.at_risk and not f.overdue, "Customers who use the product like this welcome an upgrade"
        ),
        Action.BILLING_HELP: Rule(
            lambda f: f.at_risk and (f.overdue or f.late_payments_180d > 0), "Help with open bills is welcome"
        ),
        Action.REFERRAL_ASK: Rule(
            lambda f: f.at_risk and not f.overdue and f.low_ratings_180d == 0, "Content customers like to recommend"
        ),
        Action.WIN_BACK: Rule(lambda f: f.canceled, "Some who left like this come back when asked"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """The expected rise in the probability of a good outcome against doing nothing, and its interval."""

    action: str
    expected: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActionModel:
    """One logistic model of a good outcome: what holds without any action, and what each action changes about it.

    `coefficients` are blocks of 1 + features: the first for doing nothing, the next what each of `actions` adds;
    `covariance` is theirs. Features are standardised by `means` and `scales`. Intervals are +- `z` standard errors,
    wide enough to hold for all actions at once.
    """

    actions: tuple[str, ...]
    means: Floats
    scales: Floats
    coefficients: Floats
    covariance: Floats
    z: float

    def __post_init__(self) -> None:
        width = len(ACTION_FEATURES)
        size = (1 + width) * (1 + len(self.actions))
        shapes = (self.means.shape, self.scales.shape, self.coefficients.shape, self.covariance.shape)
        if shapes != ((width,), (width,), (size,), (size, size)):
            raise ConfigurationError("action model: its numbers do not fit the features")
        finite = all(np.isfinite(part).all() for part in (self.means, self.scales, self.coefficients, self.covariance))
        if not finite or self.z <= 0 or (self.scales <= 0).any():
            raise ConfigurationError("action model: not all numbers make sense")
        if unknown := set(self.actions) - set(RULES):
            raise ConfigurationError(f"action model: no rule says whom to offer {min(unknown)}")

    def gains(self, facts: Sequence[Facts]) -> list[tuple[Gain, ...]]:
        """The gains of the actions that each customer is eligible for, the highest first."""
        x = np.column_stack([np.ones(len(facts)), (action_matrix(facts) - self.means) / self.scales])
        per_action = [self._gain(x, number) for number in range(len(self.actions))]
        found = []
        for index, one in enumerate(facts):
            eligible = [
                Gain(
                    action=action,
                    expected=float(gain[index]),
                    low=float(gain[index] - self.z * error[index]),
                    high=float(gain[index] + self.z * error[index]),
                )
                for action, (gain, error) in zip(self.actions, per_action, strict=True)
                if RULES[action].eligible(one)
            ]
            found.append(tuple(sorted(eligible, key=lambda gain: -gain.expected)))
        return found

    def _gain(self, x: Floats, number: int) -> tuple[Floats, Floats]:
        """Difference of two probabilities and its standard error by the delta method, for each row."""
        width = x.shape[1]
        base, added = slice(0, width), slice(width * (number + 1), width * (number + 2))
        without = _sigmoid(x @ self.coefficients[base])
        treated = _sigmoid(x @ (self.coefficients[base] + self.coefficients[added]))
        slope_without, slope_treated = without * (1 - without), treated * (1 - treated)
        # Gradients for the two blocks of coefficients, and the quadratic form of their covariance block by block.
        d_base, d_added, c = x * (slope_treated - slope_without)[:, None], x * slope_treated[:, None], self.covariance
        variance = ((d_base @ c[base, base] + 2 * d_added @ c[added, base]) * d_base).sum(axis=1)
        variance += ((d_added @ c[added, added]) * d_added).sum(axis=1)
        return treated - without, np.sqrt(np.maximum(variance, 0.0))


def choose(gains: Sequence[Gain]) -> Gain | None:
    """The action with the highest expected gain among those that certainly help; `None` where none does."""
    shown = [gain for gain in gains if gain.low > 0]
    return max(shown, key=lambda gain: gain.expected, default=None)


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))
