"""The shared models of a running graph, on real Serve without its HTTP side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from ray import serve

from batch.handles import APPLICATION, graph_is_running, shared_embedder, shared_safety
from models.embedding.protocol import Vectors
from models.errors import DeadlineExceeded, ModelUnavailable, SafetyUnavailable
from models.resilience.deadline import Deadline
from models.safety.types import Decision, Purpose, Verdict

pytestmark = pytest.mark.usefixtures("local_ray")


class Embedder:
    async def embed(self, texts: list[str], deadline: Deadline | None) -> Vectors:
        if "fail" in texts:
            raise ModelUnavailable("the model is away")
        if "hang" in texts:
            import asyncio

            await asyncio.sleep(60)
        return np.full((len(texts), 4), 0.5, dtype=np.float32)


class Safety:
    async def check(
        self, texts: list[str], purpose: Purpose, vectors: Vectors | None, deadline: Deadline | None
    ) -> list[Verdict]:
        if "fail" in texts:
            raise SafetyUnavailable("moderation is away")
        return [Verdict(decision=Decision.ALLOW, policy_version=purpose.value) for _ in texts]


class Ingress:
    def __init__(self, *others: object) -> None:
        self._others = others


@pytest.fixture(scope="module")
def _graph() -> Iterator[None]:
    assert not graph_is_running()
    with pytest.raises(ModelUnavailable):
        shared_embedder("m")
    small = {"num_cpus": 0.1}
    serve.start(proxy_location="Disabled")
    deployment: Any = serve.deployment
    others = [
        deployment(Embedder, name="embedder", ray_actor_options=small).bind(),
        deployment(Safety, name="safety", ray_actor_options=small).bind(),
    ]
    serve.run(deployment(Ingress, ray_actor_options=small).bind(*others), name=APPLICATION, route_prefix=None)
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
