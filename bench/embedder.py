"""What merging calls is worth: texts a second of the embedder beside one `SentenceTransformer.encode` per text.

Three places: in one process, through a deployment handle of the running system, and over HTTP. In each the bare
encode runs in the same process or beside the idle system, with the same number of threads, in rounds that take turns
with the embedder's. The embedder remembers no text; no text is sent twice but over HTTP, where callers share a list.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.graph import JSON, ROOT, drive, running_system
from bench.load import percentile
from models.embedding.grouping import by_length
from models.embedding.precision import MIN_COSINE, Precision
from models.embedding.sentence_transformers import SentenceTransformerEmbedder
from models.embedding.sentence_transformers_encoder import BUNDLED, SentenceTransformerEncoder

CALLERS = 32
ROUNDS = 3
#: The threads of a replica that reserves less than two processors; Ray sets the same variable.
THREADS = {"OMP_NUM_THREADS": "1"}

_OPENINGS = ("Hello,", "Hi there,", "Good morning!", "Urgent:", "Quick question:", "Following up on my last message:")
_ASKS = (
    "how do I {verb} {thing}?",
    "where can I {verb} {thing}",
    "I cannot {verb} {thing} since {when}.",
    "please {verb} {thing} {when}",
    "who may {verb} {thing} in our clinic, and does it cost extra?",
)
_MORE = (
    "It worked {when}, and nothing has changed on our side since then.",
    "My colleague sees {thing} on her phone, but the page stays empty for me.",
    "The screen says error {number} and asks me to try again later.",
    "We renew {when}, so this has to be settled before; otherwise we would rather cancel the whole contract.",
    "I have read the article about {thing}, but it does not say what happens to what was already sent to patients.",
)
_WORDS = {
    "verb": ("invite", "remove", "change", "export", "find", "restore", "pay for", "reschedule", "share"),
    "thing": ("a colleague", "my invoices", "the calendar", "a seat", "patient reminders", "the monthly reports"),
    "when": ("today", "last week", "before the renewal", "since the update", "on Monday", "two days ago"),
}

Call = Callable[[str], Awaitable[object]]


def texts(seed: int, *, paragraphs: bool) -> Iterator[str]:
    """Distinct support messages: one short question each, or with `paragraphs` up to five sentences."""
    chance = random.Random(seed)

    def fill(template: str) -> str:
        words = {name: chance.choice(options) for name, options in _WORDS.items()}
        return template.format(**words, number=chance.randrange(1000, 10_000))

    for number in count():
        parts = [chance.choice(_OPENINGS)] if chance.random() < 0.4 else []
        parts.append(fill(chance.choice(_ASKS)))
        if paragraphs:
            parts += [fill(chance.choice(_MORE)) for _ in range(chance.choice((0, 0, 1, 2, 4)))]
        yield f"{' '.join(parts)} ({number})"


async def load(call: Call, source: Iterator[str], *, callers: int, seconds: float) -> tuple[float, float]:
    """Texts a second and the median of a call in ms, of callers who send their next text when the last is answered."""
    times: list[float] = []
    started = time.perf_counter()

    async def caller() -> None:
        while (began := time.perf_counter()) < started + seconds:
            await call(next(source))
            times.append(time.perf_counter() - began)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return len(times) / (time.perf_counter() - started), percentile(sorted(times), 0.5) * 1e3


async def compare(place: str, call: Call, bare: SentenceTransformerEncoder, seconds: float) -> None:
    """Print one line for short questions and one for messages of every length."""
    exact = bare.model

    async def encode(text: str) -> object:
        return exact.encode(text, normalize_embeddings=True, show_progress_bar=False)

    for kind in ("question", "paragraphs"):
        alone, merged, lone = [], [], []
        source = texts(1, paragraphs=kind == "paragraphs")
        await load(call, source, callers=CALLERS, seconds=1)
        for _ in range(ROUNDS):
            alone.append(await load(encode, source, callers=1, seconds=seconds))
            merged.append(await load(call, source, callers=CALLERS, seconds=seconds))
            lone.append(await load(call, source, callers=1, seconds=seconds))
        print(row(place, kind, alone, merged, [p50 for _, p50 in lone]), flush=True)


HEADER = """| place | texts | bare texts/s | 32 callers texts/s | ratio | bare p50 ms | one caller p50 ms | added ms |
|---|---|---|---|---|---|---|---|"""

Runs = list[tuple[float, float]]


def row(place: str, kind: str, alone: Runs, merged: Runs, lone: list[float]) -> str:
    """One line; rates, latencies and the ratio are medians over rounds."""
    bare_rate, bare_p50 = (statistics.median(side) for side in zip(*alone, strict=True))
    rate = statistics.median(rate for rate, _ in merged)
    ratio = statistics.median(many / one for (many, _), (one, _) in zip(merged, alone, strict=True))
    p50 = statistics.median(lone)
    cells = [place, kind, f"{bare_rate:.1f}", f"{rate:.1f}", f"{ratio:.2f}", f"{bare_p50:.1f}", f"{p50:.1f}"]
    return f"| {' | '.join(cells)} | {p50 - bare_p50:+.1f} |"


def bare_encoder() -> SentenceTransformerEncoder:
    """The baseline: the library's model in fp32."""
    encoder = SentenceTransformerEncoder(precision=Precision.FP32)
    encoder.load()
    return encoder


def describe_batches(embedder: SentenceTransformerEmbedder, bare: SentenceTransformerEncoder) -> None:
    """Print how near the vectors are to the library's own, and what grouping by length saves."""
    sample = list(islice(texts(2, paragraphs=True), 512))
    encoder = embedder.encoder
    batches = [sample[start : start + CALLERS] for start in range(0, len(sample), CALLERS)]
    encoded = [encoder.encode(batch) for batch in batches]
    ours = np.concatenate([one.vectors for one in encoded])
    exact = bare.model.encode(sample, normalize_embeddings=True, show_progress_bar=False)
    least = float((ours * exact).sum(axis=1).min())
    tokens = sum(sum(one.tokens) for one in encoded)
    ungrouped = sum(len(one.tokens) * max(one.tokens) for one in encoded)
    passes = sum(len(by_length(one.tokens, overhead=encoder.costs.overhead)) for one in encoded)
    padding = sum(one.padding for one in encoded)
    print(
        f"\n{len(sample)} messages, {tokens} tokens, batches of {CALLERS}: {padding / tokens:.0%} padding in "
        f"{passes / len(batches):.1f} passes a batch ({ungrouped / tokens - 1:.0%} in one). Precision "
        f"{encoder.precision}, {torch.get_num_threads()} thread(s): least cosine to fp32 encode {least:.6f} "
        f"(bf16 needs {MIN_COSINE})\n"
    )


async def in_process(seconds: float) -> None:
    embedder = SentenceTransformerEmbedder(cache_entries=0)
    await embedder.load()
    bare = bare_encoder()
    describe_batches(embedder, bare)
    print(HEADER)
    await compare("in process", lambda text: embedder.embed([text]), bare, seconds)
    await embedder.close()


async def through_handle(seconds: float) -> None:
    import ray
    from ray import serve

    from deployments.handles import EmbedderHandle

    ray.init(log_to_driver=False)
    handle = EmbedderHandle(serve.get_deployment_handle("embedder", app_name="rapport"), model_id=BUNDLED)
    await compare("handle", lambda text: handle.embed([text]), bare_encoder(), seconds)


async def over_http(url: str, seconds: float) -> None:
    bare = bare_encoder().model
    for kind in ("question", "paragraphs"):
        source = texts(3, paragraphs=kind == "paragraphs")
        alone, merged, lone = [], [], []

        async def encode(text: str) -> object:
            return bare.encode(text, normalize_embeddings=True, show_progress_bar=False)

        for _ in range(ROUNDS):
            alone.append(await load(encode, source, callers=1, seconds=seconds))
            requests = [embeddings_request(text) for text in islice(source, 2048)]
            many = drive(url, requests, connections=CALLERS, seconds=seconds)
            one = drive(url, requests[::-1], connections=1, seconds=seconds)
            if many["errors"] or one["errors"]:
                raise RuntimeError(f"{many['errors']:.0f} and {one['errors']:.0f} requests failed")
            merged.append((many["requests_per_s"], many["p50_ms"]))
            lone.append(one["p50_ms"])
        print(row("HTTP", kind, alone, merged, lone), flush=True)


def embeddings_request(text: str) -> dict[str, Any]:
    body = json.dumps({"model": BUNDLED, "input": text})
    return {"method": "POST", "path": "/v1/embeddings", "headers": JSON, "body": body}


def measure(seconds: float) -> None:
    """Print the table of `bench/README.md`; every part runs in a process of its own with a replica's threads."""
    part(["process", str(seconds)], {})
    os.environ["RAPPORT_EMBEDDING__CACHE_ENTRIES"] = "0"
    with running_system(50) as (url, _, environment):
        running = json.loads((Path(environment["RAPPORT_STATE_DIR"]) / "running.json").read_text())
        part(["handle", str(seconds)], {**environment, **running["environment"]})
        part(["http", str(seconds), url], environment)


def part(arguments: list[str], environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "bench.embedder", *arguments]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **environment, **THREADS}, check=True)


def main(place: str, seconds: str, url: str = "") -> None:
    parts = {"process": in_process, "handle": through_handle}
    asyncio.run(over_http(url, float(seconds)) if place == "http" else parts[place](float(seconds)))


if __name__ == "__main__":
    main(*sys.argv[1:])
