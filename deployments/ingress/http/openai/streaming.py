"""Streams to clients: several generations read side by side, cancelled as soon as nobody listens any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from models.errors import DeadlineExceeded, ModelReplyBroken
from models.llm.types import Delta

T = TypeVar("T")

#: Pieces that may wait for a slow client before the generations wait too.
_WAITING = 256


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The work's result; when the client goes away first the work is cancelled, and this raises `ClientDisconnect`."""
    working = asyncio.ensure_future(work)
    listening = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((working, listening), return_when=asyncio.FIRST_COMPLETED)
        # Also when both are done: nobody could hear the result, and the news of it comes but once.
        if listening.done():
            raise ClientDisconnect
        return working.result()
    finally:
        await _cancelled(working, listening)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


async def _cancelled(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Generations:
    """Pieces of several streams as `(index, delta)` in the order of their arrival.

    Each stream is read by one task of its own from its first piece to its last, because what bounds it in time is bound
    to a task. The failure of one ends all.
    """

    def __init__(self, streams: Sequence[AsyncIterator[Delta]]) -> None:
        self._pieces: asyncio.Queue[tuple[int, Delta | Exception]] = asyncio.Queue(_WAITING)
        self._tasks = [asyncio.create_task(self._read(index, stream)) for index, stream in enumerate(streams)]
        self._running = len(streams)
        self._failure: Exception | None = None
        self._is_closing = False

    async def _read(self, index: int, stream: Any) -> None:
        failure: Exception
        try:
            async with aclosing(stream) as pieces:
                async for delta in pieces:
                    await self._pieces.put((index, delta))
                    if delta.reply is not None:
                        return
            failure = ModelReplyBroken("a stream ended without its reply")
        except asyncio.CancelledError:
            if self._is_closing:
                raise
            # The stream's own deadline strikes here while a piece waits for a slow client.
            failure = DeadlineExceeded("a stream did not finish within its time budget")
        except Exception as error:
            failure = error
        await self._pieces.put((index, failure))

    async def next(self) -> list[tuple[int, Delta]]:
        """What has arrived since the last call, at least one piece; nothing once every stream has given its reply.

        Raises as the first stream that failed, after what came before it was handed out.
        """
        arrived: list[tuple[int, Delta]] = []
        while self._failure is None and self._running and (not arrived or not self._pieces.empty()):
            index, piece = await self._pieces.get()
            if isinstance(piece, Exception):
                self._failure = piece
            else:
                self._running -= piece.reply is not None
                arrived.append((index, piece))
        if self._failure is not None and not arrived:
            raise self._failure
        return arrived

    async def aclose(self) -> None:
        """Cancel what still runs, and return when it has ended."""
        self._is_closing = True
        await _cancelled(*self._tasks)


class EventStream(Response):
    """Server-sent events, sent while the client listens; `close` runs at the end, whichever end that is."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], *, close: Callable[[], Awaitable[None]] | None = None):
        self._events = events
        self._close = close
        self.status_code = 200
        self.background = None
        # Proxies in front must not collect what is meant to be read at once.
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await while_connected(receive, self._deliver(send))
            # Servers report the end of an answer as a disconnect, so the end is sent when nobody listens for one.
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            if self._close is not None:
                await self._close()

    async def _deliver(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._events) as events:
            async for event in events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
