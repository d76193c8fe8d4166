"""The table of language-model engines by the name used in `language_model.engine`."""

from __future__ import annotations

from typing import ClassVar, Protocol, Self

from models.embedding.protocol import Embedder
from models.llm.protocol import LanguageModel
from models.llm.types import Capabilities
from models.registry import Registry
from models.settings import LanguageModelSettings


class LanguageModelEngine(LanguageModel, Protocol):
    """A language model that the table can name: it knows how to build itself from the settings."""

    #: Declared by the class, so that they are known without building an engine.
    capabilities: ClassVar[Capabilities]

    @classmethod
    def from_settings(cls, settings: LanguageModelSettings, embedder: Embedder) -> Self:
        """Raises `ConfigurationError` naming the setting that is missing."""
        ...


engines: Registry[LanguageModelEngine] = Registry("language-model engine")
engines.register("extractive", "models.llm.extractive:ExtractiveLanguageModel")
engines.register("openai", "models.llm.openai:OpenAILanguageModel", install_hint="pip install openai")


def build_language_model(settings: LanguageModelSettings, embedder: Embedder) -> LanguageModel:
    """The configured engine. Raises `ConfigurationError` naming what is missing or unknown."""
    return engines.load(settings.engine).from_settings(settings, embedder)


def capabilities_of(engine: str) -> Capabilities:
    """What an engine of the table declares. Raises `ConfigurationError` for an unknown one."""
    return engines.load(engine).capabilities
