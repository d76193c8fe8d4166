"""Retries: what is tried again, how long it waits, and that the deadline wins."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from models.errors import InvalidRequest, ModelUnavailable
from models.resilience.deadline import Deadline
from models.resilience.retry import RetryPolicy


class Scene:
    """An attempt that fails with the given errors first, and a clock that only sleeping moves."""

    def __init__(self, errors: Sequence[Exception]) -> None:
        self.errors = list(errors)
        self.waits: list[float] = []
        self.tries = 0
        self.now = 0.0

    async def attempt(self) -> str:
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    async def run(self, budget_s: float = 100.0, **settings: float) -> str:
        policy = RetryPolicy(sleep=self.sleep, random=random.Random(1), **settings)  # type: ignore[arg-type]  # numbers only
        return await policy.run(self.attempt, deadline=Deadline.after(budget_s, lambda: self.now))


def outages(number: int) -> list[Exception]:
    return [ModelUnavailable("down") for _ in range(number)]


async def test_it_tries_until_it_works() -> None:
    scene = Scene(outages(3))
    assert await scene.run() == "done"
    assert scene.tries == 4


async def test_after_the_last_retry_the_last_error_comes_out() -> None:
    scene = Scene([*outages(3), ModelUnavailable("the fourth")])
    with pytest.raises(ModelUnavailable, match="the fourth"):
        await scene.run()
    assert scene.tries == 4


async def test_what_another_try_cannot_mend_is_not_tried_again() -> None:
    scene = Scene([InvalidRequest("no")])
    with pytest.raises(InvalidRequest):
        await scene.run()
    assert scene.tries == 1


async def test_waits_are_jittered_below_a_growing_ceiling() -> None:
    scene = Scene(outages(3))
    await scene.run(base_s=1.0, max_s=3.0)
    assert all(0 <= wait <= ceiling for wait, ceiling in zip(scene.waits, (1.0, 2.0, 3.0), strict=True))
    assert len(set(scene.waits)) == 3


async def test_the_server_s_wish_is_a_lower_bound() -> None:
    error = ModelUnavailable("busy")
    error.with_retry_after(7.0)
    scene = Scene([error])
    await scene.run()
    assert scene.waits == [7.0]


async def test_a_wait_that_outlasts_the_deadline_is_not_begun() -> None:
    error = ModelUnavailable("busy")
    error.with_retry_after(7.0)
    scene = Scene([error])
    with pytest.raises(ModelUnavailable):
        await scene.run(budget_s=5.0)
    assert scene.waits == []
