"""Reports experiments with context strategies.

    python -m providers.context_report [--experiment NAME] [--output FOLDER]

Without a name every experiment of `config/context_strategies.yaml` is reported. Prints the conclusions, and writes
`report.json` and `report.html` to FOLDER/NAME.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from models.enrichment.selection import AgentViews
from models.enrichment.strategies import Experiment, load_experiments
from models.enrichment.strategy_page import PAGE, as_text, write_report
from models.enrichment.strategy_report import StrategyReport, analyse
from models.errors import RapportError
from models.settings import config_file, load_settings
from providers.database import Database
from providers.systems.strategies import SqlStrategyResults


async def report_on(database: Database, experiment: Experiment) -> StrategyReport:
    """The experiment as it stands. Raises `DatabaseUnavailable`."""
    results = SqlStrategyResults(database)
    moved = 0
    async for customer_id, strategy in results.assignments(experiment.name):
        moved += experiment.strategy_of(customer_id) != strategy
    return analyse(experiment, await results.tallies(experiment.name), moved=moved)


async def _write_all(database: Database, experiments: Sequence[Experiment], output: Path) -> None:
    try:
        for experiment in experiments:
            report = await report_on(database, experiment)
            folder = output / experiment.name
            write_report(report, folder)
            sys.stdout.write(f"{as_text(report)}\n  {folder / PAGE}\n")
    finally:
        await database.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 2 with a message that says what to mend."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", help="its name; by default all are reported")
    parser.add_argument("--output", type=Path, help="by default reports/context in the state folder")
    chosen = parser.parse_args(arguments)
    try:
        settings = load_settings()
        found = load_experiments(AgentViews.load(), config_file(settings.context.strategies))
        experiments = found.experiments if chosen.experiment is None else [found.named(chosen.experiment)]
        output = chosen.output or settings.state_dir / "reports" / "context"
        asyncio.run(_write_all(Database(settings.database_url), experiments, output))
    except RapportError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
