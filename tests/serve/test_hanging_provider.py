"""One context provider hangs behind a real HTTP server: the read ends at its deadline with what the others know."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import httpx
import pytest
import uvicorn

from deployments.ingress.http.application import build_context_api
from deployments.ingress.services import ContextServices
from deployments.launch import free_port
from deployments.limits import CredentialLimiter
from models.enrichment.cache import LRUCache, TieredCache
from models.enrichment.orchestrator import ContextOrchestrator
from models.enrichment.selection import AgentViews
from models.resilience.bucket import LeasedTokenBucket, MemoryTokenStore
from models.settings import Settings
from tests.fakes.enrichment import all_providers
from tests.fakes.ingress import FakeHistory


@pytest.fixture
def url() -> Iterator[str]:
    port = free_port()

    async def run() -> None:
        providers = all_providers(timeout_s=30.0)
        providers["support_history"].gate = asyncio.Event()  # never set
        orchestrator = ContextOrchestrator(
            providers.values(), views=AgentViews.load(), cache=TieredCache(LRUCache(entries=10))
        )
        limiter = CredentialLimiter(LeasedTokenBucket(MemoryTokenStore()))
        services = ContextServices(reader=orchestrator, history=FakeHistory(), rate_limiter=limiter)
        app = build_context_api(services, Settings())
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None))
        servers.append(server)
        await server.serve()
        await orchestrator.close()

    servers: list[uvicorn.Server] = []
    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    while not (servers and servers[0].started):
        assert thread.is_alive()
    yield f"http://127.0.0.1:{port}"
    servers[0].should_exit = True
    thread.join(timeout=30)


def test_a_hanging_provider_makes_a_partial_context_not_an_error(url: str) -> None:
    answer = httpx.get(f"{url}/customer_123/context", params={"agent_type": "support", "deadline_ms": 200}, timeout=20)
    assert answer.status_code == 200
    body = answer.json()
    assert body["complete"] is False
    states = {name: one["state"] for name, one in body["providers"].items()}
    assert states.pop("support_history") == "timeout"
    assert set(states.values()) == {"fresh"}
    assert body["support_history"] is None
    assert body["customer_intelligence"]["company_name"] == "Acme Corp"


def test_a_required_provider_that_hangs_is_a_gateway_timeout(url: str) -> None:
    answer = httpx.get(
        f"{url}/customer_123/context",
        params={"agent_type": "support", "deadline_ms": 200, "required": "support_history"},
        timeout=20,
    )
    assert answer.status_code == 504
    assert answer.json()["code"] == "DEADLINE_EXCEEDED"
