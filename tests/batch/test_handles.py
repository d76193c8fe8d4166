"""The shared models of a running graph, on real Serve without its HTTP side."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import serve

from batch.handles import (
    APPLICATION,
    CONTEXT_APPLICATION,
    graph_is_running,
    shared_contexts,
    shared_embedder,
    shared_language_model,
    shared_safety,
)
from models.embedding.protocol import Vectors
from models.enrichment.types import ContextRequest, EnrichedContext
from models.errors import (
    ContextEnrichmentError,
    DeadlineExceeded,
    Forbidden,
    ModelRefused,
    ModelUnavailable,
    Overloaded,
    SafetyUnavailable,
)
from models.llm.types import ChatMessage, LanguageModelReply, LanguageModelRequest, Role
from models.resilience.deadline import Deadline
from models.safety.types import Decision, Purpose, Verdict
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("local_ray")


class Embedder:
    async def embed(self, texts: list[str], deadline: Deadline | None) -> Vectors:
        if "fail" in texts:
            raise ModelUnavailable("the model is away")
        if "hang" in texts:
            await asyncio.Event().wait()
        return np.full((len(texts), 4), 0.5, dtype=np.float32)


class Safety:
    async def check(
        self, texts: list[str], purpose: Purpose, vectors: Vectors | None, deadline: Deadline | None
    ) -> list[Verdict]:
        if "fail" in texts:
            raise SafetyUnavailable("moderation is away")
        return [Verdict(decision=Decision.ALLOW, policy_version=purpose.value) for _ in texts]


class Enrichment:
    """Knows nobody but customer_1; tells on whose behalf it was asked."""

    async def enrich_many(
        self, customer_ids: list[str], request: ContextRequest, principal: str, request_id: str
    ) -> dict[str, EnrichedContext]:
        if request.agent_type == "billing":
            raise Forbidden("agent type billing does not see account_health")
        context = EnrichedContext(
            customer_id="customer_1",
            agent_type=request.agent_type,
            context_version=principal,
            enriched_at=datetime(2026, 11, 1, tzinfo=UTC),
            outcomes=(),
        )
        return {one: context for one in customer_ids if one == context.customer_id}

    async def enrich(
        self, customer_id: str, request: ContextRequest, principal: str, request_id: str
    ) -> EnrichedContext:
        return (await self.enrich_many([customer_id], request, principal, request_id))[customer_id]


class LanguageModel:
    """Leaves a file where it was stopped, so that a test sees what happened in another process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def generate(self, request: LanguageModelRequest, deadline: Deadline) -> LanguageModelReply:
        if request.question == "refuse":
            raise ModelRefused("nothing to say")
        if request.question == "die once" and not (self._folder / "died").exists():
            (self._folder / "died").touch()
            os._exit(1)
        if request.question == "hang":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                (self._folder / "cancelled").touch()
                raise
        return LanguageModelReply(text=request.question.upper(), engine="loud", model="")


class Ingress:
    def __init__(self, *others: object) -> None:
        self._others = others


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("language_model")


@pytest.fixture(scope="module")
def _graph(folder: Path) -> Iterator[None]:
    assert not graph_is_running()
    with pytest.raises(ModelUnavailable):
        shared_embedder("m")
    with pytest.raises(ContextEnrichmentError):
        shared_contexts()
    small = {"num_cpus": 0.1}
    serve.start(proxy_location="Disabled")
    deployment: Any = serve.deployment
    others = [
        deployment(Embedder, name="embedder", ray_actor_options=small).bind(),
        deployment(Safety, name="safety", ray_actor_options=small).bind(),
        deployment(
            LanguageModel,
            name="language_model",
            max_ongoing_requests=1,
            max_queued_requests=2,
            graceful_shutdown_timeout_s=0,
            ray_actor_options=small,
        ).bind(folder),
    ]
    serve.run(deployment(Ingress, ray_actor_options=small).bind(*others), name=APPLICATION, route_prefix=None)
    enrichment = deployment(Enrichment, name="enrichment", ray_actor_options=small).bind()
    serve.run(enrichment, name=CONTEXT_APPLICATION, route_prefix=None)
    yield
    shutdown: Any = serve.shutdown
    shutdown()


@pytest.mark.usefixtures("_graph")
async def test_a_campaign_shares_the_models_of_the_graph() -> None:
    assert graph_is_running()
    embedder = shared_embedder("m")
    assert (await embedder.embed(["a", "b"])).shape == (2, 4)
    assert embedder.dimension == 4
    with pytest.raises(ModelUnavailable, match="the model is away"):
        await embedder.embed(["fail"])
    with pytest.raises(DeadlineExceeded):
        await embedder.embed(["hang"], deadline=Deadline.after(0.5))
    gate = shared_safety()
    verdicts = await gate.check(["a", "b"], purpose=Purpose.CAMPAIGN)
    assert [verdict.policy_version for verdict in verdicts] == ["campaign", "campaign"]
    blocked = await gate.check(["fail", "a"], purpose=Purpose.CAMPAIGN)
    assert [(verdict.decision, verdict.available) for verdict in blocked] == [(Decision.BLOCK, False)] * 2


@pytest.mark.usefixtures("_graph")
async def test_a_campaign_shares_the_contexts_of_the_graph() -> None:
    contexts = shared_contexts()
    request = ContextRequest(deadline=Deadline.after(30), agent_type="success")
    found = await contexts.enrich_many(("customer_1", "customer_2"), request)
    assert [(one, context.agent_type, context.context_version) for one, context in found.items()] == [
        ("customer_1", "success", "campaign")
    ]
    assert await contexts.enrich("customer_1", request) == found["customer_1"]
    with pytest.raises(Forbidden, match="does not see account_health"):
        await contexts.enrich_many(["customer_1"], replace(request, agent_type="billing"))


def asked(question: str) -> LanguageModelRequest:
    return LanguageModelRequest(messages=(ChatMessage(role=Role.USER, content=question),))


@pytest.mark.usefixtures("_graph")
async def test_a_job_shares_the_language_model_of_the_graph(folder: Path) -> None:
    model = shared_language_model()
    assert (await model.generate(asked("hello"), deadline=Deadline.after(30))).text == "HELLO"
    with pytest.raises(ModelRefused, match="nothing to say"):
        await model.generate(asked("refuse"), deadline=Deadline.after(30))
    # Its only replica dies under the request; the next one answers it.
    assert (await model.generate(asked("die once"), deadline=Deadline.after(60))).text == "DIE ONCE"

    async def was_cancelled() -> bool:
        return (folder / "cancelled").exists()

    with pytest.raises(DeadlineExceeded):
        await model.generate(asked("hang"), deadline=Deadline.after(0.5))
    await until(was_cancelled)

    calls = (model.generate(asked("hang"), deadline=Deadline.after(2)) for _ in range(8))
    ends = {type(end) for end in await asyncio.gather(*calls, return_exceptions=True)}
    assert ends == {DeadlineExceeded, Overloaded}
