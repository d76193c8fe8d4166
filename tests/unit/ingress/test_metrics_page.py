"""One page for the whole cluster: our names, sums over replicas and nodes, totals that never fall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from prometheus_client.parser import text_string_to_metric_families

from deployments.ingress.metrics_page import CounterMemory, Key, LocalCounterMemory, MetricsPage
from deployments.metrics_table import EXACT_SUM, METRICS, Kind, Metric
from models.errors import CacheUnavailable

TABLE = {
    metric.name: metric
    for metric in (
        Metric(name="seen_total", kind=Kind.COUNTER, help="Seen.", labels=("channel",)),
        Metric(name="by_category", kind=Kind.COUNTER, help="By category.", labels=("category",)),
        Metric(name="dropped_total", kind=Kind.COUNTER, help="Dropped."),
        Metric(name="wait_seconds", kind=Kind.HISTOGRAM, help="Wait.", labels=("route",), buckets=(0.1, 1.0)),
        Metric(name="open_sessions", kind=Kind.GAUGE, help="Open."),
    )
}


def _tags(worker: str, **labels: str) -> str:
    """The tags that Ray 2.60 puts around ours, in its order."""
    every = {
        "Component": "core_worker",
        "NodeAddress": "192.0.2.2",
        "SessionName": "session_2026",
        "Version": "2.60.0",
        "WorkerId": worker,
        "application": "rapport",
        "deployment": "conversation",
        "otel_scope_schema_url": "",
        "replica": "k6lbeokw",
    } | labels
    return ",".join(f'{name}="{value}"' for name, value in sorted(every.items(), key=lambda item: item[0]))


def _counter(worker: str, value: float, name: str = "seen_total", **labels: str) -> str:
    return f"# TYPE ray_{name} counter\nray_{name}{{{_tags(worker, **labels)}}} {value}\n"


def _histogram(worker: str, buckets: Sequence[float], exact_sum: float, **labels: str) -> str:
    lines = [
        f"ray_wait_seconds_bucket{{{_tags(worker, le=le, **labels)}}} {count}"
        for le, count in zip(("0.1", "1.0", "+Inf"), buckets, strict=True)
    ]
    lines += [
        f"ray_wait_seconds_count{{{_tags(worker, **labels)}}} {buckets[-1]}",
        f"ray_wait_seconds_sum{{{_tags(worker, **labels)}}} 999.0",
        f"ray_wait_seconds{EXACT_SUM}{{{_tags(worker, **labels)}}} {exact_sum}",
    ]
    return "\n".join(lines) + "\n"


class Cluster:
    """Nodes' export texts, changed by a test as a cluster would change them."""

    def __init__(self, memory: CounterMemory | None = None) -> None:
        self.nodes: list[str] = []
        self.unreachable = False
        self.page = MetricsPage(self._scrape, memory or LocalCounterMemory(), table=TABLE, max_age_s=0.0)

    async def _scrape(self) -> list[str]:
        if self.unreachable:
            raise ConnectionRefusedError
        return self.nodes

    async def samples(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        text = await self.page.render()
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


async def test_names_are_ours_and_sums_run_over_replicas_and_nodes() -> None:
    cluster = Cluster()
    cluster.nodes = [
        _counter("w1", 6, channel="chat") + _counter("w2", 4, channel="chat") + _counter("w2", 1, channel="mail"),
        _counter("w3", 10, channel="chat") + "ray_serve_num_http_requests_total 7\npython_gc_total 3\n",
    ]
    assert await cluster.samples() == {
        ("seen_total", (("channel", "chat"),)): 20,
        ("seen_total", (("channel", "mail"),)): 1,
        ("dropped_total", ()): 0,
    }


async def test_a_counter_that_ray_gave_a_suffix_gets_its_name_back() -> None:
    cluster = Cluster()
    cluster.nodes = [_counter("w1", 3, "by_category_total", category="informational")]
    # Read as text: the parser itself adds a suffix to counters.
    assert 'by_category{category="informational"} 3\n' in await cluster.page.render()


async def test_histograms_add_up_with_their_exact_sum() -> None:
    cluster = Cluster()
    cluster.nodes = [
        _histogram("w1", (1, 3, 4), 5.25, route="/a") + _histogram("w1", (1, 1, 1), 0.05, route="/b"),
        _histogram("w2", (10, 10, 10), 0.5, route="/a"),
    ]
    samples = await cluster.samples()
    on_a = {
        name: value
        for (name, labels), value in samples.items()
        if ("route", "/a") in labels and "le" not in dict(labels)
    }
    assert on_a == {"wait_seconds_count": 14, "wait_seconds_sum": 5.75}
    buckets = [samples["wait_seconds_bucket", (("le", le), ("route", "/a"))] for le in ("0.1", "1.0", "+Inf")]
    assert buckets == [11, 13, 14]
    lines = [line for line in (await cluster.page.render()).splitlines() if line.startswith("wait_seconds_bucket")]
    assert [line.split('le="')[1].split('"')[0] for line in lines[:3]] == ["0.1", "1.0", "+Inf"]


async def test_totals_do_not_fall_when_a_replica_dies_and_another_comes() -> None:
    cluster = Cluster()
    chat = ("seen_total", (("channel", "chat"),))
    totals = []
    for nodes in (
        [_counter("w1", 6, channel="chat") + _counter("w2", 4, channel="chat")],
        [_counter("w2", 5, channel="chat")],
        [_counter("w2", 5, channel="chat") + _counter("w3", 2, channel="chat")],
        [],
    ):
        cluster.nodes = nodes
        totals.append((await cluster.samples())[chat])
    assert totals == [10, 11, 13, 13]


async def test_histogram_totals_stand_when_a_replica_dies() -> None:
    cluster = Cluster()
    cluster.nodes = [_histogram("w1", (1, 2, 3), 4.5, route="/a")]
    before = await cluster.samples()
    cluster.nodes = []
    assert await cluster.samples() == before


async def test_a_gauge_counts_the_living_only() -> None:
    cluster = Cluster()
    cluster.nodes = [_counter("w1", 3, "open_sessions") + _counter("w2", 2, "open_sessions")]
    assert (await cluster.samples())["open_sessions", ()] == 5
    cluster.nodes = [_counter("w2", 2, "open_sessions")]
    assert (await cluster.samples())["open_sessions", ()] == 2


async def test_a_label_value_survives_as_it_was() -> None:
    cluster = Cluster()
    cluster.nodes = [_counter("w1", 1, channel=r"a\"b\\c\n, d}=")]
    (labels,) = [labels for name, labels in await cluster.samples() if name == "seen_total"]
    assert labels == (("channel", 'a"b\\c\n, d}='),)


async def test_totals_stand_without_the_nodes_and_without_the_memory() -> None:
    class Fragile(LocalCounterMemory):
        down = False

        async def raise_to(self, seen: Mapping[Key, float]) -> Mapping[Key, float]:
            if self.down:
                raise CacheUnavailable("gone")
            return await super().raise_to(seen)

    memory = Fragile()
    cluster = Cluster(memory)
    chat = ("seen_total", (("channel", "chat"),))
    cluster.nodes = [_counter("w1", 6, channel="chat"), _counter("w2", 4, channel="chat")]
    assert (await cluster.samples())[chat] == 10
    memory.down = True
    cluster.nodes = [_counter("w2", 7, channel="chat")]
    assert (await cluster.samples())[chat] == 13
    cluster.unreachable = True
    assert (await cluster.samples())[chat] == 13


async def test_one_collection_serves_callers_at_the_same_moment() -> None:
    scrapes = 0

    async def scrape() -> list[str]:
        nonlocal scrapes
        scrapes += 1
        return []

    now = 0.0
    page = MetricsPage(scrape, LocalCounterMemory(), table=TABLE, clock=lambda: now, max_age_s=1.0)
    await page.render()
    await page.render()
    assert scrapes == 1
    now = 1.0
    await page.render()
    assert scrapes == 2


@pytest.mark.parametrize(
    "name",
    [
        "classification_requests_total",
        "classification_latency_seconds",
        "classification_confidence",
        "classification_by_category",
        "llm_errors_total",
    ],
)
async def test_the_documented_metrics_are_on_an_empty_page(name: str) -> None:
    async def nothing() -> list[str]:
        return []

    page = await MetricsPage(nothing, LocalCounterMemory()).render()
    assert f"# TYPE {name} {METRICS[name].kind.value}\n" in page
    families = {family.name for family in text_string_to_metric_families(page)}
    assert name.removesuffix("_total") in families or name in families


def test_the_table_is_sound() -> None:
    exported: list[str] = []
    for metric in METRICS.values():
        assert (metric.kind is Kind.HISTOGRAM) == bool(metric.buckets)
        assert list(metric.buckets) == sorted(set(metric.buckets))
        assert not {"le", "WorkerId", "replica", "deployment", "application"} & set(metric.labels)
        exported.append(metric.name)
        if metric.kind is Kind.HISTOGRAM:
            exported += [metric.name + suffix for suffix in ("_bucket", "_count", "_sum", EXACT_SUM)]
    assert len(exported) == len(set(exported))
