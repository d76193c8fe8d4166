"""The chain of language models as a Serve deployment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.handles import EmbedderHandle, VLLMHandle
from deployments.metrics import RayMetrics
from deployments.processes import configure_process
from models.llm.engines import VLLM
from models.llm.factory import build_chain
from models.llm.protocol import Engine
from models.llm.types import Delta, EngineState, LanguageModelReply, LanguageModelRequest
from models.resilience.deadline import Deadline
from models.safety.pii import PatternPIIDetector
from models.settings import Settings
from models.telemetry import request_id


class LanguageModelDeployment:
    """Holds the chain; `vllm` is the deployment of that engine, when the chain names it."""

    def __init__(
        self, settings: Settings, embedder: DeploymentHandle[Any], vllm: DeploymentHandle[Any] | None = None
    ) -> None:
        configure_process(settings)
        provided: dict[str, Engine] = {}
        if vllm is not None:
            from deployments.vllm import VLLMEngine

            chosen = settings.language_model
            provided[VLLM] = VLLMEngine(VLLMHandle(vllm), chosen.vllm, temperature=chosen.temperature)
        self._chain = build_chain(
            settings,
            EmbedderHandle(embedder, model_id=settings.embedding.model),
            pii=PatternPIIDetector(),
            provided=provided,
            metrics=RayMetrics(),
        )

    async def generate(self, request: LanguageModelRequest, deadline: Deadline) -> LanguageModelReply:
        _follow(request)
        return await self._chain.generate(request, deadline=deadline)

    async def stream(self, request: LanguageModelRequest, deadline: Deadline) -> AsyncIterator[Delta]:
        _follow(request)
        async with aclosing(self._chain.stream(request, deadline=deadline)) as pieces:
            async for piece in pieces:
                yield piece

    async def states(self) -> tuple[EngineState, ...]:
        """How this replica finds each engine, asked now."""
        return await self._chain.inspect()

    async def spent(self, account: str) -> float:
        """USD spent under this account; without Redis by this replica alone. Raises `CacheUnavailable`."""
        return await self._chain.spent(account)

    async def probe(self) -> None:
        await self._chain.check_health()

    async def __del__(self) -> None:
        await self._chain.close()


def _follow(request: LanguageModelRequest) -> None:
    """Log lines of this call carry the id of the request that it belongs to."""
    request_id.set(request.metadata.get("request_id", ""))
