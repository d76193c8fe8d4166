"""`/metrics` of the whole cluster: what every node's agent exports, under our own names, summed over all processes.

Ray exports a metric of ours as `ray_<name>` with tags for the process it comes from. Totals are remembered per process,
so that they stand when a replica dies and its counters vanish from the export.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from deployments.metrics_table import EXACT_SUM, METRICS, Kind, Metric
from models.errors import RapportError
from models.telemetry import Transition

logger = logging.getLogger("rapport.metrics")

#: A process and one of its series, such as `llm_errors_total{code="MODEL_UNAVAILABLE"}`.
Key = tuple[str, str]
#: The text of every node's metrics agent that answered.
Scrape = Callable[[], Awaitable[Sequence[str]]]

_SAMPLE = re.compile(r"ray_(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_LE = re.compile(r'le="([^"]*)"')
#: Tells processes apart; unlike a replica's id it is there for every process, and no process ever gets another's.
_PROCESS = "WorkerId"


class CounterMemory(Protocol):
    """Remembers the highest total of every series and process."""

    async def raise_to(self, seen: Mapping[Key, float]) -> Mapping[Key, float]:
        """Remember at least these totals and return everything remembered. Raises `CacheUnavailable`.

        A process unseen for a day may be folded into one nameless process; the sum over all of them never falls.
        """
        ...


class LocalCounterMemory:
    """Remembers in this process only; for a single replica without Redis."""

    def __init__(self, *, clock: Callable[[], float] = time.time, fold_after_s: float = 86_400.0) -> None:
        self._clock = clock
        self._fold_after_s = fold_after_s
        self._totals: dict[Key, float] = {}
        self._seen_at: dict[str, float] = {}

    async def raise_to(self, seen: Mapping[Key, float]) -> Mapping[Key, float]:
        now = self._clock()
        for key, value in seen.items():
            self._seen_at[key[0]] = now
            self._totals[key] = max(value, self._totals.get(key, 0.0))
        gone = {process for process, at in self._seen_at.items() if at < now - self._fold_after_s}
        for process, series in [key for key in self._totals if key[0] in gone]:
            folded = ("", series)
            self._totals[folded] = self._totals.get(folded, 0.0) + self._totals.pop((process, series))
        for process in gone:
            del self._seen_at[process]
        return dict(self._totals)


@dataclass(frozen=True, slots=True)
class _Sample:
    metric: Metric
    process: str
    series: str
    value: float


class MetricsPage:
    """Renders the page; at most one collection runs at a time, and its result serves for `max_age_s`.

    Without the memory or without the nodes the page still stands, on what this replica saw last.
    """

    def __init__(
        self,
        scrape: Scrape,
        memory: CounterMemory,
        *,
        table: Mapping[str, Metric] = METRICS,
        clock: Callable[[], float] = time.monotonic,
        max_age_s: float = 1.0,
    ) -> None:
        self._scrape = scrape
        self._memory = memory
        self._table = table
        self._clock = clock
        self._max_age_s = max_age_s
        self._known: Mapping[Key, float] = {}
        self._page = ""
        self._rendered_at = float("-inf")
        self._turn = asyncio.Lock()
        self._nodes_state = Transition("metrics agents", logger)
        self._memory_state = Transition("metrics memory", logger)

    async def render(self) -> str:
        """The page in Prometheus text format 0.0.4."""
        async with self._turn:
            if self._clock() - self._rendered_at >= self._max_age_s:
                self._page = await self._collect()
                self._rendered_at = self._clock()
            return self._page

    async def _collect(self) -> str:
        try:
            texts = await self._scrape()
            self._nodes_state.up()
        except (RapportError, OSError, TimeoutError) as exc:
            self._nodes_state.down(exc)
            texts = ()
        samples = list(_samples(texts, self._table))
        gauges: dict[str, float] = defaultdict(float)
        totals: dict[Key, float] = {}
        for sample in samples:
            if sample.metric.kind is Kind.GAUGE:
                gauges[sample.series] += sample.value
            else:
                key = (sample.process, sample.series)
                totals[key] = max(sample.value, totals.get(key, 0.0))
        summed: dict[str, float] = defaultdict(float, gauges)
        for (_, series), value in (await self._remember(totals)).items():
            summed[series] += value
        return _render(summed, self._table)

    async def _remember(self, totals: Mapping[Key, float]) -> Mapping[Key, float]:
        try:
            self._known = await self._memory.raise_to(totals)
            self._memory_state.up()
        except RapportError as exc:
            self._memory_state.down(exc)
            self._known = {key: max(totals.get(key, 0.0), self._known.get(key, 0.0)) for key in {*totals, *self._known}}
        return self._known


def _samples(texts: Iterable[str], table: Mapping[str, Metric]) -> Iterator[_Sample]:
    names = _exported_names(table)
    for text in texts:
        for line in text.splitlines():
            match = _SAMPLE.match(line)
            if match is None or (known := names.get(match["name"])) is None:
                continue
            metric, sample_name = known
            labels = dict(_LABEL.findall(match["labels"] or ""))
            kept = [name for name in (*metric.labels, "le") if name in labels]
            # Label values stay escaped: they are written as they were read.
            shown = ",".join(f'{name}="{labels[name]}"' for name in kept)
            series = f"{sample_name}{{{shown}}}" if shown else sample_name
            yield _Sample(metric, labels.get(_PROCESS) or "unknown", series, float(match["value"]))


def _exported_names(table: Mapping[str, Metric]) -> dict[str, tuple[Metric, str]]:
    """Name in the export without `ray_` -> the metric and our sample name; Ray's estimated sums are left out."""
    names: dict[str, tuple[Metric, str]] = {}
    for metric in table.values():
        if metric.kind is Kind.HISTOGRAM:
            for suffix in ("_bucket", "_count"):
                names[metric.name + suffix] = (metric, metric.name + suffix)
            names[metric.name + EXACT_SUM] = (metric, metric.name + "_sum")
        else:
            names[metric.name] = (metric, metric.name)
            if metric.kind is Kind.COUNTER:
                names[metric.name + "_total"] = (metric, metric.name)
    return names


def _render(summed: Mapping[str, float], table: Mapping[str, Metric]) -> str:
    by_sample: dict[str, list[str]] = defaultdict(list)
    for series in summed:
        by_sample[series.partition("{")[0]].append(series)
    lines: list[str] = []
    for metric in table.values():
        lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind.value}"]
        if metric.kind is Kind.HISTOGRAM:
            lines += _histogram(metric, by_sample, summed)
            continue
        written = [f"{series} {_number(summed[series])}" for series in sorted(by_sample[metric.name])]
        # Without labels the one series is known before its first event: zero, not absent.
        lines += written or ([f"{metric.name} 0"] if not metric.labels and metric.kind is Kind.COUNTER else [])
    return "\n".join(lines) + "\n"


def _histogram(metric: Metric, by_sample: Mapping[str, list[str]], summed: Mapping[str, float]) -> Iterator[str]:
    counted = by_sample.get(metric.name + "_count", [])
    buckets = sorted(by_sample.get(metric.name + "_bucket", []), key=_bound)
    for count in sorted(counted):
        labels = count.removeprefix(metric.name + "_count")
        for bucket in buckets:
            if _without_bound(bucket.removeprefix(metric.name + "_bucket")) == labels:
                yield f"{bucket} {_number(summed[bucket])}"
        exact_sum = f"{metric.name}_sum{labels}"
        yield f"{exact_sum} {_number(summed.get(exact_sum, 0.0))}"
        yield f"{count} {_number(summed[count])}"


def _bound(bucket: str) -> float:
    found = _LE.search(bucket)
    return float(found[1]) if found else float("inf")


def _without_bound(labels: str) -> str:
    rest = _LE.sub("", labels).replace(",}", "}")
    return "" if rest == "{}" else rest


def _number(value: float) -> str:
    return repr(int(value)) if value.is_integer() else repr(value)
