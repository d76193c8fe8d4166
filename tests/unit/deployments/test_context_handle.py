"""What travels with a call to the enrichment deployment, and how its failures arrive."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from ray.exceptions import RayTaskError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from deployments.handles import ContextHandle
from models.enrichment.types import ContextRequest
from models.errors import CacheUnavailable, ContextEnrichmentError, DeadlineExceeded, Overloaded, UnknownAgentType
from models.resilience.deadline import Deadline
from models.telemetry import principal, request_id


class Replica:
    """A Serve handle that answers `answer`, or raises it, and never when it is `None`."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.cancelled = False

    def __getattr__(self, method: str) -> Any:
        replica = self

        class Method:
            def remote(self, *args: Any) -> Replica:
                replica.calls.append((method, args))
                return replica

        return Method()

    def cancel(self) -> None:
        self.cancelled = True

    def __await__(self) -> Any:
        return self._answered().__await__()

    async def _answered(self) -> Any:
        if self.answer is None:
            await asyncio.Event().wait()
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def context(replica: Replica) -> ContextHandle:
    return ContextHandle(cast("DeploymentHandle[Any]", replica))


def request(seconds: float = 5.0) -> ContextRequest:
    return ContextRequest(deadline=Deadline.after(seconds), agent_type="sales")


async def test_a_read_names_its_caller_because_the_audit_trail_must() -> None:
    replica = Replica(b"{}")
    wanted = request()
    token, other = principal.set("key:sales"), request_id.set("req_1")
    try:
        assert await context(replica).read_many(("a", "b"), wanted) == b"{}"
    finally:
        principal.reset(token)
        request_id.reset(other)
    assert replica.calls == [("read_many", (["a", "b"], wanted, "key:sales", "req_1"))]


async def test_a_read_may_come_home_after_its_deadline_with_what_there_was() -> None:
    """The replica answers in time with a partial context; the way back must not turn it into a failure."""
    assert await context(Replica(b"partial")).read_many(["a"], request(0.0)) == b"partial"


@pytest.mark.parametrize(
    ("raised", "arrives"),
    [
        (UnknownAgentType("astrologer"), UnknownAgentType),
        (DeploymentUnavailableError(DeploymentID("enrichment", "context")), ContextEnrichmentError),
        (BackPressureError(num_queued_requests=1, max_queued_requests=1), Overloaded),
    ],
)
async def test_failures_arrive_as_ours(raised: Exception, arrives: type[Exception]) -> None:
    with pytest.raises(arrives):
        await context(Replica(raised)).read_many(["a"], request())


async def test_a_failure_inside_the_replica_keeps_its_class() -> None:
    cause = CacheUnavailable("redis")
    wrapped = RayTaskError("invalidate", "traceback", cause)  # type: ignore[no-untyped-call]  # Ray's own signature
    with pytest.raises(CacheUnavailable):
        await context(Replica(wrapped)).invalidate(["customer_1"], ["usage"])


async def test_a_replica_that_never_answers_is_given_up_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.handles.INVALIDATION_TIMEOUT_S", 0.0)
    replica = Replica(None)
    with pytest.raises(DeadlineExceeded):
        await context(replica).deliver_changes()
    assert replica.cancelled
