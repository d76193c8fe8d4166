"""Generates one text for every line of a file, with the language model of the running graph.

    python -m batch.generate --input rows.jsonl --output out.jsonl [--concurrency 16] [--model vllm] [--schema s.json]

A line is `{"id": ..., "prompt": "..."}` or `{"id": ..., "messages": [{"role": "user", "content": "..."}]}`. Every line
that is not blank has its line in the output, in the same order: `text` and how it came about, or an `error`. Exit code:
0 every line has its text, 3 some have an error instead, 1 the job broke off, 2 wrong arguments or no running graph.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import RayError

from batch.columns import ERROR, ERROR_CODE, KEY, LINES, Row, table
from batch.engines import Build
from batch.handles import SharedLanguageModel, graph_is_running, shared_language_model
from batch.mapping import prepare_ray_data, streamed
from batch.prompts import shards_of
from batch.stages.prompts import ReadPrompts
from batch.stages.texts import GenerateTexts, GenerationOptions, Generator
from models.errors import ConfigurationError, InvalidRequest, RapportError
from models.llm.engines import served_by
from models.safety.pii import PatternPIIDetector
from models.settings import load_settings
from models.telemetry import configure_logging

OK, BROKE_OFF, WRONG_INPUT, WITH_ERRORS = 0, 1, 2, 3
#: Lines of a shard for every row in flight; the model runs out of rows only at the end of a shard.
LINES_PER_PLACE = 8
SHOWN_PROBLEMS = 20


@dataclass(slots=True, kw_only=True)
class Summary:
    """What has been generated so far."""

    rows: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    degraded: int = 0
    cost_usd: float = 0.0
    without_price: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row) -> None:
        self.rows += 1
        self.cost_usd += row["cost_usd"] or 0.0
        if row[ERROR_CODE]:
            self.errors[row[ERROR_CODE]] += 1
            return
        self.prompt_tokens += row["prompt_tokens"]
        self.completion_tokens += row["completion_tokens"]
        self.degraded += row["degraded"]
        self.without_price += row["cost_usd"] is None

    def line(self, seconds: float) -> str:
        """All of it in one line; tokens are those that were generated."""
        speed = f"{self.completion_tokens} tokens in {seconds:.1f} s ({self.completion_tokens / seconds:.1f}/s)"
        parts = [f"{self.rows} rows", speed]
        unknown = f" and {self.without_price} rows without a known price" if self.without_price else ""
        parts.append(f"{self.cost_usd:.6f} USD{unknown}")
        if self.degraded:
            parts.append(f"{self.degraded} answered by a fallback")
        causes = ", ".join(f"{code} {count}" for code, count in self.errors.most_common())
        parts.append(f"{self.errors.total()} errors" + (f" ({causes})" if causes else ""))
        return "; ".join(parts)


def generate(
    source: Path,
    target: Path,
    build: Build[Generator],
    options: GenerationOptions,
    *,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> Summary:
    """Write a line to `target` for every line of `source`; needs a Ray. What was written before a failure stays.

    Raises `ConfigurationError` naming a file that cannot be read or written.
    """
    shards = shards_of(source, lines=LINES_PER_PLACE * options.concurrency)
    lines = sum(shard["lines"] for shard in shards)
    summary, began = Summary(), clock()
    try:
        file = target.open("w", encoding="utf-8")
    except OSError as exc:
        raise ConfigurationError(f"{target}: cannot be written ({exc.strerror})") from exc
    with file:
        for block in _generated(shards, source, build, options):
            for row in block.to_pylist():
                summary.add(row)
                if row[ERROR_CODE] == InvalidRequest.code and summary.errors[InvalidRequest.code] <= SHOWN_PROBLEMS:
                    say(row[ERROR])
                file.write(json.dumps(output_of(row), ensure_ascii=False) + "\n")
            file.flush()
            say(f"of {lines} lines: {summary.line(max(clock() - began, 1e-9))}")
    return summary


def output_of(row: Row) -> dict[str, Any]:
    """A generated row as the output file shows it."""
    error = {"code": row[ERROR_CODE], "message": row[ERROR]} if row[ERROR_CODE] else None
    usage = {name: row[name] for name in ("prompt_tokens", "completion_tokens", "cached_tokens")}
    shown = ("line", "text", "engine", "model", "degraded", "finish_reason")
    return {
        "id": json.loads(row[KEY] or "null"),
        **{name: row[name] for name in shown},
        "usage": None if error else usage,
        "cost_usd": row["cost_usd"],
        "error": error,
    }


def _generated(
    shards: list[Row], source: Path, build: Build[Generator], options: GenerationOptions
) -> Iterator[pa.Table]:
    tables = [table([shard], LINES) for shard in shards]
    return streamed(tables, (ReadPrompts, (source,)), (GenerateTexts, (build, options)))


async def _shared() -> SharedLanguageModel:
    return shared_language_model()


async def _engines() -> list[str]:
    try:
        return await shared_language_model().engines()
    except RapportError as exc:
        raise ConfigurationError(f"the graph's language model does not answer ({exc.code})") from exc


def check_model(model: str, engines: Sequence[str]) -> None:
    """Raises `ConfigurationError` if the running graph has no such engine, before every row would say so."""
    if served_by(model, engines) is None:
        raise ConfigurationError(f"--model: the graph has no {model!r}; it has: {', '.join(engines)}")


async def _spent(account: str) -> str:
    """What an account has cost by the ledger: all its jobs, and rows that failed, too."""
    try:
        return f"{account} has spent {await shared_language_model().spent(account):.6f} USD in all"
    except RapportError as exc:
        return f"what {account} has spent in all is not known ({exc.code})"


def main(argv: list[str] | None = None) -> int:
    """Parse, load, run; the exit code."""
    try:
        settings = load_settings()
        arguments = _parse(argv)
        configure_logging(settings.log_level, redact=PatternPIIDetector().redact)
        source, target = arguments.input.resolve(), arguments.output.resolve()
        if source == target:
            raise ConfigurationError(f"--output: {target} is the input")
        shards_of(source, lines=1_000_000)
        options = GenerationOptions(
            model=arguments.model,
            max_tokens=arguments.max_tokens or settings.language_model.max_tokens,
            response_schema=_schema(arguments.schema),
            account=arguments.account or "",
            timeout_s=arguments.timeout,
            concurrency=arguments.concurrency,
        )
        ray.init(address=arguments.address, log_to_driver=False)
        if not graph_is_running():
            raise ConfigurationError("the graph does not run on this cluster: start it with `make serve`")
        if arguments.model:
            check_model(arguments.model, asyncio.run(_engines()))
    except ConfigurationError as exc:
        _say(str(exc))
        return WRONG_INPUT
    except ConnectionError:
        _say("there is no running cluster: start it with `make serve`, or use `make generate`")
        return WRONG_INPUT
    prepare_ray_data(cpus=arguments.cpus)
    try:
        summary = generate(source, target, _shared, options, say=_say)
        if options.account:
            _say(asyncio.run(_spent(options.account)))
    except ConfigurationError as exc:
        _say(str(exc))
        return WRONG_INPUT
    except (RayError, OSError) as exc:
        _say(f"broke off ({type(exc).__name__}); what was generated so far is in {target}")
        return BROKE_OFF
    finally:
        ray.shutdown()
    _say(f"written to {target}")
    return WITH_ERRORS if summary.errors else OK


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m batch.generate", description="Generate one text a line of a file.")
    parser.add_argument("--input", type=Path, required=True, help="JSON lines with `id`, and `prompt` or `messages`")
    parser.add_argument("--output", type=Path, required=True, help="JSON lines, one for each of the input")
    parser.add_argument("--concurrency", type=_from_to(1, 400), default=16, help="rows in flight (default 16)")
    parser.add_argument("--max-tokens", type=_from_to(1, 1_000_000), help="default: setting language_model.max_tokens")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for one row (default 120)")
    parser.add_argument("--model", default="", help="one engine by name (default: the chain with its fallbacks)")
    parser.add_argument("--schema", type=Path, help="a JSON schema that every text must satisfy")
    parser.add_argument("--account", type=_account, help="what the cost is summed under: campaign:NAME")
    parser.add_argument("--address", default="auto", help="the Ray cluster (default: RAY_ADDRESS, or the one running)")
    parser.add_argument("--cpus", type=float, default=1.0, help="processors that Ray Data may use (default 1)")
    return parser.parse_args(argv)


def _from_to(least: int, most: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most:,}")
        return int(text)

    return whole_number


def _account(text: str) -> str:
    if not re.fullmatch(r"[a-z]+:[A-Za-z0-9_-]{1,64}", text):
        raise argparse.ArgumentTypeError("must look like campaign:NAME")
    return text


def _schema(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigurationError(f"--schema: {path} cannot be read ({exc.strerror})") from exc
    except ValueError as exc:
        raise ConfigurationError(f"--schema: {path} is not JSON") from exc
    if not isinstance(schema, dict):
        raise ConfigurationError(f"--schema: {path} holds no JSON object")
    return schema


def _say(text: str) -> None:
    print(f"  generate: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
