"""The report's pictures as PNG in a data URI, drawn without a display."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from models import figures
from models.campaign.analysis import ArmSummary, Conclusion, Lift, Metric
from models.campaign.types import Arm
from models.figures import BLUE, GREEN, GREY, INK, RED
from models.statistics import Interval

COLOURS = {Arm.CONTROL: GREY, Arm.URGENT: RED, Arm.INFORMATIONAL: BLUE, Arm.FRIENDLY: GREEN}
_UNITS = {Metric.VISIT: "points", Metric.CONVERSION: "points", Metric.SPEND: "money units"}


def forest(lifts: Sequence[Lift]) -> str:
    """Differences from control with their corrected intervals, one panel a metric; open dots mean "not shown".

    A metric without any measured difference has no panel; the text is empty when none has one.
    """
    metrics = [m for m in Metric if any(x.metric is m and x.conclusion is not Conclusion.NOT_MEASURED for x in lifts)]
    return figures.forest([_panel(metric, [lift for lift in lifts if lift.metric is metric]) for metric in metrics])


def _panel(metric: Metric, lifts: Sequence[Lift]) -> figures.ForestPanel:
    primary = " (primary)" if any(lift.primary for lift in lifts) else ""
    return figures.ForestPanel(
        title=f"{metric.value}{primary}",
        label=f"difference from control, {_UNITS[metric]}",
        rows=tuple(_row(lift) for lift in lifts),
    )


def _row(lift: Lift) -> figures.ForestRow:
    scale = 1.0 if lift.metric is Metric.SPEND else 100.0
    low, high = scale * lift.interval.low, scale * lift.interval.high
    estimable = lift.conclusion is not Conclusion.NOT_MEASURED and not math.isnan(low)
    return figures.ForestRow(
        label=lift.arm.value,
        difference=scale * lift.difference,
        interval=Interval(low, high) if estimable else None,
        shown=lift.conclusion in (Conclusion.HIGHER, Conclusion.LOWER),
        colour=COLOURS[lift.arm],
        note="too few events",
    )


def rates(arms: Sequence[ArmSummary]) -> str:
    """Visit and conversion rate of every arm with 95 % Wilson intervals, each arm by itself."""
    figure = Figure(figsize=(9.2, 2.7), dpi=150)
    for position, metric in enumerate((Metric.VISIT, Metric.CONVERSION), start=1):
        axes: Axes = figure.add_subplot(1, 2, position)
        for x, arm in enumerate(arms):
            counted, interval = arm.visits, arm.visit_interval
            if metric is Metric.CONVERSION:
                counted, interval = arm.conversions, arm.conversion_interval
            low, high = 100 * interval.low, 100 * interval.high
            axes.bar(x, 100 * counted.rate, width=0.62, color=COLOURS[arm.arm], alpha=0.88)
            axes.plot([x, x], [low, high], color=INK, linewidth=1.3)
            axes.annotate(f"{100 * counted.rate:.1f} %", (x, high), xytext=(0, 4), textcoords="offset points",
                          ha="center", fontsize=8, color=INK)  # fmt: skip
        axes.set_xticks(range(len(arms)), [f"{arm.arm.value}\nn = {arm.customers:,}" for arm in arms])
        axes.margins(y=0.18)
        axes.set_ylim(bottom=0)
        figures.dress(axes, f"{metric.value} rate in per cent (simulated)", "", grid="y")
    figure.tight_layout(w_pad=2.0)
    return figures.png(figure)


def segments(sizes: Sequence[tuple[str, int]]) -> str:
    """Customers per segment; empty text when there is none."""
    if not sizes:
        return ""
    figure = Figure(figsize=(9.2, 0.6 + 0.32 * len(sizes)), dpi=150)
    axes: Axes = figure.add_subplot()
    for row, (_, size) in enumerate(reversed(sizes)):
        axes.barh(row, size, height=0.62, color=COLOURS[Arm.INFORMATIONAL], alpha=0.88)
        axes.annotate(f"{size:,}", (size, row), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(sizes)), [label.replace("_", " ") for label, _ in reversed(sizes)])
    axes.margins(x=0.08)
    figures.dress(axes, "customers per segment", "", grid="x")
    figure.tight_layout()
    return figures.png(figure)
