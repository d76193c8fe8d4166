"""Builds the chain of language models from settings, the same way online and in campaigns."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from models.clock import WallClock, utc_now
from models.embedding.protocol import Embedder
from models.errors import ConfigurationError
from models.llm.call import Surroundings
from models.llm.chain import LanguageModelChain
from models.llm.engines import build_engine, engine_of
from models.llm.guarded import GuardedEngine
from models.llm.pricing import PriceTable, load_prices
from models.llm.protocol import Engine
from models.llm.spend import MemorySpendLedger, Spending, SpendLedger
from models.llm.tracing import CallTracer, NoTracing
from models.safety.protocol import PIIDetector
from models.settings import LanguageModelSettings, Settings, TelemetrySettings, config_file
from models.telemetry import Metrics, NoMetrics

logger = logging.getLogger(__name__)


def build_chain(
    settings: Settings,
    embedder: Embedder,
    *,
    pii: PIIDetector,
    provided: Mapping[str, Engine] | None = None,
    metrics: Metrics | None = None,
    clock: WallClock = utc_now,
) -> LanguageModelChain:
    """The configured engine and its fallbacks; `provided` holds engines that are not built here, by name.

    With Redis the replicas share their budgets, without it each has its own. Raises `ConfigurationError` naming what is
    missing, unknown, or has no price under a budget.
    """
    chosen = settings.language_model
    metrics = metrics or NoMetrics()
    provided = provided or {}
    engines = {
        name: provided.get(name) or build_engine(name, chosen, embedder)
        for name in dict.fromkeys((chosen.engine, *chosen.fallbacks))
    }
    prices = load_prices(config_file(chosen.prices))
    check_prices(chosen, [name for name, engine in engines.items() if engine.capabilities.external], prices)
    tracer = _tracer(settings.telemetry)
    spending = _spending(settings, clock, metrics)
    around = Surroundings(pii=pii, prices=prices, spending=spending, metrics=metrics, tracer=tracer)
    return LanguageModelChain(
        [
            GuardedEngine(
                name,
                engine,
                around,
                model=model_of(name, chosen),
                redact=chosen.redact_external if engine.capabilities.external else chosen.redact_local,
            )
            for name, engine in engines.items()
        ],
        max_concurrent=chosen.max_concurrent,
        # Each caller brings its own deadline; this bounds those of streams too.
        timeout_s=max(chosen.timeout_s, chosen.stream_timeout_s),
        metrics=metrics,
        tracer=tracer,
        spending=spending,
    )


def model_of(name: str, settings: LanguageModelSettings) -> str:
    """The configured model behind an engine's name, by which its calls are counted and priced."""
    engine = engine_of(name)
    match engine:
        case "openai":
            return settings.openai_model
        case "azure_openai":
            return settings.azure_deployment
        case "vllm":
            # A folder's name, not the way to it: it becomes the label of a metric.
            return Path(settings.vllm.model).name or engine
        case _:
            return engine


def check_prices(settings: LanguageModelSettings, external: Iterable[str], prices: PriceTable) -> None:
    """Raises `ConfigurationError` if a budget is set and one of these engines outside our walls has no price."""
    if settings.budget_usd_per_day is None and settings.budget_usd_per_campaign is None:
        return
    for name in external:
        engine, model = engine_of(name), model_of(name, settings)
        if prices.price(engine, model) is None:
            raise ConfigurationError(
                f"language_model.budget_usd_per_day and _per_campaign need the price of every model outside our walls:"
                f" {settings.prices} has none for {engine} {model!r}"
            )


def _spending(settings: Settings, clock: WallClock, metrics: Metrics) -> Spending:
    chosen = settings.language_model
    return Spending(
        _ledger(settings, clock),
        usd_per_day=chosen.budget_usd_per_day,
        usd_per_campaign=chosen.budget_usd_per_campaign,
        clock=clock,
        metrics=metrics,
    )


def _ledger(settings: Settings, clock: WallClock) -> SpendLedger:
    url = settings.redis.url.get_secret_value()
    if not url:
        chosen = settings.language_model
        if chosen.budget_usd_per_day is not None or chosen.budget_usd_per_campaign is not None:
            logger.warning("without Redis every replica has a language-model budget of its own")
        return MemorySpendLedger(clock)
    from models.llm.redis_spend import RedisSpendLedger
    from models.resilience.redis_client import connect

    return RedisSpendLedger(connect(url, timeout_s=settings.redis.timeout_s))


def _tracer(settings: TelemetrySettings) -> CallTracer:
    if not settings.otlp_endpoint:
        return NoTracing()
    from models.llm.opentelemetry import OpenTelemetryTracer

    return OpenTelemetryTracer.exporting(settings.otlp_endpoint, capture_content=settings.capture_content)
