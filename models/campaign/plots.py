"""The report's pictures as PNG in a data URI, drawn without a display."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from models.campaign.analysis import ArmSummary, Conclusion, Lift, Metric
from models.campaign.types import Arm

INK, MUTED, GRID = "#1f2933", "#6b7785", "#e3e8ee"
COLOURS = {Arm.CONTROL: "#8a96a3", Arm.URGENT: "#c2512f", Arm.INFORMATIONAL: "#2f6fb0", Arm.FRIENDLY: "#2e8b63"}
_UNITS = {Metric.VISIT: "points", Metric.CONVERSION: "points", Metric.SPEND: "money units"}


def forest(lifts: Sequence[Lift]) -> str:
    """Differences from control with their corrected intervals, one panel a metric; open dots mean "not shown".

    A metric without any measured difference has no panel; the text is empty when none has one.
    """
    metrics = [m for m in Metric if any(x.metric is m and x.conclusion is not Conclusion.NOT_MEASURED for x in lifts)]
    if not metrics:
        return ""
    figure = Figure(figsize=(9.2, 0.9 + 0.42 * max(sum(x.metric is m for x in lifts) for m in metrics)), dpi=150)
    for position, metric in enumerate(metrics, start=1):
        axes: Axes = figure.add_subplot(1, len(metrics), position)
        mine = [lift for lift in lifts if lift.metric is metric]
        scale = 1.0 if metric is Metric.SPEND else 100.0
        for row, lift in enumerate(reversed(mine)):
            low, high = scale * lift.interval.low, scale * lift.interval.high
            colour = COLOURS[lift.arm]
            if lift.conclusion is Conclusion.NOT_MEASURED or math.isnan(low):
                axes.text(0.5, row, "too few events", transform=axes.get_yaxis_transform(), ha="center", va="center",
                          fontsize=7.5, color=MUTED, backgroundcolor="white")  # fmt: skip
                continue
            shown = lift.conclusion in (Conclusion.HIGHER, Conclusion.LOWER)
            axes.plot([low, high], [row, row], color=colour, linewidth=2, solid_capstyle="round")
            axes.plot(scale * lift.difference, row, "o", color=colour, markersize=6.5, markeredgewidth=1.6,
                      markerfacecolor=colour if shown else "white")  # fmt: skip
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_ylim(-0.6, len(mine) - 0.4)
        labels = [lift.arm.value for lift in reversed(mine)] if position == 1 else [""] * len(mine)
        axes.set_yticks(range(len(mine)), labels)
        primary = " (primary)" if any(lift.primary for lift in mine) else ""
        _dress(axes, f"{metric.value}{primary}", f"difference from control, {_UNITS[metric]}", grid="x")
    figure.tight_layout(w_pad=1.6)
    return _png(figure)


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
        _dress(axes, f"{metric.value} rate in per cent (simulated)", "", grid="y")
    figure.tight_layout(w_pad=2.0)
    return _png(figure)


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
    _dress(axes, "customers per segment", "", grid="x")
    figure.tight_layout()
    return _png(figure)


def _dress(axes: Axes, title: str, label: str, *, grid: Literal["x", "y"]) -> None:
    axes.set_title(title, loc="left", fontsize=9.5, color=INK, fontweight="bold")
    axes.set_xlabel(label, fontsize=8, color=MUTED)
    axes.tick_params(labelsize=8, colors=INK, length=0)
    axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("bottom",))
        spine.set_color(GRID)


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
