"""Several generations read side by side, while the client reads slowly or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from deployments.ingress.http.openai.streaming import Generations
from models.errors import DeadlineExceeded
from models.llm.types import Delta
from models.resilience.deadline import Deadline

#: More than may wait for a client.
MANY = 1_000


async def overdue(ended: asyncio.Event) -> AsyncIterator[Delta]:
    """A stream that holds its deadline across its pieces; it strikes when a piece must wait for the client."""
    try:
        async with Deadline.after(0).enforce("a stream"):
            for number in range(MANY):
                yield Delta(text=str(number))
    finally:
        ended.set()


async def unhurried(ended: asyncio.Event) -> AsyncIterator[Delta]:
    try:
        for number in range(MANY):
            yield Delta(text=str(number))
    finally:
        ended.set()


async def test_a_slow_client_hears_of_the_deadline_after_the_pieces_before_it() -> None:
    ended = asyncio.Event()
    generations = Generations([overdue(ended)])
    async with asyncio.timeout(10):
        heard = await generations.next()
        with pytest.raises(DeadlineExceeded):
            await generations.next()
        await ended.wait()
    assert 0 < len(heard) < MANY
    await generations.aclose()


async def test_a_client_that_stops_listening_ends_a_stream_whose_piece_waits_for_it() -> None:
    ended = asyncio.Event()
    generations = Generations([unhurried(ended), overdue(asyncio.Event())])
    async with asyncio.timeout(10):
        await generations.next()
        await generations.aclose()
        await ended.wait()
