"""A small closed-loop HTTP/1.1 load generator: N connections, each sending its next request when the last is answered.

Written on raw asyncio streams because a full HTTP client costs more than the server under test; it runs in a process of
its own so that it does not share the server's interpreter.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import time
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """Requests a second over all connections, and latency percentiles in milliseconds."""

    requests: int
    errors: int
    seconds: float
    requests_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


def request_bytes(host: str, method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """One keep-alive request on the wire."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def read_response(reader: asyncio.StreamReader) -> int:
    """Read one response completely and return its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head[9:12])
    lowered = head.lower()
    if (at := lowered.find(b"content-length:")) >= 0:
        await reader.readexactly(int(lowered[at + 15 : lowered.index(b"\r\n", at)]))
    elif b"transfer-encoding: chunked" in lowered:
        while size := int((await reader.readline()).split(b";")[0], 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    return status


async def _connection(
    host: str, port: int, payloads: list[bytes], stop_at: float, times: list[float], errors: list[int]
) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    turn = 0
    while time.perf_counter() < stop_at:
        started = time.perf_counter()
        writer.write(payloads[turn % len(payloads)])
        status = await read_response(reader)
        times.append(time.perf_counter() - started)
        if status >= 400:
            errors.append(status)
        turn += 1
    writer.close()


def percentile(ordered: list[float], share: float) -> float:
    """Nearest-rank percentile of sorted values; NaN when there are none."""
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


async def load(host: str, port: int, payloads: list[bytes], *, connections: int, seconds: float) -> LoadResult:
    """Drive the server for `seconds` and summarise; each connection cycles through `payloads`."""
    times: list[float] = []
    errors: list[int] = []
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for index in range(connections):
            rotated = payloads[index % len(payloads) :] + payloads[: index % len(payloads)]
            group.create_task(_connection(host, port, rotated, started + seconds, times, errors))
    elapsed = time.perf_counter() - started
    ordered = sorted(times)
    return LoadResult(
        requests=len(times),
        errors=len(errors),
        seconds=round(elapsed, 2),
        requests_per_s=round(len(times) / elapsed, 1),
        p50_ms=round(percentile(ordered, 0.50) * 1e3, 2),
        p95_ms=round(percentile(ordered, 0.95) * 1e3, 2),
        p99_ms=round(percentile(ordered, 0.99) * 1e3, 2),
    )


def main() -> int:
    """Read a JSON plan on stdin, print a JSON result: the process boundary of `bench.compare`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    plan = json.load(sys.stdin)
    payloads = [
        request_bytes(plan["host"], one["method"], one["path"], one.get("body", "").encode(), one.get("headers", {}))
        for one in plan["requests"]
    ]
    result = asyncio.run(
        load(plan["host"], plan["port"], payloads, connections=plan["connections"], seconds=plan["seconds"])
    )
    print(json.dumps(asdict(result)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
