"""vLLM's own replica: Ray's LLM server with one more door, through which plain data comes in and goes out.

Imported only where the graph is built with the engine `vllm`, because `ray.serve.llm` needs vLLM installed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from pydantic import ValidationError
from ray.serve import Application
from ray.serve.llm import LLMConfig, LoraConfig, build_llm_deployment
from ray.serve.llm.deployment import LLMServer
from ray.serve.llm.openai_api_models import ChatCompletionRequest

from models.errors import UnsupportedByModel
from models.settings import VLLMSettings

#: The deployment's name in the graph, and the model's name inside vLLM.
NAME = "vllm"

_ENVIRONMENT = {
    # With vLLM's own tags only tools marked strict keep to their schema; without them a forced call always does.
    "VLLM_ENFORCE_STRICT_TOOL_CALLING": "0",
    "VLLM_NO_USAGE_STATS": "1",
}


class VLLMServer(LLMServer):  # type: ignore[misc]  # an optional library that is not followed
    """Answers chat completions given as JSON objects, so that callers need no vLLM of their own."""

    async def complete(self, body: Mapping[str, Any]) -> AsyncIterator[list[str]]:
        """The answer as JSON documents: chunks in groups that arrived together, or the one completion, or an error.

        Closing the iterator aborts the request inside the engine.
        """
        try:
            request = ChatCompletionRequest(**body)
        except ValidationError as exc:
            raise UnsupportedByModel("vLLM does not take this request") from exc
        async for answer in await self.chat(request):
            if isinstance(answer, list):
                yield [one if isinstance(one, str) else one.model_dump_json() for one in answer]
            else:
                yield [answer.model_dump_json()]

    async def probe(self) -> None:
        """Return if the engine lives."""
        await self.check_health()


def vllm_application(settings: VLLMSettings, *, gpu: bool) -> Application:
    """The model as a deployment named `vllm`, to be bound into the graph."""
    application: Application = build_llm_deployment(
        llm_config(settings, gpu=gpu),
        deployment_cls=VLLMServer,
        # A second copy of a large model beside the first one may not fit: old replicas leave before new ones come.
        override_serve_options={"name": NAME, "max_surge_percent": 0},
    )
    return application


def llm_config(settings: VLLMSettings, *, gpu: bool) -> LLMConfig:
    """What Ray's LLM server is told; on a processor the model runs eagerly on `threads` cores."""
    engine: dict[str, Any] = {
        "max_model_len": settings.max_model_len,
        "dtype": settings.dtype,
        "max_num_seqs": settings.max_num_seqs,
        "enable_prefix_caching": settings.prefix_caching,
        "enable_auto_tool_choice": True,
        "tool_call_parser": settings.tool_call_parser,
        "enable_prompt_tokens_details": True,
        # Compact JSON costs fewer tokens, and a model that likes white space cannot fill its budget with it.
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
    }
    chosen: dict[str, Any] = {
        "model_loading_config": {"model_id": NAME, "model_source": settings.model},
        "experimental_configs": {"stream_batching_interval_ms": settings.stream_interval_ms},
    }
    if settings.lora_path:
        engine |= {"enable_lora": True, "max_loras": settings.max_loras, "max_lora_rank": settings.max_lora_rank}
        chosen["lora_config"] = LoraConfig(
            dynamic_lora_loading_path=settings.lora_path, max_num_adapters_per_replica=settings.max_loras
        )
    if gpu:
        engine |= {
            "gpu_memory_utilization": settings.gpu_memory_utilization,
            "tensor_parallel_size": settings.tensor_parallel_size,
        }
        environment = {"env_vars": dict(_ENVIRONMENT)}
        return LLMConfig(**chosen, engine_kwargs=engine, accelerator_config={"kind": "gpu"}, runtime_env=environment)
    engine |= {"enforce_eager": True, "kv_cache_memory_bytes": settings.kv_cache_mib << 20}
    return LLMConfig(
        **chosen,
        engine_kwargs=engine,
        accelerator_config={"kind": "cpu"},
        placement_group_config={"bundles": [{"CPU": settings.cpus}]},
        deployment_config={"num_replicas": 1, "ray_actor_options": {"num_cpus": 0}},
        # Without the last two, every engine of a machine takes the first core, or all of them.
        runtime_env={
            "env_vars": {
                **_ENVIRONMENT,
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                "OMP_NUM_THREADS": str(settings.threads),
            }
        },
    )
