"""Whether the engines that the settings name exist and have what they need: asked before anything starts."""

from __future__ import annotations

from pathlib import Path

from models.classification.engines import engines as classifiers
from models.embedding.engines import engines as embedders
from models.errors import ConfigurationError
from models.llm.engines import VLLM, engine_of, variant_of
from models.llm.engines import names as language_models
from models.llm.factory import check_prices
from models.llm.pricing import load_prices
from models.llm.script import Script
from models.settings import LanguageModelSettings, Settings, config_file

#: Engines that send a bill.
OUTSIDE = frozenset({"openai", "azure_openai"})


def check_engines(settings: Settings) -> None:
    """Raises `ConfigurationError` naming the setting and the choices."""
    _check_chain(settings.language_model)
    _check("embedding.engine", settings.embedding.engine, embedders.names())
    _check("classification.engine", settings.classification.engine, classifiers.names())


def _check(setting: str, chosen: str, known: tuple[str, ...]) -> None:
    if chosen not in known:
        raise ConfigurationError(f"{setting}: there is no engine {chosen!r}; choose one of: {', '.join(known)}")


def _check_chain(settings: LanguageModelSettings) -> None:
    """Every engine of the chain once, with a variant only where one means something here."""
    chain = (settings.engine, *settings.fallbacks)
    for place, name in enumerate(chain):
        setting = "language_model.fallbacks" if place else "language_model.engine"
        engine = engine_of(name)
        _check(setting, engine, language_models())
        if name in chain[:place]:
            raise ConfigurationError(f"{setting}: {name!r} is in the chain already")
        if engine == "scripted":
            try:
                Script.parse(variant_of(name))
            except ConfigurationError as exc:
                raise ConfigurationError(f"{setting}: {exc}") from exc
        elif variant_of(name):
            raise ConfigurationError(f"{setting}: {engine!r} takes no variant here")
        if engine == VLLM:
            _check_model(settings.vllm.model, setting)
    outside = [name for name in chain if engine_of(name) in OUTSIDE]
    check_prices(settings, outside, load_prices(config_file(settings.prices)))


def _check_model(model: str, setting: str) -> None:
    if not model:
        raise ConfigurationError(f"{setting}: the engine vllm needs language_model.vllm.model")
    # A name on a hub has one slash at most, and never one at its beginning.
    if (model.startswith((".", "/", "~")) or model.count("/") > 1) and not Path(model).is_dir():
        raise ConfigurationError(f"language_model.vllm.model: there is no folder {model!r} on this machine")
