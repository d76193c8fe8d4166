"""The table of classifiers by the name used in `classification.engine`."""

from __future__ import annotations

from typing import Protocol, Self

from models.classification.protocol import Classifier
from models.embedding.protocol import Embedder
from models.registry import Registry
from models.settings import ClassificationSettings


class ClassificationEngine(Classifier, Protocol):
    """A classifier that the table can name: it knows how to build itself from the settings."""

    @classmethod
    def from_settings(cls, settings: ClassificationSettings, embedder: Embedder) -> Self:
        """Raises `ConfigurationError` naming the file or the setting that is wrong."""
        ...

    async def load(self) -> None:
        """Make the first call as fast as the next. Raises `ModelUnavailable`."""
        ...


engines: Registry[ClassificationEngine] = Registry("classification engine")
engines.register("exemplars", "models.classification.exemplars:ExemplarClassifier")


def build_classifier(settings: ClassificationSettings, embedder: Embedder) -> ClassificationEngine:
    """The configured engine, still to be loaded. Raises `ConfigurationError` naming what is missing or unknown."""
    return engines.load(settings.engine).from_settings(settings, embedder)
