"""Shards of an input file become rows, one for each line that holds a prompt or should."""

from __future__ import annotations

from pathlib import Path

from batch.columns import TEXTS, Row
from batch.prompts import rows_of
from batch.stages.stage import Stage


class ReadPrompts(Stage):
    """Reads its part of the file itself, so that a large input never passes through the driver."""

    out = TEXTS

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    async def map_row(self, row: Row) -> list[Row]:
        return rows_of(self._path, row)
