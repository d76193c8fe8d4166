"""A bare vLLM engine in a process of its own: the baseline of `bench.vllm`.

Reads one plan a line on stdin (`{"prompts": [...], "concurrency": 8, "max_tokens": 128, "stream": false}`), prints one
result a line (`{"tokens": ..., "seconds": ...}`). No HTTP, no Ray, no JSON between the caller and the engine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import Any


async def serve(arguments: argparse.Namespace) -> None:
    """Build the engine as the deployment builds it, then measure every plan that comes in."""
    from vllm import SamplingParams
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.engine.async_llm import AsyncLLM

    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            model=arguments.model,
            max_model_len=arguments.max_model_len,
            kv_cache_memory_bytes=arguments.kv_cache_mib << 20,
            enforce_eager=True,
            distributed_executor_backend="mp",
            enable_prefix_caching=True,
            max_num_seqs=128,
        )
    )
    tokenizer = engine.get_tokenizer()
    numbers = iter(range(10**9))

    async def one(prompt: str, plan: dict[str, Any]) -> int:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        kind = RequestOutputKind.DELTA if plan["stream"] else RequestOutputKind.FINAL_ONLY
        parameters = SamplingParams(temperature=0.0, max_tokens=plan["max_tokens"], output_kind=kind)
        made = 0
        async for output in engine.generate(text, parameters, request_id=str(next(numbers))):
            made += len(output.outputs[0].token_ids)
        return made

    async def run(plan: dict[str, Any]) -> dict[str, float]:
        waiting = list(reversed(plan["prompts"]))
        made: list[int] = []

        async def caller() -> None:
            while waiting:
                made.append(await one(waiting.pop(), plan))

        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(plan["concurrency"])))
        return {"tokens": sum(made), "seconds": time.perf_counter() - started}

    print(json.dumps({"ready": True}), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await run(json.loads(line))), flush=True)
    engine.shutdown()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--max-model-len", type=int, default=2048)
    parser.add_argument("--kv-cache-mib", type=int, default=256)
    asyncio.run(serve(parser.parse_args()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
