"""Merges concurrent calls into batches and refills whenever the worker is free."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class _Job(Generic[T, R]):
    """One caller's items; a batch may take some of them and leave the rest for the next."""

    __slots__ = ("done", "items", "results", "taken")

    def __init__(self, items: Sequence[T], done: asyncio.Future[list[R]]) -> None:
        self.items = items
        self.done = done
        self.taken = 0
        self.results: list[R | None] = [None] * len(items)


class MicroBatcher(Generic[T, R]):
    """Calls `work` with what everybody who waits has asked for, at most `max_batch` items and `max_weight` at a time.

    There is no wait window: a batch starts as soon as the previous one ends, so a lone call is never delayed and a busy
    worker finds full batches. Callers take turns item by item, so one long call cannot starve a short one, and a bound
    on the weight (an item heavier than that goes alone) bounds how long a newcomer waits for the batch that runs. The
    items of a cancelled caller are dropped if their batch has not started. If a merged batch fails, each caller's part
    is tried alone, so that only the caller who sent the bad item sees the failure.
    """

    def __init__(
        self,
        work: Callable[[list[T]], Awaitable[Sequence[R]]],
        *,
        max_batch: int,
        max_weight: int | None = None,
        weigh: Callable[[T], int] = lambda _: 1,
    ) -> None:
        if max_batch < 1:
            raise ValueError("max_batch must be at least 1")
        self._work = work
        self._max_batch = max_batch
        self._max_weight = max_weight
        self._weigh = weigh
        self._waiting: deque[_Job[T, R]] = deque()
        self._draining: asyncio.Task[None] | None = None

    async def submit(self, items: Sequence[T]) -> list[R]:
        """Results in the order of `items`; raises what `work` raised."""
        if not items:
            return []
        loop = asyncio.get_running_loop()
        job: _Job[T, R] = _Job(items, loop.create_future())
        self._waiting.append(job)
        if self._draining is None or self._draining.done() or self._draining.get_loop() is not loop:
            # The task lives only while there is work, so an idle batcher belongs to no event loop.
            self._draining = loop.create_task(self._drain())
        return await job.done

    async def _drain(self) -> None:
        # One turn of the loop first: calls made in the same instant share the first batch.
        await asyncio.sleep(0)
        while batch := self._next_batch():
            try:
                await self._run(batch)
            except Exception as exc:
                await self._run_apart(batch, exc)
            except asyncio.CancelledError:
                # Only a closing loop cancels this task: nobody may be left waiting for it.
                for job in {job for job, _ in batch} | set(self._waiting):
                    job.done.cancel()
                self._waiting.clear()
                raise

    def _next_batch(self) -> list[tuple[_Job[T, R], int]]:
        batch: list[tuple[_Job[T, R], int]] = []
        weight = 0
        while self._waiting and len(batch) < self._max_batch:
            job = self._waiting[0]
            if job.done.done():
                self._waiting.popleft()
                continue
            weight += self._weigh(job.items[job.taken])
            if batch and self._max_weight is not None and weight > self._max_weight:
                break
            self._waiting.popleft()
            batch.append((job, job.taken))
            job.taken += 1
            if job.taken < len(job.items):
                self._waiting.append(job)
        return batch

    async def _run(self, batch: list[tuple[_Job[T, R], int]]) -> None:
        results = await self._work([job.items[index] for job, index in batch])
        for (job, index), result in zip(batch, results, strict=True):
            job.results[index] = result
        for job, index in batch:
            if index == len(job.items) - 1 and not job.done.done():
                job.done.set_result(job.results)  # type: ignore[arg-type]  # the last item is in: every slot is filled

    async def _run_apart(self, batch: list[tuple[_Job[T, R], int]], cause: Exception) -> None:
        parts: dict[_Job[T, R], list[tuple[_Job[T, R], int]]] = {}
        for job, index in batch:
            parts.setdefault(job, []).append((job, index))
        for job, part in parts.items():
            failure: Exception | None = cause if len(parts) == 1 else None
            if failure is None:
                try:
                    await self._run(part)
                except Exception as exc:
                    failure = exc
            if failure is not None and not job.done.done():
                job.done.set_exception(failure)
