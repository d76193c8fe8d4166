"""Where `/metrics` gets its text from: the metrics agent of every Ray node."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import httpx
import ray

from deployments.ingress.metrics_page import CounterMemory, LocalCounterMemory, MetricsPage
from deployments.ingress.redis_counters import RedisCounterMemory
from models.resilience.redis_client import connect
from models.settings import Settings

logger = logging.getLogger("rapport.metrics")

SCRAPE_TIMEOUT_S = 3.0


class NodeAgents:
    """Reads the Prometheus text of every living node; a node that does not answer is left out."""

    def __init__(self) -> None:
        self._client = httpx.AsyncClient(timeout=SCRAPE_TIMEOUT_S, trust_env=False)

    async def __call__(self) -> Sequence[str]:
        async with asyncio.timeout(SCRAPE_TIMEOUT_S):
            nodes = await asyncio.to_thread(ray.nodes)
        addresses = [(node["NodeManagerAddress"], node["MetricsExportPort"]) for node in nodes if node["Alive"]]
        texts = await asyncio.gather(*(self._read(host, port) for host, port in addresses))
        return [text for text in texts if text is not None]

    async def _read(self, host: str, port: int) -> str | None:
        try:
            response = await self._client.get(f"http://{host}:{port}/metrics")
            response.raise_for_status()
        except httpx.HTTPError as exc:
            logger.info("a metrics agent did not answer", extra={"host": host, "error": type(exc).__name__})
            return None
        return response.text


def build_metrics_page(settings: Settings) -> MetricsPage:
    """The page over all nodes, its totals remembered in Redis where there is one."""
    memory: CounterMemory = LocalCounterMemory()
    if url := settings.redis.url.get_secret_value():
        memory = RedisCounterMemory(connect(url, timeout_s=settings.redis.timeout_s))
    return MetricsPage(NodeAgents(), memory)
