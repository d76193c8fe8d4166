"""The circuit breaker: when it opens, what it lets through, and what never counts."""

from __future__ import annotations

import asyncio

import pytest

from models.errors import InvalidRequest, ModelUnavailable
from models.resilience.breaker import BreakerState, CircuitBreaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker("model", failures=3, reset_after_s=10, refusal=ModelUnavailable, clock=clock)


def state(breaker: CircuitBreaker) -> BreakerState:
    """Read afresh each time: a property that time changes must not be narrowed by the type checker."""
    return breaker.state


def fail(breaker: CircuitBreaker, error: BaseException | None = None) -> None:
    error = error or ModelUnavailable("down")
    with pytest.raises(type(error)), breaker.guard():
        raise error


def succeed(breaker: CircuitBreaker) -> None:
    with breaker.guard():
        pass


def test_it_opens_after_outages_in_a_row_and_says_when_to_come_back(breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(3):
        assert state(breaker) is BreakerState.CLOSED
        fail(breaker)
    assert state(breaker) is BreakerState.OPEN
    clock.now += 4
    with pytest.raises(ModelUnavailable, match="circuit open") as caught, breaker.guard():
        raise AssertionError("the block must not run")
    assert caught.value.retry_after_s == pytest.approx(6)


def test_a_success_in_between_starts_the_count_again(breaker: CircuitBreaker) -> None:
    for _ in range(5):
        fail(breaker)
        fail(breaker)
        succeed(breaker)
    assert state(breaker) is BreakerState.CLOSED


def test_a_trial_closes_it_or_opens_it_again(breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(3):
        fail(breaker)
    clock.now += 10
    assert state(breaker) is BreakerState.HALF_OPEN
    fail(breaker)
    assert state(breaker) is BreakerState.OPEN
    clock.now += 10
    succeed(breaker)
    assert state(breaker) is BreakerState.CLOSED


def test_only_one_trial_runs_at_a_time(breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(3):
        fail(breaker)
    clock.now += 10
    with breaker.guard():
        fail(breaker)  # refused at the door
        assert state(breaker) is BreakerState.HALF_OPEN
    assert state(breaker) is BreakerState.CLOSED


@pytest.mark.parametrize("error", [asyncio.CancelledError(), InvalidRequest("bad"), ValueError("bug")])
def test_what_does_not_speak_against_the_dependency_does_not_count(
    breaker: CircuitBreaker, error: BaseException
) -> None:
    for _ in range(5):
        fail(breaker, error)
    assert state(breaker) is BreakerState.CLOSED


def test_a_cancelled_trial_leaves_room_for_the_next(breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(3):
        fail(breaker)
    clock.now += 10
    fail(breaker, asyncio.CancelledError())
    assert state(breaker) is BreakerState.HALF_OPEN
    succeed(breaker)
    assert state(breaker) is BreakerState.CLOSED


def test_a_late_success_of_an_old_call_does_not_close_an_open_breaker(breaker: CircuitBreaker) -> None:
    with breaker.guard():
        for _ in range(3):
            fail(breaker)
    assert state(breaker) is BreakerState.OPEN
