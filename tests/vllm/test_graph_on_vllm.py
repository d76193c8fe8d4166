"""The whole graph answers with a model that vLLM runs: through the public API, from a batch job, and after faults.

The weights are random, so what is said is nonsense; that it is said, streamed, shaped, counted, cancelled and survived
is what these tests are about. Order matters: the last tests kill engines.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import openai
import psutil
import pytest

from tests.serve.conftest import ROOT, System
from tests.vllm.conftest import STARTUP_S, engine_processes

pytestmark = pytest.mark.timeout(STARTUP_S)

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "people": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "people"],
    "additionalProperties": False,
}


def ask(client: openai.OpenAI, text: str = "Write about rain.", **more: Any) -> Any:
    arguments = {"model": "vllm", "max_tokens": 24, "temperature": 0.0, **more}
    return client.chat.completions.create(messages=[{"role": "user", "content": text}], **arguments)


def metric(system: System, name: str) -> float:
    """The sum over all replicas of a metric, as operators read it."""
    page = httpx.get(f"{system.url}/metrics", timeout=30).text
    lines = [line for line in page.splitlines() if line.startswith(name) and line[len(name)] in "{ "]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def eventually(condition: Callable[[], bool], what: str, timeout_s: float = 180.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"{what} did not come true in {timeout_s} s"
        threading.Event().wait(0.5)  # between two questions to another process; nothing here can wake us


def work_of(system: System, call: Callable[[], object]) -> float:
    """Processor seconds that all engines spend on a call, until they are at rest again."""
    workers = engine_processes(system, "VLLM::Worker")

    def spent() -> float:
        return float(sum(worker.cpu_times().user for worker in workers))

    def at_rest() -> bool:
        shares = [worker.cpu_percent(interval=1.0) for worker in workers]
        return bool(max(shares) < 30)

    eventually(at_rest, "engines at rest")
    before = spent()
    call()
    eventually(at_rest, "engines at rest again")
    return spent() - before


def answers(client: openai.OpenAI) -> bool:
    try:
        return bool(ask(client).choices[0].message.content)
    except openai.APIError:
        return False


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    assert {"vllm", "extractive", "rapport", "all-minilm-l6-v2"} <= {model.id for model in client.models.list()}


def test_a_completion_counts_its_tokens(client: openai.OpenAI) -> None:
    reply = ask(client)
    assert reply.choices[0].message.content
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.completion_tokens == 24
    assert reply.usage.prompt_tokens > 5
    assert reply.model == "vllm"


def test_a_stream_says_what_the_whole_reply_says(client: openai.OpenAI) -> None:
    whole = ask(client)
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert len(chunks) > 3
    assert chunks[-1].usage.completion_tokens == 24


def test_json_output_fits_its_schema(client: openai.OpenAI) -> None:
    format_ = {"type": "json_schema", "json_schema": {"name": "visit", "strict": True, "schema": SCHEMA}}
    reply = ask(client, "Where to, and how many?", response_format=format_, max_tokens=200)
    jsonschema.validate(json.loads(reply.choices[0].message.content), SCHEMA)


def test_a_named_tool_is_called(client: openai.OpenAI) -> None:
    tool = {"type": "function", "function": {"name": "book", "description": "Book a visit.", "parameters": SCHEMA}}
    choice = {"type": "function", "function": {"name": "book"}}
    reply = ask(client, "Book it.", tools=[tool], tool_choice=choice, max_tokens=200)
    call = reply.choices[0].message.tool_calls[0]
    assert call.function.name == "book"
    jsonschema.validate(json.loads(call.function.arguments), SCHEMA)
    assert reply.choices[0].finish_reason == "tool_calls"


def test_more_text_than_the_window_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, "rain " * 4000)
    assert refused.value.code == "context_length_exceeded"


def test_a_schema_that_is_none_is_refused(client: openai.OpenAI) -> None:
    broken = {"type": "json_schema", "json_schema": {"name": "visit", "schema": {"type": "nonsense"}}}
    with pytest.raises(openai.BadRequestError):
        ask(client, response_format=broken)


def test_the_assistant_never_passes_nonsense_on(client: openai.OpenAI) -> None:
    """A reply without a verbatim quote from an article is no answer, whatever the model says."""
    completion: Any = client.chat.completions.create(
        model="rapport", messages=[{"role": "user", "content": "How do I invite a colleague to our clinic?"}]
    )
    assert completion.model_extra["rapport"]["outcome"] == "no_answer"
    assert not completion.choices[0].message.annotations


def test_a_client_that_leaves_ends_the_models_work(vllm_system: System, client: openai.OpenAI) -> None:
    """Measured where the work is done: the processor time of the engines' own processes."""
    whole = work_of(vllm_system, lambda: ask(client, max_tokens=1500))

    def leave() -> None:
        stream = ask(client, stream=True, max_tokens=1500)
        assert [next(stream) for _ in range(3)]
        stream.close()

    assert work_of(vllm_system, leave) < whole / 2


def test_two_engines_share_two_cores(vllm_system: System, client: openai.OpenAI) -> None:
    """Each computes on one thread, may run on either core, and takes part in the work."""
    workers = engine_processes(vllm_system, "VLLM::Worker")
    assert len(workers) == 2
    for worker in workers:
        assert set(worker.cpu_affinity()) == set(psutil.Process().cpu_affinity())
        assert worker.environ()["OMP_NUM_THREADS"] == "1"
    before = [worker.cpu_times().user for worker in workers]
    run_together(lambda: ask(client, max_tokens=256), 16)
    spent = [worker.cpu_times().user - earlier for worker, earlier in zip(workers, before, strict=True)]
    assert min(spent) > sum(spent) / 5


def test_a_batch_job_uses_the_same_model(vllm_system: System, tmp_path: Path) -> None:
    rows = [{"id": f"row-{number}", "prompt": f"Write a line about item {number}."} for number in range(24)]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(json.dumps(row) for row in rows))
    before = metric(vllm_system, "llm_tokens_total")
    command = [sys.executable, "-m", "deployments.local", "--run", "-m", "batch.generate", "--input", str(source)]
    command += ["--output", str(target), "--model", "vllm", "--max-tokens", "16"]
    done = subprocess.run(
        command, cwd=ROOT, env=vllm_system.environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written = [json.loads(line) for line in target.read_text().splitlines()]
    assert {row["id"] for row in written} == {row["id"] for row in rows}
    assert all(row["engine"] == "vllm" and row["text"] and not row["error"] for row in written)
    eventually(lambda: metric(vllm_system, "llm_tokens_total") >= before + 24 * 16, "the count of tokens")


def run_together(work: Callable[[], object], callers: int) -> list[BaseException]:
    """What went wrong with each of them."""
    failures: list[BaseException] = []

    def one() -> None:
        try:
            work()
        except Exception as exc:
            failures.append(exc)

    threads = [threading.Thread(target=one) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert not any(thread.is_alive() for thread in threads), "a request hangs"
    return failures


@pytest.mark.parametrize("victim", ["VLLM::EngineCore", "ray::ServeReplica:rapport:vllm"])
def test_later_requests_are_answered_after_a_kill_under_load(
    vllm_system: System, client: openai.OpenAI, victim: str
) -> None:
    eventually(lambda: len(engine_processes(vllm_system, "VLLM::EngineCore")) >= 2, "two engines")
    doomed = engine_processes(vllm_system, victim)[0]
    started = threading.Event()

    def work() -> None:
        for _ in ask(client, stream=True, max_tokens=512):
            started.set()

    def kill() -> None:
        started.wait(60)
        os.kill(doomed.pid, 9)

    killer = threading.Thread(target=kill)
    killer.start()
    failures = run_together(work, 8)
    killer.join()
    # Whoever was cut off was told so, in a typed way; nobody got half a reply for a whole one.
    assert all(isinstance(failure, openai.APIError) for failure in failures), failures
    assert len(failures) < 8, "the other engine's callers were cut off too"
    eventually(lambda: answers(client), "an answer after the kill")
    eventually(lambda: len(engine_processes(vllm_system, "VLLM::EngineCore")) >= 2, "a new engine", timeout_s=300)
    eventually(lambda: not run_together(lambda: ask(client), 8), "8 answers out of 8")
