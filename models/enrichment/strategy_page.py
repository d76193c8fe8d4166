"""The report of a context experiment as a self-contained page, as JSON and as plain text."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from models import figures
from models.enrichment.measures import Measure
from models.enrichment.strategy_report import UNITS, Conclusion, Contrast, ReportState, StrategyReport
from models.plain import plain
from models.statistics import Interval

_TEMPLATES = Path(__file__).parent / "templates"
_SHOWN = (Conclusion.BETTER, Conclusion.WORSE)

REPORT, PAGE = "report.json", "report.html"


def write_report(report: StrategyReport, folder: Path) -> None:
    """Write `report.json`, then `report.html`, so that a failing plot never costs the numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(as_json(report), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / REPORT).write_text(text + "\n", encoding="utf-8")
    (folder / PAGE).write_text(render(report), encoding="utf-8")


def as_json(report: StrategyReport) -> dict[str, Any]:
    """The report as JSON values; what could not be estimated is null."""
    return {**plain(report)}


def as_text(report: StrategyReport) -> str:
    """What a reader in a hurry must know, line by line."""
    lines = [f"{report.experiment}{'' if report.active else ' (not active)'}: {report.headline}"]
    for each in report.strategies:
        role = ", the control" if each.control else ""
        lines.append(
            f"  {each.strategy}{role}: {each.assigned:,} customers assigned, {each.customers:,} of them with "
            f"{each.conversations:,} conversations"
        )
        lines += [f"    {m.value}: {value.mean:.3f} {_between(value.interval)}" for m, value in each.measures.items()]
    lines += [f"  {contrast.sentence}" for contrast in report.contrasts]
    return "\n".join(lines)


def render(report: StrategyReport) -> str:
    """The page; every value in it is escaped."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("strategies.html.j2").render(
        report=report, measures=list(Measure), units=UNITS, between=_between, isnan=math.isnan, forest=forest(report)
    )


def forest(report: StrategyReport) -> str:
    """The differences from the control as a picture; empty while nothing can be compared."""
    told = [m for m in Measure if any(c.measure is m and not math.isnan(c.difference) for c in report.contrasts)]
    return figures.forest(
        [
            figures.ForestPanel(
                title=f"{measure.value}{' (primary)' if measure is report.primary else ''}",
                label=f"difference from control, {UNITS[measure][1]}",
                rows=tuple(_row(contrast) for contrast in report.contrasts if contrast.measure is measure),
            )
            for measure in sorted(told, key=lambda measure: measure is not report.primary)
        ]
        if report.state is ReportState.MEASURED
        else []
    )


def _row(contrast: Contrast) -> figures.ForestRow:
    scale = UNITS[contrast.measure][0]
    if math.isnan(contrast.difference):
        return figures.ForestRow(label=contrast.strategy, note=contrast.conclusion.value)
    return figures.ForestRow(
        label=contrast.strategy,
        difference=scale * contrast.difference,
        interval=Interval(scale * contrast.interval.low, scale * contrast.interval.high),
        shown=contrast.conclusion in _SHOWN,
    )


def _between(interval: Interval) -> str:
    return "" if math.isnan(interval.low) else f"({interval.low:.3f} to {interval.high:.3f})"
