"""The shared models of the running graph, as objects of the same contracts: the only `.remote()` of the batch half."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from ray import serve
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from models.embedding.protocol import Vectors
from models.enrichment.types import ContextRequest, EnrichedContext
from models.errors import (
    ContextEnrichmentError,
    DeadlineExceeded,
    ModelUnavailable,
    Overloaded,
    RapportError,
    SafetyUnavailable,
)
from models.llm.types import LanguageModelReply, LanguageModelRequest
from models.resilience.deadline import Deadline
from models.safety.types import Decision, Purpose, Verdict

Handle = DeploymentHandle[Any]

APPLICATION = "rapport"
#: Customer context is an application of its own.
CONTEXT_APPLICATION = "context"
_TIMEOUT_S = 60.0
#: What contexts take on their way back, after the replica has ended them at their deadline.
_ANSWER_MARGIN_S = 5.0
#: On whose behalf a campaign reads.
_PRINCIPAL = "campaign"


def graph_is_running() -> bool:
    """Whether this cluster serves the application whose models a campaign can share."""
    try:
        application = serve.status().applications.get(APPLICATION)
    except (RayServeException, RuntimeError, ValueError):
        return False
    return application is not None and application.status == "RUNNING"


def shared_embedder(model_id: str) -> SharedEmbedder:
    """The graph's embedder. Raises `ModelUnavailable` when the graph is not there."""
    return SharedEmbedder(_handle("embedder", ModelUnavailable), model_id=model_id)


def shared_safety() -> SharedSafety:
    """The graph's safety gate. Raises `SafetyUnavailable` when the graph is not there."""
    return SharedSafety(_handle("safety", SafetyUnavailable))


def shared_language_model() -> SharedLanguageModel:
    """The graph's language model, with its fallbacks. Raises `ModelUnavailable` when the graph is not there."""
    return SharedLanguageModel(_handle("language_model", ModelUnavailable))


def shared_contexts() -> SharedContexts:
    """The graph's customer contexts. Raises `ContextEnrichmentError` when the graph is not there."""
    return SharedContexts(_handle("enrichment", ContextEnrichmentError, CONTEXT_APPLICATION))


class SharedEmbedder:
    """`models.embedding.protocol.Embedder`; the dimension is known after the first call."""

    def __init__(self, handle: Handle, *, model_id: str) -> None:
        self.model_id = model_id
        self.dimension = 0
        self._handle = handle

    async def embed(self, texts: Sequence[str], *, deadline: Deadline | None = None) -> Vectors:
        vectors: Vectors = await _call(self._handle, "embed", ModelUnavailable, deadline, list(texts), deadline)
        self.dimension = vectors.shape[1]
        return vectors


class SharedSafety:
    """`models.safety.protocol.SafetyGate`; an unreachable gate blocks."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    async def check(
        self,
        texts: Sequence[str],
        *,
        purpose: Purpose,
        vectors: Vectors | None = None,
        deadline: Deadline | None = None,
    ) -> list[Verdict]:
        try:
            verdicts: list[Verdict] = await _call(
                self._handle, "check", SafetyUnavailable, deadline, list(texts), purpose, vectors, deadline
            )
        except RapportError:
            blocked = Verdict(decision=Decision.BLOCK, reasons=("safety_unavailable",), available=False)
            return [blocked for _ in texts]
        return verdicts


class SharedContexts:
    """`models.enrichment.protocol.ContextSource`."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    async def enrich(self, customer_id: str, request: ContextRequest) -> EnrichedContext:
        context: EnrichedContext = await self._read("enrich", customer_id, request)
        return context

    async def enrich_many(self, customer_ids: Sequence[str], request: ContextRequest) -> dict[str, EnrichedContext]:
        contexts: dict[str, EnrichedContext] = await self._read("enrich_many", list(customer_ids), request)
        return contexts

    async def _read(self, method: str, subject: str | list[str], request: ContextRequest) -> Any:
        bound = Deadline.after(request.deadline.remaining_s() + _ANSWER_MARGIN_S)
        return await _call(self._handle, method, ContextEnrichmentError, bound, subject, request, _PRINCIPAL, "")


class SharedLanguageModel:
    """`models.llm.protocol.LanguageModel.generate`, the chain's engines and `spent`; its full queue is `Overloaded`."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    async def generate(self, request: LanguageModelRequest, *, deadline: Deadline) -> LanguageModelReply:
        reply: LanguageModelReply = await _call(self._handle, "generate", ModelUnavailable, deadline, request, deadline)
        return reply

    async def engines(self) -> list[str]:
        """The configured engines by name, the preferred one first."""
        states = await _call(self._handle, "states", ModelUnavailable, None)
        return [state.engine for state in states]

    async def spent(self, account: str) -> float:
        """USD spent under this account by all jobs; without Redis, by those that one replica served."""
        spent: float = await _call(self._handle, "spent", ModelUnavailable, None, account)
        return spent


def _handle(deployment: str, unavailable: type[RapportError], application: str = APPLICATION) -> Handle:
    try:
        return serve.get_deployment_handle(deployment, app_name=application)
    except (RayServeException, RuntimeError, ValueError) as exc:
        raise unavailable(f"the graph has no deployment {deployment}") from exc


async def _call(
    handle: Handle, method: str, unavailable: type[RapportError], deadline: Deadline | None, *args: Any
) -> Any:
    deadline = deadline or Deadline.after(_TIMEOUT_S)
    for last in (False, True):  # a replica that died is replaced, and nothing that is asked here changes anything
        response = getattr(handle, method).remote(*args)
        try:
            async with deadline.enforce(method):
                return await response
        except (asyncio.CancelledError, DeadlineExceeded):
            response.cancel()  # a caller that gave up leaves the call running unless it is told to stop
            raise
        except RayTaskError as exc:
            raise (exc.cause if isinstance(exc.cause, RapportError) else unavailable(f"{method} failed")) from exc
        except BackPressureError as exc:
            raise Overloaded(f"{method}: queue is full").with_retry_after(1.0) from exc
        except (ActorDiedError, ActorUnavailableError) as exc:
            if last:
                raise unavailable(f"{method}: the replica went away") from exc
        except RayServeException as exc:
            raise unavailable(f"{method}: the deployment went away") from exc
    raise AssertionError("unreachable: the second try returns or raises")
