"""The calibration plot of a model card, drawn without a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from models.figures import BLUE, MUTED, dress
from models.insights.evaluation import Bin


def calibration(bins: Sequence[Bin], path: Path) -> None:
    """What was predicted against what happened, in per cent, with intervals; on the line is right."""
    figure = Figure(figsize=(5.2, 4.6), dpi=120)
    axes: Axes = figure.add_subplot()
    top = 105 * max(max(one.interval.high, one.predicted) for one in bins)
    axes.plot([0, top], [0, top], color=MUTED, linewidth=0.9, linestyle="--")
    for one in bins:
        x = 100 * one.predicted
        axes.plot([x, x], [100 * one.interval.low, 100 * one.interval.high], color=BLUE, linewidth=1.6)
        axes.plot(x, 100 * one.observed, "o", color=BLUE, markersize=5)
    dress(axes, "Calibration on the test part", "predicted, % who leave within the horizon", grid="y")
    axes.set_ylabel("observed, %, with 95 % interval", fontsize=8, color=MUTED)
    figure.tight_layout()
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", metadata={"Software": None})
