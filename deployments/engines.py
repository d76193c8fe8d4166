"""Whether the engines that the settings name exist: asked before anything starts."""

from __future__ import annotations

from models.classification.engines import engines as classifiers
from models.embedding.engines import engines as embedders
from models.errors import ConfigurationError
from models.llm.engines import engines as language_models
from models.settings import Settings


def check_engines(settings: Settings) -> None:
    """Raises `ConfigurationError` naming the setting and the choices."""
    for name, chosen, known in (
        ("language_model.engine", settings.language_model.engine, language_models.names()),
        ("embedding.engine", settings.embedding.engine, embedders.names()),
        ("classification.engine", settings.classification.engine, classifiers.names()),
    ):
        if chosen not in known:
            raise ConfigurationError(f"{name}: there is no engine {chosen!r}; choose one of: {', '.join(known)}")
