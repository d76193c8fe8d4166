"""Batch generation on a real local Ray: order, errors by row, patience with a busy model, and a model kept busy."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from batch import generate as command
from batch.columns import TEXTS, table
from batch.generate import Summary, check_model, generate
from batch.stages.texts import GenerateTexts, GenerationOptions
from models.errors import ConfigurationError, ModelRateLimited, ModelRefused, ModelUnavailable, Overloaded
from models.llm.types import LanguageModelReply, LanguageModelRequest, Usage
from models.resilience.deadline import Deadline


class EchoModel:
    """Answers with the question's last word; the first word says what goes wrong before that."""

    def __init__(self, together: int) -> None:
        self._asked: dict[str, int] = {}
        self._barrier = asyncio.Barrier(together)

    async def generate(self, request: LanguageModelRequest, *, deadline: Deadline) -> LanguageModelReply:
        question = request.question
        self._asked[question] = tries = self._asked.get(question, 0) + 1
        trouble = question.split(" ")[0]
        if trouble == "together":
            async with deadline.enforce("waiting for the others"):
                await self._barrier.wait()
        if trouble == "busy" and tries < 3:
            raise (Overloaded if tries == 1 else ModelRateLimited)("later").with_retry_after(0.01)
        if trouble == "always-busy":
            raise Overloaded("later").with_retry_after(0.05)
        if trouble == "refused":
            raise ModelRefused("nothing to say")
        if trouble == "away":
            raise ModelUnavailable("it is away" if tries == 1 else "it was asked twice")
        if trouble == "broken":
            raise ZeroDivisionError("jane@example.com")
        settings = [request.model, str(request.max_tokens), json.dumps(request.response_schema), request.account]
        return LanguageModelReply(
            text=question.split(" ")[-1] if trouble != "half" else "\ud83d",
            engine="echo",
            model=" ".join(settings),
            usage=Usage(prompt_tokens=3, completion_tokens=2, cached_tokens=1),
            cost_usd=0.5 if trouble != "unpriced" else None,
            degraded=trouble == "degraded",
        )


async def echo(together: int) -> EchoModel:
    return EchoModel(together)


async def nowhere() -> EchoModel:
    raise ModelUnavailable("the graph has no deployment language_model")


def prompts(*questions: str) -> str:
    return "".join(json.dumps({"id": f"r{number}", "prompt": one}) + "\n" for number, one in enumerate(questions))


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def job(tmp_path: Path, said: list[str], local_ray: None) -> Any:
    def run(
        content: str | bytes, *, together: int = 1, build: Any = None, **options: Any
    ) -> tuple[list[dict[str, Any]], Summary]:
        source, target = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
        source.write_bytes(content if isinstance(content, bytes) else content.encode())
        summary = generate(
            source,
            target,
            build or partial(echo, together),
            GenerationOptions(**{"concurrency": 4, "timeout_s": 20.0, **options}),
            say=said.append,
        )
        return [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()], summary

    return run


def test_every_row_gets_its_text_in_its_order(job: Any, said: list[str]) -> None:
    questions = [f"say {number}" for number in range(70)]  # three shards
    schema = {"type": "object"}
    rows, summary = job(
        prompts(*questions), model="vllm", max_tokens=9, response_schema=schema, account="campaign:spring"
    )
    assert [(row["id"], row["line"], row["text"]) for row in rows] == [
        (f"r{number}", number + 1, str(number)) for number in range(70)
    ]
    assert rows[0] == {
        "id": "r0",
        "line": 1,
        "text": "0",
        "engine": "echo",
        "model": 'vllm 9 {"type": "object"} campaign:spring',
        "degraded": False,
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "cached_tokens": 1},
        "cost_usd": 0.5,
        "error": None,
    }
    assert (summary.rows, summary.completion_tokens, summary.cost_usd, summary.errors) == (70, 140, 35.0, {})
    assert len(said) == 3
    assert said[-1].startswith("of 70 lines: 70 rows; 140 tokens in ")


def test_messages_are_a_conversation(job: Any) -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    rows, _ = job(json.dumps({"id": 7, "messages": messages}))
    assert [(row["id"], row["text"]) for row in rows] == [(7, "c")]


def test_rows_of_a_batch_are_generated_at_the_same_time(job: Any) -> None:
    rows, _ = job(prompts(*(f"together {number}" for number in range(8))), together=4)
    assert [row["text"] for row in rows] == [str(number) for number in range(8)]
    rows, summary = job(prompts(*(f"together {number}" for number in range(4))), together=5, timeout_s=0.3)
    assert summary.errors == {"DEADLINE_EXCEEDED": 4}, "no more at the same time than were asked for"


def test_a_busy_model_is_waited_for_and_other_failures_are_told(job: Any) -> None:
    questions = ["busy 1", "refused 2", "away 3", "broken 4", "half 5", "unpriced 6", "degraded 7", "always-busy 8"]
    rows, summary = job(prompts(*questions), timeout_s=1.0)
    assert [row["text"] for row in rows] == ["1", None, None, None, "?", "6", "7", None]
    assert [row["error"] and row["error"]["code"] for row in rows] == [
        None,
        "MODEL_REFUSED",
        "MODEL_UNAVAILABLE",
        "INTERNAL",
        None,
        None,
        None,
        "OVERLOADED",
    ]
    assert rows[2]["error"]["message"] == "it is away", "the chain has tried again already"
    assert "jane" not in json.dumps(rows)
    assert (summary.degraded, summary.without_price) == (1, 1)
    line = summary.line(2.0)
    assert "8 tokens in 2.0 s (4.0/s)" in line
    assert "1.500000 USD and 1 rows without a known price" in line
    assert "4 errors (" in line


def test_a_row_that_failed_is_in_the_sum_of_what_was_paid() -> None:
    class Refusing:
        async def generate(self, request: LanguageModelRequest, *, deadline: Deadline) -> LanguageModelReply:
            error = ModelRefused("nothing to say")
            error.cost_usd = 0.25
            raise error

    async def build() -> Refusing:
        return Refusing()

    messages = json.dumps([{"role": "user", "content": "a"}])
    rows = GenerateTexts(build, GenerationOptions())(table([{"key": '"r1"', "line": 1, "messages": messages}], TEXTS))
    summary = Summary()
    summary.add(rows.to_pylist()[0])
    assert (summary.errors, summary.cost_usd, summary.without_price) == ({"MODEL_REFUSED": 1}, 0.25, 0)


BAD_LINES: list[tuple[bytes, Any, str]] = [
    (b"nonsense", None, "Invalid JSON"),
    (b'{"id": "b", "prompt": "x"', None, "at column 25"),
    (b'["id"]', None, "should be an object"),
    (b'{"prompt": "x"}', None, "id: Field required"),
    (b'{"id": true, "prompt": "x"}', None, "id"),
    (b'{"id": "c"}', "c", "either `prompt` or `messages`"),
    (b'{"id": "d", "prompt": "x", "messages": [{"role": "user", "content": "x"}]}', "d", "either `prompt`"),
    (b'{"id": 5, "prompt": ""}', 5, "prompt: "),
    (b'{"id": "e", "prompt": 1}', "e", "prompt: Input should be a valid string"),
    (b'{"id": "f", "messages": []}', "f", "messages: "),
    (b'{"id": "g", "messages": [{"role": "robot", "content": "x"}]}', "g", "messages.0.role: "),
    (b'{"id": "h", "prompt": "x", "colour": "red"}', "h", "colour: Extra inputs"),
    (b'{"id": "i", "prompt": "\\ud83d"}', "i", "Invalid JSON"),
    (b'{"id": "j", "prompt": "\xff"}', None, "Invalid JSON"),
]


def test_a_bad_line_is_named_and_the_others_go_on(job: Any, said: list[str]) -> None:
    good = b'\xef\xbb\xbf{"id": "first", "prompt": "say first"}\r\n\n   \n'
    last = b'{"id": "last", "prompt": "say last"}'  # no line feed
    rows, summary = job(good + b"\n".join(line for line, _, _ in BAD_LINES) + b"\n" + last)
    assert [row["id"] for row in rows] == ["first", *(identity for _, identity, _ in BAD_LINES), "last"]
    assert [row["text"] for row in rows] == ["first", *(None for _ in BAD_LINES), "last"]
    for number, (row, (_, _, named)) in enumerate(zip(rows[1:-1], BAD_LINES, strict=True), start=4):
        assert row["error"]["code"] == "INVALID_REQUEST"
        assert row["error"]["message"].startswith(f"line {number}: "), row
        assert named in row["error"]["message"], row
        assert row["error"]["message"] in said
    assert rows[-1]["line"] == 4 + len(BAD_LINES)
    assert summary.errors == {"INVALID_REQUEST": len(BAD_LINES)}


def test_without_a_model_every_row_says_so(job: Any) -> None:
    rows, _ = job(prompts("say 1", "say 2"), build=nowhere)
    assert [row["error"]["code"] for row in rows] == ["MODEL_UNAVAILABLE"] * 2


def test_an_empty_file_has_an_empty_result(job: Any) -> None:
    rows, summary = job("")
    assert (rows, summary.rows) == ([], 0)


def test_a_file_that_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    options = GenerationOptions()
    with pytest.raises(ConfigurationError, match=r"rows\.jsonl: cannot be read"):
        generate(source, tmp_path / "out.jsonl", nowhere, options, say=print)
    source.write_text(prompts("say 1"))
    with pytest.raises(ConfigurationError, match="cannot be written"):
        generate(source, tmp_path / "no" / "out.jsonl", nowhere, options, say=print)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--input", "rows.jsonl"], "--output"),
        (["--input", "rows.jsonl", "--output", "o", "--concurrency", "0"], "--concurrency"),
        (["--input", "rows.jsonl", "--output", "o", "--max-tokens", "many"], "--max-tokens"),
        (["--input", "rows.jsonl", "--output", "o", "--account", "spring"], "campaign:NAME"),
        (["--input", "nothing.jsonl", "--output", "o"], "nothing.jsonl"),
        (["--input", "rows.jsonl", "--output", "rows.jsonl"], "is the input"),
        (["--input", "rows.jsonl", "--output", "o", "--schema", "rows.jsonl"], "no JSON object"),
        (["--input", "rows.jsonl", "--output", "o", "--schema", "nothing.json"], "nothing.json"),
        (["--input", "rows.jsonl", "--output", "o", "--schema", "bad.json"], "is not JSON"),
    ],
)
def test_wrong_arguments_are_named_before_anything_starts(
    arguments: list[str],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("no cluster for wrong input")

    monkeypatch.setattr(ray, "init", refused)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("[]")
    (tmp_path / "bad.json").write_text("{")
    try:
        code = command.main(arguments)
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    assert code == command.WRONG_INPUT
    printed = capsys.readouterr()
    assert named in printed.out + printed.err


@pytest.mark.parametrize("model", ["extractive", "scripted", "scripted:tokens=3"])
def test_a_model_of_the_graph_is_taken(model: str) -> None:
    check_model(model, ["extractive", "scripted:tokens=20"])


@pytest.mark.parametrize("model", ["gpt-4o", "extractive:x", "vllm"])
def test_a_model_that_the_graph_has_not_is_told_before_any_row(model: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--model: .*it has: extractive, scripted:tokens=20"):
        check_model(model, ["extractive", "scripted:tokens=20"])
