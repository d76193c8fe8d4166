"""What vLLM would be told on a GPU, checked against vLLM's own arguments where there is no GPU."""

from __future__ import annotations

import dataclasses
from typing import Any

import yaml
from vllm.engine.arg_utils import AsyncEngineArgs

from deployments.vllm_server import llm_config
from models.settings import VLLMSettings, load_settings
from tests.serve.conftest import ROOT


def gpu_settings(**changes: Any) -> VLLMSettings:
    config = yaml.safe_load((ROOT / "serve_config.gpu.yaml").read_text())
    arguments = next(one["args"] for one in config["applications"] if one["name"] == "rapport")
    return load_settings(arguments, env_file=None).language_model.vllm.model_copy(update=changes)


def test_the_gpu_config_takes_one_gpu_and_names_arguments_that_exist() -> None:
    engine: Any = llm_config(gpu_settings(), gpu=True).get_engine_config()
    assert engine.placement_bundles == [{"GPU": 1}]
    told = engine.get_initialization_kwargs()
    assert set(told) <= {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    assert told["model"] == "Qwen/Qwen3-4B-Instruct-2507"
    assert told["enable_prefix_caching"] is True


def test_tensor_parallelism_takes_as_many_gpus() -> None:
    engine: Any = llm_config(gpu_settings(tensor_parallel_size=4), gpu=True).get_engine_config()
    assert engine.placement_bundles == [{"GPU": 1}] * 4


def test_adapters_are_loaded_from_where_the_settings_say() -> None:
    config: Any = llm_config(gpu_settings(lora_path="s3://bucket/adapters", max_loras=2, max_lora_rank=32), gpu=True)
    assert config.lora_config.dynamic_lora_loading_path == "s3://bucket/adapters"
    assert config.lora_config.max_num_adapters_per_replica == 2
    assert config.get_engine_config().get_initialization_kwargs()["max_lora_rank"] == 32


def test_a_processor_gets_eager_mode_a_bounded_cache_and_no_gpu() -> None:
    config: Any = llm_config(VLLMSettings(model="folder", kv_cache_mib=64, threads=1), gpu=False)
    told = config.get_engine_config().get_initialization_kwargs()
    assert (told["enforce_eager"], told["kv_cache_memory_bytes"]) == (True, 64 << 20)
    assert config.get_engine_config().placement_bundles == [{"CPU": 0.4}]
