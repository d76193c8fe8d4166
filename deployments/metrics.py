"""The metrics contract onto Ray's metrics, which every node's agent exports as `ray_<name>`."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge, Histogram

from deployments.metrics_table import EXACT_SUM, METRICS, Kind, Metric

logger = logging.getLogger("rapport.metrics")


class RayMetrics:
    """`models.telemetry.Metrics` for one process of the cluster.

    A name or label set that the table does not declare is dropped and reported once: a metric must never break the
    work that it measures.
    """

    def __init__(self, table: Mapping[str, Metric] = METRICS) -> None:
        self._table = table
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        self._reported: set[str] = set()
        for metric in table.values():
            match metric.kind:
                case Kind.COUNTER:
                    self._counters[metric.name] = Counter(metric.name, metric.help, metric.labels)
                case Kind.GAUGE:
                    self._gauges[metric.name] = Gauge(metric.name, metric.help, metric.labels)
                case Kind.HISTOGRAM:
                    self._histograms[metric.name] = Histogram(
                        metric.name, metric.help, list(metric.buckets), metric.labels
                    )
                    self._counters[metric.name] = Counter(metric.name + EXACT_SUM, metric.help, metric.labels)

    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        """Add to a counter; the value must not be negative."""
        if value > 0 and self._fits(name, labels, Kind.COUNTER):
            self._counters[name].inc(value, tags=labels)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add one observation to a histogram, or set a gauge."""
        if not self._fits(name, labels, Kind.HISTOGRAM, Kind.GAUGE):
            return
        if name in self._gauges:
            self._gauges[name].set(value, tags=labels)
            return
        self._histograms[name].observe(value, tags=labels)
        if value > 0:
            self._counters[name].inc(value, tags=labels)

    def _fits(self, name: str, labels: Mapping[str, str], *kinds: Kind) -> bool:
        metric = self._table.get(name)
        if metric is not None and metric.kind in kinds and set(labels) == set(metric.labels):
            return True
        if name not in self._reported:
            self._reported.add(name)
            logger.error("metric is not declared so", extra={"metric": name, "labels": sorted(labels)})
        return False
