"""The safety gate behind a Serve handle fails closed, whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from ray.serve.handle import DeploymentHandle

from deployments.handles import SafetyHandle
from models.errors import Internal, Overloaded, SafetyUnavailable
from models.safety.types import Decision, Purpose


class FailingHandle:
    """A Serve handle whose calls end with `error`."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.check = self

    def remote(self, *_: object) -> FailingHandle:
        return self

    def cancel(self) -> None:
        return None

    def __await__(self) -> Any:
        yield from ()
        raise self.error


def gate(error: BaseException) -> SafetyHandle:
    return SafetyHandle(cast("DeploymentHandle[Any]", FailingHandle(error)))


@pytest.mark.parametrize(
    "error", [SafetyUnavailable("away"), Overloaded("full"), Internal("defect"), TypeError("cannot pickle")]
)
@pytest.mark.parametrize(
    ("purpose", "decision"), [(Purpose.CUSTOMER_MESSAGE, Decision.ESCALATE), (Purpose.REPLY, Decision.BLOCK)]
)
async def test_any_failure_closes_the_door(error: Exception, purpose: Purpose, decision: Decision) -> None:
    verdicts = await gate(error).check(["one", "two"], purpose=purpose)
    assert [(verdict.decision, verdict.available) for verdict in verdicts] == [(decision, False)] * 2


async def test_a_cancelled_check_stays_cancelled() -> None:
    with pytest.raises(asyncio.CancelledError):
        await gate(asyncio.CancelledError()).check(["one"], purpose=Purpose.REPLY)
