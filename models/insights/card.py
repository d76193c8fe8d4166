"""The model card: what was learnt from, how well it does, and what it is not for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from models.insights import plots
from models.insights.action_training import ActionReport
from models.insights.artifact import FILE_NAME, Insights
from models.insights.churn_training import FOLDS, ChurnReport
from models.insights.evaluation import Estimate
from models.insights.features import ACTION_FEATURES, CHURN_FEATURES
from models.insights.types import MIN_TENURE_DAYS

CARD, PLOT = "MODEL_CARD.md", "calibration.png"
TEMPLATE = Path(__file__).parent / "card_template.md"
_SYNTHETIC = (
    "**The history is invented**: the demo company's generator made it, with effects that it knows. The figures show\n"
    "that the method works; they say nothing about any real company. Train on your own history before you rely on\n"
    "it.\n\n"
)
_SYNTHETIC_LIMITS = (
    "- Synthetic: churn, use and response follow a few formulas with noise, which suits a logistic regression.\n"
    "- All yearly bills of the demo company fall on one day of the year; what is known of payments shifts then.\n"
    "- Logins of the demo company older than 30 days are told in rows of some days each; between two such rows,\n"
    "  counts are a little low. Cut-offs for churn fall on the boundaries of the rows; days of outreach do not.\n"
)


def write_card(
    folder: Path, insights: Insights, churn: ChurnReport, actions: ActionReport, *, test_share: float
) -> None:
    """Write `MODEL_CARD.md` and its plot into the folder."""
    (folder / CARD).write_text(render(insights, churn, actions, test_share=test_share), encoding="utf-8")
    plots.calibration(churn.bins, folder / PLOT)


def render(insights: Insights, churn: ChurnReport, actions: ActionReport, *, test_share: float) -> str:
    """The card in Markdown; its first line says whether the data is synthetic."""
    log_loss = churn.metrics["log loss"].value
    return TEMPLATE.read_text(encoding="utf-8").format(
        version=insights.version,
        data="synthetic data" if insights.synthetic else "the company's own history",
        synthetic_note=_SYNTHETIC if insights.synthetic else "",
        file=FILE_NAME,
        horizon=insights.churn.horizon_days,
        min_tenure=MIN_TENURE_DAYS,
        first_cutoff=churn.cutoffs[0],
        last_cutoff=churn.cutoffs[-1],
        until=insights.trained_until,
        features=", ".join(CHURN_FEATURES),
        share_test=test_share,
        train_span=" to ".join(churn.train_cutoffs),
        train_counts=" | ".join(f"{count:,}" for count in churn.train),
        test_span=" to ".join(churn.test_cutoffs),
        test_counts=" | ".join(f"{count:,}" for count in churn.test),
        strength=churn.strength,
        folds=FOLDS,
        slope=churn.calibration[0],
        offset=churn.calibration[1],
        draws=f"{churn.draws:,}",
        metrics="\n".join(f"| {name} | {_told(found)} |" for name, found in churn.metrics.items()),
        calibration_words=_calibration_words(churn.metrics),
        base_rate=sum(one.events for one in churn.bins) / sum(one.rows for one in churn.bins),
        against="\n".join(
            f"| {name} | {churn.baseline_losses[name]:.5f} | {_told(found, signed=True)} |"
            for name, found in churn.against.items()
        ),
        boosting_loss=log_loss + churn.boosting_minus_model.value,
        boosting=_told(_turned(churn.boosting_minus_model), signed=True),
        verdict="it is better than every baseline" if churn.beats_baselines else "it is NOT better than every baseline",
        boosting_words=_boosting_words(churn.boosting_minus_model),
        bins="\n".join(
            f"| {one.predicted:.4f} | {one.observed:.4f} | {one.interval.low:.4f} to {one.interval.high:.4f}"
            f" | {one.rows:,} | {one.customers:,} | {one.events:,} |"
            for one in churn.bins
        ),
        coefficients="\n".join(f"| {name} | {change:+.3f} |" for name, change in churn.coefficients.items()),
        by_lot=f"{actions.by_lot:,}",
        by_person=f"{actions.by_person:,}",
        action_features=", ".join(ACTION_FEATURES),
        penalty=actions.penalty,
        arms="\n".join(
            f"| {name} | {arm.tried:,} | {arm.responded:,} | {arm.recommended:,} |"
            for name, arm in actions.arms.items()
        ),
        actions_verdict=_actions_verdict(actions),
        limits=_SYNTHETIC_LIMITS if insights.synthetic else "",
    )


def _actions_verdict(actions: ActionReport) -> str:
    if actions.policy is None or actions.never is None or actions.always_habit is None:
        return f"**No action is recommended to anybody**: {actions.refused}."
    lines = [
        "Value of a policy: good outcomes per piece of outreach, by inverse propensity weighting on outreach by lot.",
        "The recommendations are out of fold (folds keep a customer whole); intervals are 95 %, clustered by customer.",
        "",
        "| policy | value | recommended policy minus it |",
        "|---|---|---|",
        f"| recommended | {_told(actions.policy)} | |",
        f"| never do anything | {_told(actions.never)} | {_told(actions.over_never, signed=True)} |",
        f"| always `{actions.habit}` where eligible, as people did most often | {_told(actions.always_habit)}"
        f" | {_told(actions.over_habit, signed=True)} |",
    ]
    if actions.left_out:
        lines += ["", f"Too rarely tried by lot to be judged, or without a rule: {', '.join(actions.left_out)}."]
    if actions.refused:
        lines += ["", f"**No action is recommended to anybody**: {actions.refused}."]
    return "\n".join(lines)


def _calibration_words(metrics: Mapping[str, Estimate]) -> str:
    slope, intercept = metrics["calibration slope"].interval, metrics["calibration intercept"].interval
    words = []
    if slope.low > 1:
        words.append("The predictions are shown to be too cautious: high ones should be higher, low ones lower.")
    elif slope.high < 1:
        words.append("The predictions are shown to be too extreme: high ones should be lower, low ones higher.")
    if 0 not in intercept:
        words.append(f"They are shown to be too {'low' if intercept.low > 0 else 'high'} as a whole.")
    return " ".join(words) or "No deviation from either is shown."


def _boosting_words(boosting_minus_model: Estimate) -> str:
    if boosting_minus_model.interval.high < 0:
        return "Boosted trees are shown to be better: bends or interactions are given up for a model that can be read."
    if boosting_minus_model.interval.low > 0:
        return "Boosted trees are shown to be worse."
    return "No difference to boosted trees is shown, so nothing is known to be given up for a model that can be read."


def _turned(estimate: Estimate) -> Estimate:
    interval = type(estimate.interval)(-estimate.interval.high, -estimate.interval.low)
    return Estimate(value=-estimate.value, interval=interval)


def _told(estimate: Estimate | None, *, signed: bool = False) -> str:
    if estimate is None:
        return ""
    sign = "+" if signed else ""
    low, high = estimate.interval.low, estimate.interval.high
    return f"{estimate.value:{sign}.5f} [{low:{sign}.5f}, {high:{sign}.5f}]"
