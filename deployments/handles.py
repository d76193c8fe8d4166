"""One proxy per protocol over a Serve handle: the only `.remote()` of the online half, the only error unwrapping.

A proxy satisfies the same protocol as the object behind it, so `models/` never learns that a hop lies in between. Each
call carries its deadline, is truly cancelled when its caller goes away, and is tried again only where the work is
idempotent and the replica died.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from models.classification.types import Classification
from models.embedding.protocol import Vectors
from models.enrichment.types import ContextRequest, EnrichedContext
from models.errors import (
    ContextEnrichmentError,
    DeadlineExceeded,
    DependencyUnavailable,
    Internal,
    KnowledgeUnavailable,
    ModelUnavailable,
    Overloaded,
    RapportError,
    SafetyUnavailable,
)
from models.knowledge.types import DocumentKind, Passage
from models.llm.types import ChatMessage, Delta, EngineState, LanguageModelReply, LanguageModelRequest
from models.resilience.deadline import Deadline
from models.safety.types import Decision, Purpose, Verdict
from models.sessions.types import Session, Turn
from models.telemetry import principal, request_id
from models.workflows.types import InboundMessage, WorkflowResult

#: Bound of a call whose caller gave none, so that no call can wait for ever on a deployment without replicas.
DEFAULT_TIMEOUT_S = 30.0
#: What a context takes on its way back, after the replica has ended it at its deadline.
ANSWER_MARGIN_S = 1.0
INVALIDATION_TIMEOUT_S = 2.0

logger = logging.getLogger(__name__)

#: What no replica ever sends.
_END = object()

_REPLICA_GONE = (ActorDiedError, ActorUnavailableError)


class _Proxy:
    """Calls one deployment; its absence means `unavailable` to the caller, an error of no class of ours `foreign`."""

    unavailable: type[RapportError] = DependencyUnavailable
    foreign: type[RapportError] = Internal

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def _call(self, method: str, *args: Any, deadline: Deadline | None, idempotent: bool = True) -> Any:
        deadline = deadline or Deadline.after(DEFAULT_TIMEOUT_S)
        for last in (not idempotent, True):
            response = getattr(self._handle, method).remote(*args)
            try:
                async with deadline.enforce(method):
                    return await response
            except _REPLICA_GONE as exc:
                if last:
                    raise self.unavailable(f"{method}: the replica went away") from exc
            except (asyncio.CancelledError, DeadlineExceeded):
                # A caller that gave up leaves the call running unless it is told to stop.
                response.cancel()
                raise
            except Exception as exc:
                raise self._translate(method, exc) from exc
        raise AssertionError("unreachable: the second try returns or raises")

    async def _stream(
        self, handle: DeploymentHandle[Any], method: str, *args: Any, deadline: Deadline
    ) -> AsyncGenerator[Any, None]:
        """Pieces of a generator method; never tried again, because the caller has seen the first ones."""
        pieces: Any = aiter(getattr(handle, method).remote(*args))
        try:
            while True:
                # Around each wait, not around the loop: while the caller has a piece, the time is its own to watch.
                async with deadline.enforce(method):
                    piece = await anext(pieces, _END)
                if piece is _END:
                    return
                yield piece
        except DeadlineExceeded:
            raise
        except Exception as exc:
            raise self._translate(method, exc) from exc
        finally:
            # Leaving the loop early does not stop the replica; only this does.
            pieces.cancel()

    def _translate(self, method: str, exc: Exception) -> Exception:
        if isinstance(exc, RayTaskError) and isinstance(exc.cause, RapportError):
            return exc.cause
        if isinstance(exc, BackPressureError):
            return Overloaded(f"{method}: queue is full").with_retry_after(1.0)
        if isinstance(exc, RayTaskError):
            return self.foreign(f"{method}: {type(exc.cause).__name__}")
        if isinstance(exc, RayError | RayServeException | DeploymentUnavailableError):
            return self.unavailable(f"{method}: {type(exc).__name__}")
        return exc

    async def check_health(self, *, deadline: Deadline | None = None) -> None:
        """Return if a replica answers and its dependencies are well."""
        await self._call("probe", deadline=deadline or Deadline.after(2.0))


class ProbeHandle(_Proxy):
    """Only asks whether a deployment is well."""


class EmbedderHandle(_Proxy):
    """`models.embedding.protocol.StrictEmbedder`."""

    unavailable = ModelUnavailable

    def __init__(self, handle: DeploymentHandle[Any], *, model_id: str) -> None:
        super().__init__(handle)
        self.model_id = model_id

    async def embed(self, texts: Sequence[str], *, deadline: Deadline | None = None) -> Vectors:
        vectors: Vectors = await self._call("embed", list(texts), deadline, deadline=deadline)
        return vectors

    async def embed_strict(
        self, texts: Sequence[str], *, deadline: Deadline | None = None
    ) -> tuple[Vectors, list[int]]:
        found: tuple[Vectors, list[int]] = await self._call("embed_strict", list(texts), deadline, deadline=deadline)
        return found


class ClassifierHandle(_Proxy):
    """`models.classification.protocol.Classifier`."""

    unavailable = ModelUnavailable

    async def classify(
        self, messages: Sequence[str], *, vectors: Vectors | None = None, deadline: Deadline | None = None
    ) -> list[Classification]:
        found: list[Classification] = await self._call("classify", list(messages), vectors, deadline, deadline=deadline)
        return found


class SafetyHandle(_Proxy):
    """`models.safety.protocol.SafetyGate`; a gate that fails in any way decides as an unavailable moderator does."""

    unavailable = SafetyUnavailable

    async def check(
        self,
        texts: Sequence[str],
        *,
        purpose: Purpose,
        vectors: Vectors | None = None,
        deadline: Deadline | None = None,
    ) -> list[Verdict]:
        try:
            verdicts: list[Verdict] = await self._call(
                "check", list(texts), purpose, vectors, deadline, deadline=deadline
            )
        except Exception as exc:  # an unforeseen defect must not open the door either
            logger.warning("a safety check failed closed", extra={"error": type(exc).__name__})
            decision = Decision.ESCALATE if purpose is Purpose.CUSTOMER_MESSAGE else Decision.BLOCK
            return [Verdict(decision=decision, reasons=("safety_unavailable",), available=False) for _ in texts]
        return verdicts


class KnowledgeHandle(_Proxy):
    """`models.knowledge.protocol.KnowledgeSearch`."""

    unavailable = KnowledgeUnavailable

    async def search(
        self,
        query: str,
        *,
        limit: int = 5,
        min_score: float = 0.0,
        kinds: Sequence[DocumentKind] = (),
        vector: Vectors | None = None,
        deadline: Deadline | None = None,
    ) -> list[Passage]:
        passages: list[Passage] = await self._call(
            "search", query, limit, min_score, tuple(kinds), vector, deadline, deadline=deadline
        )
        return passages


class LanguageModelHandle(_Proxy):
    """`models.llm.protocol.LanguageModel`; a generation is tried again only before its first piece."""

    unavailable = ModelUnavailable

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        super().__init__(handle)
        self._streaming = handle.options(stream=True)

    async def generate(self, request: LanguageModelRequest, *, deadline: Deadline) -> LanguageModelReply:
        reply: LanguageModelReply = await self._call("generate", request, deadline, deadline=deadline)
        return reply

    async def stream(self, request: LanguageModelRequest, *, deadline: Deadline) -> AsyncIterator[Delta]:
        async with aclosing(self._stream(self._streaming, "stream", request, deadline, deadline=deadline)) as pieces:
            async for piece in pieces:
                yield piece

    async def states(self, *, deadline: Deadline | None = None) -> tuple[EngineState, ...]:
        """How one replica finds its engines. Raises `ModelUnavailable`."""
        found: tuple[EngineState, ...] = await self._call("states", deadline=deadline or Deadline.after(2.0))
        return found

    async def close(self) -> None:
        return None


class VLLMHandle(_Proxy):
    """The vLLM deployment: one chat completion, as JSON, in and out."""

    unavailable = ModelUnavailable
    foreign = ModelUnavailable

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        super().__init__(handle)
        self._streaming = handle.options(stream=True)

    async def complete(
        self, body: Mapping[str, Any], *, adapter: str = "", deadline: Deadline
    ) -> AsyncGenerator[list[str], None]:
        """JSON documents in groups that arrived together; `adapter` names a LoRA adapter of the model."""
        handle = self._streaming.options(multiplexed_model_id=adapter) if adapter else self._streaming
        async with aclosing(self._stream(handle, "complete", body, deadline=deadline)) as groups:
            async for group in groups:
                yield group


class ContextHandle(_Proxy):
    """`models.enrichment.protocol.ContextSource`, and what else the application that answers context reads can do.

    The caller's name travels along, because the audit trail of the replica that answers has to know it.
    """

    unavailable = ContextEnrichmentError

    async def enrich(self, customer_id: str, request: ContextRequest) -> EnrichedContext:
        return await self._read("enrich", customer_id, request)  # type: ignore[no-any-return]  # what `enrich` returns

    async def enrich_many(self, customer_ids: Sequence[str], request: ContextRequest) -> dict[str, EnrichedContext]:
        return await self._read("enrich_many", list(customer_ids), request)  # type: ignore[no-any-return]  # as above

    async def read_many(self, customer_ids: Sequence[str], request: ContextRequest) -> bytes:
        """Raises also `Overloaded`."""
        return await self._read("read_many", list(customer_ids), request)  # type: ignore[no-any-return]  # as above

    async def invalidate(self, customer_ids: Sequence[str], tags: Sequence[str]) -> None:
        """Raises `CacheUnavailable`, `ContextEnrichmentError`, `DeadlineExceeded`."""
        await self._call("invalidate", list(customer_ids), list(tags), deadline=Deadline.after(INVALIDATION_TIMEOUT_S))

    async def deliver_changes(self) -> None:
        """Have one replica deliver the changes in the outbox now. Raises as `invalidate`, and `DatabaseUnavailable`."""
        await self._call("deliver_changes", deadline=Deadline.after(INVALIDATION_TIMEOUT_S))

    async def _read(self, method: str, subject: str | list[str], request: ContextRequest) -> Any:
        # The replica itself ends in time; this bound is for a replica that does not answer.
        bound = Deadline.after(request.deadline.remaining_s() + ANSWER_MARGIN_S)
        arguments = (subject, request, principal.get(), request_id.get())
        return await self._call(method, *arguments, deadline=bound)


class ConversationHandle(_Proxy):
    """The message router and the conversation agent, as the ingress sees them.

    Turns, completions and openings are not repeated here: a turn has side effects, and the client's message id makes
    its own retry safe. Routing is: a second compliance record for one report is worth more than a lost one.
    """

    async def route(self, message: InboundMessage, *, deadline: Deadline) -> WorkflowResult:
        result: WorkflowResult = await self._call("route", message, deadline, deadline=deadline)
        return result

    async def open(
        self, *, customer_id: str | None, agent_type: str | None, principal: str, metadata: dict[str, str]
    ) -> Session:
        session: Session = await self._call(
            "open", customer_id, agent_type, principal, metadata, deadline=None, idempotent=False
        )
        return session

    async def get(self, session_id: str, *, principal: str) -> Session:
        session: Session = await self._call("get", session_id, principal, deadline=None)
        return session

    async def end(self, session_id: str, *, principal: str) -> Session:
        session: Session = await self._call("end", session_id, principal, deadline=None)
        return session

    async def of_customer(self, customer_id: str, *, principal: str) -> list[Session]:
        sessions: list[Session] = await self._call("of_customer", customer_id, principal, deadline=None)
        return sessions

    async def turn(
        self,
        session_id: str,
        text: str,
        *,
        principal: str,
        client_message_id: str | None,
        request_id: str,
        deadline: Deadline,
        turn_id: str | None = None,
    ) -> Turn:
        turn: Turn = await self._call(
            "turn",
            session_id,
            text,
            principal,
            client_message_id,
            request_id,
            deadline,
            turn_id,
            deadline=deadline,
            idempotent=client_message_id is not None,
        )
        return turn

    async def complete(
        self,
        messages: Sequence[ChatMessage],
        *,
        customer_id: str | None,
        agent_type: str | None,
        principal: str,
        request_id: str,
        deadline: Deadline,
    ) -> Turn:
        arguments = (tuple(messages), customer_id, agent_type, principal, request_id, deadline)
        turn: Turn = await self._call("complete", *arguments, deadline=deadline, idempotent=False)
        return turn
