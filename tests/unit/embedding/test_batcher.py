"""The micro-batcher: who shares a batch, who waits, and whom a failure reaches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from models.embedding.batcher import MicroBatcher


class Worker:
    """Doubles numbers; waits at a gate, remembers its batches and refuses negative ones."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.started = asyncio.Event()

    async def __call__(self, items: list[int]) -> Sequence[int]:
        self.batches.append(list(items))
        self.started.set()
        await self.gate.wait()
        if any(item < 0 for item in items):
            raise ValueError("negative")
        return [item * 2 for item in items]


async def test_calls_made_together_share_one_batch_and_get_their_own_results() -> None:
    worker = Worker()
    batcher = MicroBatcher(worker, max_batch=8)
    results = await asyncio.gather(batcher.submit([1, 2]), batcher.submit([3]), batcher.submit([4]))
    assert list(results) == [[2, 4], [6], [8]]
    assert len(worker.batches) == 1


async def test_what_arrives_while_the_worker_is_busy_is_one_batch_when_it_is_free() -> None:
    worker = Worker()
    batcher = MicroBatcher(worker, max_batch=8)
    worker.gate.clear()
    first = asyncio.create_task(batcher.submit([1]))
    await worker.started.wait()
    later = [asyncio.create_task(batcher.submit([n])) for n in (2, 3, 4)]
    await asyncio.sleep(0)
    worker.gate.set()
    await asyncio.gather(first, *later)
    assert [sorted(batch) for batch in worker.batches] == [[1], [2, 3, 4]]


async def test_a_batch_never_exceeds_its_maximum_and_results_keep_their_order() -> None:
    worker = Worker()
    items = list(range(23))
    assert await MicroBatcher(worker, max_batch=5).submit(items) == [item * 2 for item in items]
    assert max(len(batch) for batch in worker.batches) == 5


async def test_heavy_items_make_small_batches_and_the_heaviest_goes_alone() -> None:
    worker = Worker()
    batcher = MicroBatcher(worker, max_batch=8, max_weight=10, weigh=lambda item: item)
    assert await batcher.submit([4, 5, 3, 50, 2, 2]) == [8, 10, 6, 100, 4, 4]
    assert worker.batches == [[4, 5], [3], [50], [2, 2]]


async def test_a_long_call_does_not_starve_a_short_one() -> None:
    worker = Worker()
    batcher = MicroBatcher(worker, max_batch=4)
    long, short = await asyncio.gather(batcher.submit(list(range(100))), batcher.submit([1000]))
    assert (long[-1], short) == (198, [2000])
    assert 1000 in worker.batches[0]


async def test_a_caller_who_gave_up_is_dropped_and_the_others_are_served() -> None:
    worker = Worker()
    batcher = MicroBatcher(worker, max_batch=8)
    worker.gate.clear()
    first = asyncio.create_task(batcher.submit([1]))
    await worker.started.wait()
    gone, stays = asyncio.create_task(batcher.submit([2])), asyncio.create_task(batcher.submit([3]))
    await asyncio.sleep(0)
    gone.cancel()
    worker.gate.set()
    assert await stays == [6]
    assert await first == [2]
    assert worker.batches == [[1], [3]]
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_giving_up_while_the_batch_runs_does_not_harm_its_other_callers() -> None:
    worker = Worker()
    batcher = MicroBatcher(worker, max_batch=8)
    worker.gate.clear()
    gone, stays = asyncio.create_task(batcher.submit([1])), asyncio.create_task(batcher.submit([2]))
    await worker.started.wait()
    gone.cancel()
    worker.gate.set()
    assert await stays == [4]


async def test_a_bad_item_harms_only_the_caller_who_sent_it() -> None:
    worker = Worker()
    batcher = MicroBatcher(worker, max_batch=8)
    good, bad = await asyncio.gather(batcher.submit([1, 2]), batcher.submit([-1, 3]), return_exceptions=True)
    assert good == [2, 4]
    assert isinstance(bad, ValueError)


async def test_after_a_failure_the_batcher_goes_on() -> None:
    batcher = MicroBatcher(Worker(), max_batch=8)
    with pytest.raises(ValueError, match="negative"):
        await batcher.submit([-1])
    assert await batcher.submit([5]) == [10]


async def test_nobody_is_left_waiting_when_the_loop_stops_the_worker() -> None:
    worker = Worker()
    batcher = MicroBatcher(worker, max_batch=1)
    worker.gate.clear()
    running, waiting = asyncio.create_task(batcher.submit([1])), asyncio.create_task(batcher.submit([2]))
    await worker.started.wait()
    assert batcher._draining is not None
    batcher._draining.cancel()
    results = await asyncio.gather(running, waiting, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
