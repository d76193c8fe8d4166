"""The whole graph on one screen: the only place where deployments are bound to each other.

Two applications make up one system. `rapport` (route `/`) holds the conversation graph behind the API ingress.
`context` (route `/api/v1/customers`) is the enrichment orchestrator, which answers HTTP context reads itself: the
replica that receives a read owns its L1 cache, so a hit needs no hop (docs/adr/0002). Both put the same middleware
stack in front of their routes.

This module has no future annotations: Ray reads the builders' annotations at run time.
"""

from typing import Any

import ray
from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve import Application, Deployment

from deployments.classification import ClassifierDeployment
from deployments.conversation import ConversationDeployment
from deployments.embedding import EmbedderDeployment
from deployments.engines import check_engines
from deployments.enrichment import EnrichmentDeployment
from deployments.exposure import check_exposure
from deployments.ingress.deployment import IngressDeployment
from deployments.knowledge import KnowledgeDeployment
from deployments.llm import LanguageModelDeployment
from deployments.safety import SafetyDeployment
from models.llm.engines import VLLM
from models.settings import Settings, load_settings

#: Defaults of every deployment; `serve_config.yaml` tunes each by name.
DEFAULTS: dict[str, Any] = {
    "max_ongoing_requests": 200,
    "ray_actor_options": {"num_cpus": 0.1},
    # Longer than a turn may take, so that what runs can end.
    "graceful_shutdown_timeout_s": 35,
    "max_surge_percent": 100,
}


class AppArgs(BaseModel):
    """Arguments of `serve_config.yaml`: any part of the settings tree but secrets, which come from the environment."""

    model_config = ConfigDict(extra="allow")


def build_app(args: AppArgs) -> Application:
    """The conversation graph behind the API ingress. Raises `ConfigurationError` naming what is wrong."""
    settings = settings_of(args)

    embedder = bind("embedder", EmbedderDeployment, settings)
    safety = bind("safety", SafetyDeployment, settings, embedder)
    classifier = bind("classifier", ClassifierDeployment, settings, embedder)
    knowledge = bind("knowledge", KnowledgeDeployment, settings, embedder)
    language_model = bind("language_model", LanguageModelDeployment, settings, embedder, vllm(settings))
    conversation = bind(
        "conversation", ConversationDeployment, settings, embedder, safety, classifier, knowledge, language_model
    )
    return bind(
        "ingress",
        serve.ingress()(IngressDeployment),
        settings,
        conversation,
        {
            "embedder": embedder,
            "safety": safety,
            "classifier": classifier,
            "knowledge": knowledge,
            "language_model": language_model,
        },
    )


def build_context_app(args: AppArgs) -> Application:
    """The enrichment orchestrator with its own HTTP entrance. Raises `ConfigurationError` naming what is wrong."""
    return bind("enrichment", serve.ingress()(EnrichmentDeployment), settings_of(args))


def bind(name: str, cls: type, *args: Any) -> Application:
    """A deployment of `cls` under its public name, with this system's defaults."""
    deployment: Deployment = serve.deployment(**DEFAULTS, name=name)(cls)
    return deployment.bind(*args)


def vllm(settings: Settings) -> Application | None:
    """The model that vLLM serves, when the chain of language models names it."""
    chosen = settings.language_model
    if VLLM not in (chosen.engine, *chosen.fallbacks):
        return None
    # Only this engine needs vLLM installed.
    from deployments.vllm_server import vllm_application

    device = chosen.vllm.device
    has_gpu = ray.cluster_resources().get("GPU", 0) > 0  # type: ignore[no-untyped-call]  # Ray's own signature
    return vllm_application(chosen.vllm, gpu=device == "gpu" or (device == "auto" and has_gpu))


def settings_of(args: AppArgs) -> Settings:
    """Settings for a graph that may be started. Raises `ConfigurationError` naming what is missing."""
    settings = load_settings(args.model_dump())
    check_engines(settings)
    check_exposure(settings, settings.ingress.host)
    return settings
