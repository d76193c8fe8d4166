"""Learns what each action changes, from outreach decided by lot, and what a policy made of it would have brought."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from sklearn.model_selection import GroupKFold

from models.insights.evaluation import Estimate, log_loss
from models.insights.features import Floats, action_matrix
from models.insights.history import Bools, Ints, OutreachHistory
from models.insights.logistic import fit, hessian, sigmoid
from models.insights.next_best_action import RULES, ActionModel, choose
from models.insights.types import Action, Facts
from models.statistics import Interval

FOLDS = 5
#: Penalties on how much an action's effect depends on the customer; strong ones draw it to the same for all.
PENALTIES = (3.0, 10.0, 30.0, 100.0)
MIN_TRIED, MIN_RESPONDED = 100, 10
_OPEN, _WEAK = 1e-6, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What is known of one action by lot."""

    tried: int
    responded: int
    recommended: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionReport:
    """Everything a card says about the actions; values are good outcomes per piece of outreach, out of fold.

    `refused` says why there is no model, and is empty where there is one.
    """

    by_lot: int
    by_person: int
    arms: Mapping[str, Tried]
    left_out: tuple[str, ...] = ()
    penalty: float = 0.0
    habit: str = ""
    policy: Estimate | None = None
    never: Estimate | None = None
    always_habit: Estimate | None = None
    over_never: Estimate | None = None
    over_habit: Estimate | None = None
    refused: str = ""


def train_actions(history: OutreachHistory) -> tuple[ActionModel | None, ActionReport]:
    """The model, or `None` with the reason in the report: too little outreach by lot, or no gain over doing nothing."""
    lot = history.where(history.by_lot)
    counted = {
        action: (int((lot.actions == action).sum()), int(lot.responded[lot.actions == action].sum()))
        for action in sorted({str(action) for action in history.actions})
    }
    enough = {
        action for action, (tried, responded) in counted.items() if tried >= MIN_TRIED and responded >= MIN_RESPONDED
    }
    actions = tuple(action for action in RULES if action in enough)
    left_out = tuple(action for action in counted if action not in enough or action not in {*RULES, Action.NONE})
    by_lot, by_person = len(lot.actions), len(history.actions) - len(lot.actions)
    if Action.NONE not in enough or not actions:
        none_tried = counted.get(Action.NONE, (0, 0))
        return None, ActionReport(
            by_lot=by_lot,
            by_person=by_person,
            arms={action: Tried(tried=t, responded=r, recommended=0) for action, (t, r) in counted.items()},
            left_out=left_out,
            refused=f"it takes {MIN_TRIED} pieces of outreach by lot with {MIN_RESPONDED} good outcomes for doing"
            f" nothing (found {none_tried[0]} with {none_tried[1]}) and for at least one action",
        )
    kept = lot.where(np.isin(lot.actions, (Action.NONE.value, *actions)))
    penalty = _choose_penalty(kept, actions)
    chosen = np.array(["" for _ in kept.actions], dtype=object)
    for inside, outside in _folds(kept.customers):
        chosen[outside] = policy(fit_actions(kept.where(inside), actions, penalty), kept.where(outside).facts)
    habit = _habit(history, actions)
    always = np.array([_if_eligible(habit, facts) for facts in kept.facts], dtype=object)
    never = np.full(len(kept.actions), Action.NONE.value, dtype=object)
    worth = {name: _worth(kept, plan) for name, plan in (("policy", chosen), ("always", always), ("never", never))}
    over_never = _mean(worth["policy"] - worth["never"], kept.customers)
    shown = over_never.interval.low > 0
    report = ActionReport(
        by_lot=by_lot,
        by_person=by_person,
        arms={
            action: Tried(tried=t, responded=r, recommended=int((chosen == action).sum()))
            for action, (t, r) in counted.items()
        },
        left_out=left_out,
        penalty=penalty,
        habit=habit,
        policy=_mean(worth["policy"], kept.customers),
        never=_mean(worth["never"], kept.customers),
        always_habit=_mean(worth["always"], kept.customers),
        over_never=over_never,
        over_habit=_mean(worth["policy"] - worth["always"], kept.customers),
        refused="" if shown else "no gain over doing nothing is shown",
    )
    return (fit_actions(kept, actions, penalty) if shown else None), report


def fit_actions(lot: OutreachHistory, actions: tuple[str, ...], penalty: float) -> ActionModel:
    """One ridge logistic regression for all actions at once.

    The covariance is H^-1 (B + P) H^-1: H the penalised Hessian, P the penalty, B the scores' outer products summed by
    customer. Where rows are independent this is the Bayesian posterior's; rows of one customer that resemble each other
    widen it.
    """
    raw = action_matrix(lot.facts)
    means, scales = raw.mean(axis=0), np.maximum(raw.std(axis=0), 1e-9)
    scales[raw.std(axis=0) == 0] = 1.0
    x = np.column_stack([np.ones(len(raw)), (raw - means) / scales])
    design = np.column_stack([x, *(x * (lot.actions == action)[:, None] for action in actions)])
    width = x.shape[1]
    weights = np.ones(len(raw))
    prior = np.concatenate([[_OPEN], np.full(width - 1, _WEAK), *([_WEAK], np.full(width - 1, penalty)) * len(actions)])
    y = lot.responded.astype(np.float64)
    beta = fit(design, y, penalty=prior)
    p = sigmoid(design @ beta)
    inverse = np.linalg.inv(hessian(design, p, penalty=prior, weights=weights))
    names, place = np.unique(lot.customers, return_inverse=True)
    scores = np.zeros((len(names), design.shape[1]))
    np.add.at(scores, place, design * (y - p)[:, None])
    covariance = inverse @ (scores.T @ scores + np.diag(prior)) @ inverse
    return ActionModel(
        actions=actions,
        means=means,
        scales=scales,
        coefficients=beta,
        covariance=(covariance + covariance.T) / 2,
        z=float(norm.ppf(1 - 0.025 / len(actions))),
    )


def policy(model: ActionModel, facts: tuple[Facts, ...]) -> list[str]:
    """What `choose` recommends for each."""
    best = [choose(gains) for gains in model.gains(facts)]
    return [Action.NONE.value if gain is None else gain.action for gain in best]


def _worth(lot: OutreachHistory, plan: object) -> Floats:
    """Outcome of each row weighted by inverse propensity where the lot did what the plan says, else 0."""
    return np.asarray((lot.actions == plan) * lot.responded / lot.propensity, dtype=np.float64)


def _mean(values: Floats, customers: Ints) -> Estimate:
    """Mean with a normal 95 % interval whose error is clustered by customer."""
    names, place = np.unique(customers, return_inverse=True)
    mean = float(values.mean())
    residual = np.bincount(place, weights=values - mean)
    k = len(names)
    error = float(np.sqrt((residual**2).sum() * k / max(1, k - 1))) / len(values)
    half = float(norm.ppf(0.975)) * error
    return Estimate(value=mean, interval=Interval(mean - half, mean + half))


def _choose_penalty(lot: OutreachHistory, actions: tuple[str, ...]) -> float:
    """The penalty with the lowest log loss out of fold."""
    losses = []
    for penalty in PENALTIES:
        total = 0.0
        for inside, outside in _folds(lot.customers):
            model, rest = fit_actions(lot.where(inside), actions, penalty), lot.where(outside)
            x = np.column_stack([np.ones(len(rest.facts)), (action_matrix(rest.facts) - model.means) / model.scales])
            width = x.shape[1]
            logits = x @ model.coefficients[:width]
            for number, action in enumerate(actions, 1):
                block = model.coefficients[width * number : width * (number + 1)]
                logits = logits + (rest.actions == action) * (x @ block)
            total += log_loss(rest.responded.astype(np.float64), sigmoid(logits), np.ones(len(logits))) * len(logits)
        losses.append(total)
    return PENALTIES[int(np.argmin(losses))]


def _habit(history: OutreachHistory, actions: tuple[str, ...]) -> str:
    """What people did most often; what the lot did most often where people decided nothing."""
    for rows in (~history.by_lot, history.by_lot):
        counts = {action: int((history.actions[rows] == action).sum()) for action in actions}
        if any(counts.values()):
            return max(counts, key=lambda action: counts[action])
    return actions[0]


def _if_eligible(action: str, facts: Facts) -> str:
    return action if RULES[action].eligible(facts) else Action.NONE.value


def _folds(customers: Ints) -> list[tuple[Bools, Bools]]:
    found = []
    for _, outside in GroupKFold(n_splits=FOLDS).split(np.zeros((len(customers), 1)), groups=customers):
        mask = np.zeros(len(customers), dtype=np.bool_)
        mask[outside] = True
        found.append((~mask, mask))
    return found
