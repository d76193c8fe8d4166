"""Measures what the graph adds to a stream: to the time to the first token, and to the gaps between tokens.

The language model is scripted to speak after 50 ms and then every 20 ms, so whatever is beyond that in the client's
chunks of `POST /v1/chat/completions` is ours. Two ways to begin: spread over the length of one stream, as independent
callers do, and all in the same instant. Beside them the engine alone, in one process, as the baseline.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable
from itertools import pairwise
from typing import Any

from bench.graph import ROOT, running_system
from bench.load import percentile, request_bytes
from models.llm.engines import build_engine
from models.llm.types import ChatMessage, LanguageModelRequest, Role
from models.resilience.deadline import Deadline
from models.settings import Settings

TTFT_MS, GAP_MS, TOKENS = 50, 20, 100
MODEL = f"scripted:ttft_ms={TTFT_MS},gap_ms={GAP_MS},tokens={TOKENS}"
STREAMS, ROUNDS = 16, 4
STREAM_S = (TTFT_MS + (TOKENS - 1) * GAP_MS) / 1e3
QUESTION = "How do I invite a colleague?"

#: Seconds from the request to each token that the client saw.
Arrivals = list[float]


async def chunks(reader: asyncio.StreamReader) -> AsyncIterator[tuple[float, bytes]]:
    """Pieces of one chunked response, with the instant at which each was there."""
    head = await reader.readuntil(b"\r\n\r\n")
    if head[9:12] != b"200" or b"transfer-encoding: chunked" not in head.lower():
        raise RuntimeError(f"no stream but: {head.splitlines()[0].decode()}")
    while size := int((await reader.readline()).split(b";")[0], 16):
        piece = await reader.readexactly(size + 2)
        yield time.perf_counter(), piece[:-2]
    await reader.readline()


def tokens_of(pieces: Iterable[tuple[float, bytes]]) -> Iterable[float]:
    """When each event with text was complete; an event may lie in several pieces, and a piece hold several events."""
    pending = b""
    for at, piece in pieces:
        *events, pending = (pending + piece).split(b"\n\n")
        for event in events:
            data = event.removeprefix(b"data: ")
            if data.startswith(b"{") and any(choice["delta"].get("content") for choice in json.loads(data)["choices"]):
                yield at


async def one_connection(host: str, port: int, payload: bytes, wait_s: float) -> list[Arrivals]:
    """`ROUNDS` streams one after the other; the first, which warms up, is not among the results."""
    reader, writer = await asyncio.open_connection(host, port)
    await asyncio.sleep(wait_s)
    found = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        writer.write(payload)
        # Decoded afterwards, since that would delay the clock of the other streams.
        pieces = [piece async for piece in chunks(reader)]
        found.append([at - began for at in tokens_of(pieces)])
    writer.close()
    return found[1:]


async def client(plan: dict[str, Any]) -> list[Arrivals]:
    """All streams of all connections."""
    body = {"model": MODEL, "stream": True, "max_tokens": 1_000, "messages": [{"role": "user", "content": QUESTION}]}
    headers = {"Content-Type": "application/json"}
    payload = request_bytes(plan["host"], "POST", "/v1/chat/completions", json.dumps(body).encode(), headers)
    waits = [index * plan["spread_s"] / STREAMS for index in range(STREAMS)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one_connection(plan["host"], plan["port"], payload, wait_s)) for wait_s in waits]
    return [stream for task in tasks for stream in task.result()]


async def bare() -> list[Arrivals]:
    """The same streams from the engine itself; it needs no embedder for a question without passages."""
    engine = build_engine(MODEL, Settings(_env_file=None).language_model, None)  # type: ignore[arg-type]  # not used
    request = LanguageModelRequest(messages=(ChatMessage(role=Role.USER, content=QUESTION),), max_tokens=1_000)

    async def caller(wait_s: float) -> list[Arrivals]:
        await asyncio.sleep(wait_s)
        found = []
        for _ in range(ROUNDS + 1):
            began = time.perf_counter()
            pieces = engine.stream(request, deadline=Deadline.after(60.0))
            found.append([time.perf_counter() - began async for piece in pieces if piece.text])
        return found[1:]

    streams = await asyncio.gather(*(caller(index * STREAM_S / STREAMS) for index in range(STREAMS)))
    return [stream for of_caller in streams for stream in of_caller]


def driven(url: str, *, spread_s: float) -> list[Arrivals]:
    """The streams as a client in a process of its own sees them."""
    host, port = url.removeprefix("http://").split(":")
    plan = json.dumps({"host": host, "port": int(port), "spread_s": spread_s})
    command = [sys.executable, "-m", "bench.streaming", "client"]
    done = subprocess.run(command, input=plan, text=True, capture_output=True, check=False, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    streams: list[Arrivals] = json.loads(done.stdout)
    return streams


def row(name: str, streams: list[Arrivals]) -> str:
    """One line of the table; a stream that lost tokens is told."""
    firsts = sorted(stream[0] * 1e3 - TTFT_MS for stream in streams if stream)
    gaps = sorted((later - earlier) * 1e3 - GAP_MS for stream in streams for earlier, later in pairwise(stream))
    short = sum(len(stream) != TOKENS for stream in streams)
    name += f" ({short} streams without all tokens)" if short else ""
    cells = [f"{percentile(values, share):.2f}" for values in (gaps, firsts) for share in (0.50, 0.95)]
    return f"| {name} | {len(streams)} | {' | '.join(cells)} |"


def measure(customers: int) -> None:
    """Print the table of `bench/README.md`."""
    with running_system(customers, environment={"RAPPORT_LANGUAGE_MODEL__ENGINE": MODEL}) as (url, _, _):
        print(f"\n{STREAMS} concurrent streams of {TOKENS} tokens, a token every {GAP_MS} ms; HAProxy mode.\n")
        print("| streams begin | streams | gap − 20 ms, p50 | p95 | first token − 50 ms, p50 | p95 |")
        print("|---|---|---|---|---|---|")
        print(row("engine alone, spread", asyncio.run(bare())), flush=True)
        print(row("spread", driven(url, spread_s=STREAM_S)), flush=True)
        print(row("all at once", driven(url, spread_s=0.0)), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] != ["client"]:
        raise SystemExit("run `make bench ARGS=--streaming`")
    print(json.dumps(asyncio.run(client(json.load(sys.stdin)))))
