"""What the pictures of all reports share: their look, the forest of differences, and PNG in a data URI."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from models.statistics import Interval

INK, MUTED, GRID = "#1f2933", "#6b7785", "#e3e8ee"
GREY, RED, BLUE, GREEN = "#8a96a3", "#c2512f", "#2f6fb0", "#2e8b63"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestRow:
    """One difference; without an interval there is only `note`. `shown` tells an effect from mere noise."""

    label: str
    difference: float = 0.0
    interval: Interval | None = None
    shown: bool = False
    colour: str = BLUE
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestPanel:
    """The differences of one metric, from top to bottom."""

    title: str
    label: str
    rows: tuple[ForestRow, ...]


def forest(panels: Sequence[ForestPanel]) -> str:
    """Differences from control with their intervals, panels side by side; open dots mean "not shown".

    Row labels stand at the left panel alone, so all panels need the same rows. The text is empty without a panel.
    """
    if not panels:
        return ""
    figure = Figure(figsize=(9.2, 0.9 + 0.42 * max(len(panel.rows) for panel in panels)), dpi=150)
    for position, panel in enumerate(panels, start=1):
        axes: Axes = figure.add_subplot(1, len(panels), position)
        for height, row in enumerate(reversed(panel.rows)):
            if row.interval is None:
                axes.text(0.5, height, row.note, transform=axes.get_yaxis_transform(), ha="center", va="center",
                          fontsize=7.5, color=MUTED, backgroundcolor="white")  # fmt: skip
                continue
            axes.plot([row.interval.low, row.interval.high], [height, height], color=row.colour, linewidth=2,
                      solid_capstyle="round")  # fmt: skip
            axes.plot(row.difference, height, "o", color=row.colour, markersize=6.5, markeredgewidth=1.6,
                      markerfacecolor=row.colour if row.shown else "white")  # fmt: skip
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_ylim(-0.6, len(panel.rows) - 0.4)
        labels = [row.label for row in reversed(panel.rows)] if position == 1 else [""] * len(panel.rows)
        axes.set_yticks(range(len(panel.rows)), labels)
        dress(axes, panel.title, panel.label, grid="x")
    figure.tight_layout(w_pad=1.6)
    return png(figure)


def dress(axes: Axes, title: str, label: str, *, grid: Literal["x", "y"]) -> None:
    """Give the axes a title, a label and the look of the house."""
    axes.set_title(title, loc="left", fontsize=9.5, color=INK, fontweight="bold")
    axes.set_xlabel(label, fontsize=8, color=MUTED)
    axes.tick_params(labelsize=8, colors=INK, length=0)
    axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("bottom",))
        spine.set_color(GRID)


def png(figure: Figure) -> str:
    """The figure as a data URI, drawn without a display."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
