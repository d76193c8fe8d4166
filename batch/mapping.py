"""How rows go through a stage on Ray Data, within the share of the cluster that a campaign may take."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from batch.columns import ERROR_CODE, Row, table
from batch.stages.stage import Stage


def prepare_ray_data(*, cpus: float) -> None:
    """Share a cluster with Serve: a bounded part of the processors, patience for capacity, rows in their order."""
    context = ray.data.DataContext.get_current()
    context.execution_options.resource_limits = ray.data.ExecutionResources.for_limits(cpu=cpus)
    context.execution_options.preserve_order = True
    context.execution_no_progress_timeout_s = -1
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # a plan and a summary for every small dataset otherwise


def mapped(
    rows: pa.Table, stage: type[Stage], *arguments: Any, batch_size: int = 4_096, num_cpus: float = 0.1
) -> pa.Table:
    """The rows through one stage; blocks until all are done.

    A stage that holds a model or a connection is built once, in one actor; any other is built for each batch, in
    whatever worker is free, which saves starting a process.
    """
    if not rows.num_rows:
        return table([], stage.out)
    dataset = _through(_dataset([rows]), stage, arguments, batch_size=batch_size, num_cpus=num_cpus)
    return pa.concat_tables(_blocks(dataset, stage.out))


def streamed(rows: Sequence[pa.Table], *stages: tuple[type[Stage], tuple[Any, ...]]) -> Iterator[pa.Table]:
    """Each table through all the stages, with their arguments, while others are on their way; in order, when done."""
    if not rows:
        return
    dataset = _dataset(rows)
    for stage, arguments in stages:
        dataset = _through(dataset, stage, arguments, batch_size=None, num_cpus=0.1)
    yield from _blocks(dataset, stages[-1][0].out)


def _dataset(tables: Sequence[pa.Table]) -> ray.data.Dataset:
    # Not from_arrow: that looks at each table in a task that waits for a whole free processor.
    dataset: ray.data.Dataset = ray.data.from_blocks(list(tables))
    return dataset


def _through(
    dataset: ray.data.Dataset,
    stage: type[Stage],
    arguments: tuple[Any, ...],
    *,
    batch_size: int | None,
    num_cpus: float,
) -> ray.data.Dataset:
    options: dict[str, Any] = {"batch_size": batch_size, "batch_format": "pyarrow", "num_cpus": num_cpus}
    if stage.holds_resources:
        one = ray.data.ActorPoolStrategy(size=1)
        return dataset.map_batches(stage, fn_constructor_args=arguments, compute=one, **options)
    return dataset.map_batches(_Once(stage, arguments).map, **options)


def _blocks(dataset: ray.data.Dataset, schema: pa.Schema) -> Iterator[pa.Table]:
    for block in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield cast(pa.Table, block).cast(schema)


class _Once:
    """Builds the stage for one batch, in the task that maps it."""

    def __init__(self, stage: type[Stage], arguments: tuple[Any, ...]) -> None:
        self._stage, self._arguments = stage, arguments

    def map(self, batch: pa.Table) -> pa.Table:
        return self._stage(*self._arguments)(batch)


def split(rows: pa.Table) -> tuple[pa.Table, list[Row]]:
    """The rows that are well, and those that carry an error."""
    well = pa.array([not code for code in rows[ERROR_CODE].to_pylist()], pa.bool_())
    return rows.filter(well), rows.filter(pc.invert(well)).to_pylist()
