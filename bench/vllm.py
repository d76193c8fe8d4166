"""What our API costs a vLLM engine: tokens a second through `/v1/chat/completions` beside the bare engine, in one run.

Both sides hold the same model of about 100 million random parameters, with the same executor and threads; they take
turns, and an idle engine computes nothing. The graph's side includes HAProxy, the ingress, the chain of language models
and a client of its own that reads HTTP; the bare side none of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from bench.graph import ROOT, running_system
from demo.tiny_model import make

CONCURRENCY = (1, 8, 32)
MAX_TOKENS = 64
ROUNDS = 3
THREADS = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}


def plan(concurrency: int, number: int, *, stream: bool) -> dict[str, Any]:
    """A prompt of its own for every caller, and two for one who is alone."""
    count = max(2, concurrency)
    prompts = [f"Report {number}-{index}: what happened at the harbour today?" for index in range(count)]
    return {"prompts": prompts, "concurrency": concurrency, "max_tokens": MAX_TOKENS, "stream": stream}


@contextmanager
def bare_engine(model: Path) -> Iterator[subprocess.Popen[str]]:
    """The engine alone, ready for plans."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.bare_vllm", str(model)],
        cwd=ROOT,
        env={**os.environ, **THREADS, "VLLM_LOGGING_LEVEL": "ERROR"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        if "ready" not in process.stdout.readline():
            raise RuntimeError("the bare engine did not start")
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=60)


def ask_bare(process: subprocess.Popen[str], one: dict[str, Any]) -> float:
    """Tokens a second of one plan."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(one) + "\n")
    process.stdin.flush()
    result = json.loads(process.stdout.readline())
    return float(result["tokens"] / result["seconds"])


def ask_graph(url: str, one: dict[str, Any]) -> float:
    """The same plan over HTTP, from a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.vllm", "client", url],
        input=json.dumps(one),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout)
    return float(result["tokens"] / result["seconds"])


async def client(url: str, one: dict[str, Any]) -> dict[str, float]:
    """Closed loop: each caller sends its next prompt when the last is answered."""
    waiting = list(reversed(one["prompts"]))
    made: list[int] = []
    limits = httpx.Limits(max_connections=one["concurrency"])
    async with httpx.AsyncClient(base_url=url, timeout=300, trust_env=False, limits=limits) as http:

        async def caller() -> None:
            while waiting:
                body = {
                    "model": "vllm",
                    "messages": [{"role": "user", "content": waiting.pop()}],
                    "max_tokens": one["max_tokens"],
                    "temperature": 0,
                    "stream": one["stream"],
                }
                if one["stream"]:
                    made.append(await streamed(http, {**body, "stream_options": {"include_usage": True}}))
                else:
                    answer = await http.post("/v1/chat/completions", json=body)
                    answer.raise_for_status()
                    made.append(answer.json()["usage"]["completion_tokens"])

        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(one["concurrency"])))
        return {"tokens": sum(made), "seconds": time.perf_counter() - started}


async def streamed(http: httpx.AsyncClient, body: dict[str, Any]) -> int:
    """Tokens of one streamed reply, as its last chunk counts them."""
    last = ""
    async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                last = line
    return int(json.loads(last.removeprefix("data: "))["usage"]["completion_tokens"])


def measure() -> None:
    """Print the table of `bench/README.md`."""
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        model = Path(folder) / "small"
        make(model, "small")
        # 32 whole replies at once take nearly the 30 s that a request may take by default.
        environment = {
            "RAPPORT_LANGUAGE_MODEL__VLLM__MODEL": str(model),
            "RAPPORT_LANGUAGE_MODEL__TIMEOUT_S": "120",
            "RAPPORT_INGRESS__REQUEST_TIMEOUT_S": "120",
        }
        arguments = ["--config", str(ROOT / "serve_config.vllm.yaml")]
        with (
            running_system(200, environment=environment, arguments=arguments) as (url, startup_s, _),
            bare_engine(model) as bare,
        ):
            print("\nvLLM on the processor, 96 M random parameters, 1 thread each; HAProxy mode.")
            print(f"Start-up of the graph with the model: {startup_s:.0f} s\n")
            print("| replies | concurrent | bare tokens/s | through our API | ratio (median of rounds) |")
            print("|---|---|---|---|---|")
            for stream in (False, True):
                for concurrency in CONCURRENCY:
                    print(row(url, bare, concurrency, stream=stream), flush=True)


def row(url: str, bare: subprocess.Popen[str], concurrency: int, *, stream: bool) -> str:
    ask_graph(url, plan(concurrency, -1, stream=stream))
    ask_bare(bare, plan(concurrency, -1, stream=stream))
    ours, theirs = [], []
    for number in range(ROUNDS):
        one = plan(concurrency, number, stream=stream)
        # Who goes first changes, so that a machine that slows down favours nobody.
        for side in ("ours", "bare") if number % 2 else ("bare", "ours"):
            if side == "ours":
                ours.append(ask_graph(url, one))
            else:
                theirs.append(ask_bare(bare, one))
    ratio = statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
    kind = "streamed" if stream else "whole"
    bare_s, ours_s = statistics.median(theirs), statistics.median(ours)
    return f"| {kind} | {concurrency} | {bare_s:.1f} | {ours_s:.1f} | {ratio:.2f} |"


if __name__ == "__main__":
    if sys.argv[1:2] != ["client"]:
        raise SystemExit("run `make bench ARGS=--vllm`")
    print(json.dumps(asyncio.run(client(sys.argv[2], json.load(sys.stdin)))))
