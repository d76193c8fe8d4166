"""Chores: all of them every round, whatever one of them does."""

from __future__ import annotations

import asyncio

from deployments.housekeeping import Housekeeping
from models.errors import DatabaseUnavailable


async def test_a_chore_that_fails_stops_neither_the_others_nor_the_next_round() -> None:
    done: list[str] = []
    slept: list[float] = []
    rested, go_on = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        rested.release()
        await go_on.acquire()

    async def fails() -> None:
        done.append("fails")
        raise DatabaseUnavailable("gone")

    async def works() -> int:
        done.append("works")
        return 3

    house = Housekeeping({"first": fails, "second": works}, every_s=60, sleep=sleep)
    house.start()
    house.start()
    await rested.acquire()
    go_on.release()
    await rested.acquire()
    await house.close()
    await house.close()
    assert done == ["fails", "works"] * 2
    assert slept == [60, 60]
