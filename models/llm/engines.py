"""The table of language-model engines by the name used in `language_model.engine` and in a request's `model`.

A name is an engine of the table, alone or with a variant after the first colon: `scripted:tokens=20`, `vllm:ADAPTER`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

from models.embedding.protocol import Embedder
from models.errors import ConfigurationError
from models.llm.protocol import Engine
from models.registry import Registry
from models.settings import LanguageModelSettings


class LanguageModelEngine(Engine, Protocol):
    """An engine that lives in this process: it knows how to build itself from the settings."""

    @classmethod
    def from_settings(cls, settings: LanguageModelSettings, embedder: Embedder) -> Self:
        """Raises `ConfigurationError` naming the setting that is missing."""
        ...


engines: Registry[LanguageModelEngine] = Registry("language-model engine")
engines.register("extractive", "models.llm.extractive:ExtractiveLanguageModel")
engines.register("openai", "models.llm.openai:OpenAILanguageModel", install_hint="pip install openai")
engines.register("azure_openai", "models.llm.azure_openai:AzureOpenAILanguageModel", install_hint="pip install openai")
engines.register("scripted", "models.llm.scripted:ScriptedLanguageModel")

#: A deployment of the same graph: whoever builds the graph supplies its object.
VLLM = "vllm"
#: Engines whose names may carry a variant; for others one is a mistake.
WITH_VARIANTS = frozenset({"scripted", VLLM})


def names() -> tuple[str, ...]:
    """Every name the setting may hold, without variants."""
    return tuple(sorted((*engines, VLLM)))


def engine_of(name: str) -> str:
    """The engine that a name with or without a variant means; it need not exist."""
    return name.partition(":")[0]


def variant_of(name: str) -> str:
    """What stands after the first colon of a name; empty without one."""
    return name.partition(":")[2]


def served_by(model: str, names: Sequence[str]) -> str | None:
    """Which of the configured names a request's `model` means: the same one, or the engine it is a variant of."""
    if model in names:
        return model
    if variant_of(model) and engine_of(model) not in WITH_VARIANTS:
        return None
    return next((name for name in names if engine_of(name) == engine_of(model)), None)


def build_engine(name: str, settings: LanguageModelSettings, embedder: Embedder) -> Engine:
    """The engine of this process that `name` means.

    Raises `ConfigurationError` naming what is missing, unknown or malformed, and for `vllm`, which is no object of this
    process.
    """
    engine = _known(name)
    if engine == VLLM:
        raise ConfigurationError("the vllm engine is a deployment of the graph; it cannot be built here")
    chosen = settings.model_copy(update={"engine": name})
    return engines.load(engine).from_settings(chosen, embedder)


def _known(name: str) -> str:
    engine = engine_of(name)
    if engine not in names():
        raise ConfigurationError(f"unknown language-model engine {engine!r}; choose one of: {', '.join(names())}")
    if variant_of(name) and engine not in WITH_VARIANTS:
        raise ConfigurationError(f"the language-model engine {engine!r} has no variants; name it alone, not {name!r}")
    return engine
