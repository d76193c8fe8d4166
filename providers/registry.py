"""The table of all context providers.

Others enter it by an entry point of the group `rapport.providers` (name = "package.module:Class"), or in one process by
`register_provider`. A class takes one `ProviderResources` and is a `ContextProvider`; an agent type uses it once
`config/agent_types.yaml` names it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import entry_points
from types import MappingProxyType

from models.enrichment.protocol import ContextProvider
from models.errors import ConfigurationError
from models.registry import Registry
from providers.base import ProviderResources

ENTRY_POINTS = "rapport.providers"

BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "customer_intelligence": "providers.internal.customer_intelligence:CustomerIntelligenceProvider",
        "subscription_details": "providers.internal.subscription_details:SubscriptionDetailsProvider",
        "support_history": "providers.internal.support_history:SupportHistoryProvider",
        "engagement_metrics": "providers.internal.engagement_metrics:EngagementMetricsProvider",
        "account_health": "providers.internal.account_health:AccountHealthProvider",
        "sales_pipeline": "providers.internal.sales_pipeline:SalesPipelineProvider",
        "feature_usage": "providers.internal.feature_usage:FeatureUsageProvider",
        "security_context": "providers.internal.security_context:SecurityContextProvider",
        "product_status": "providers.realtime.product_status:ProductStatusProvider",
        "current_activity": "providers.realtime.current_activity:CurrentActivityProvider",
        "agent_performance": "providers.realtime.agent_performance:AgentPerformanceProvider",
        "clearbit": "providers.external.clearbit:ClearbitProvider",
        "crunchbase": "providers.external.crunchbase:CrunchbaseProvider",
        "news_api": "providers.external.news_api:NewsApiProvider",
        "churn_prediction": "providers.derived.churn_prediction:ChurnPredictionProvider",
        "next_best_action": "providers.derived.next_best_action:NextBestActionProvider",
    }
)

#: What makes a provider; its class, as a rule.
Build = Callable[[ProviderResources], ContextProvider]

_registered: dict[str, Build] = {}


def register_provider(name: str, build: Build) -> None:
    """Add a provider to every orchestrator that this process builds from now on.

    Raises `ConfigurationError` when the name is taken.
    """
    if name in _registered or name in provider_registry().names():
        raise ConfigurationError(f"context provider {name!r} is registered twice")
    _registered[name] = build


def provider_registry() -> Registry[ContextProvider]:
    """Built-in providers and installed ones. Raises `ConfigurationError` when two have the same name."""
    registry: Registry[ContextProvider] = Registry("context provider")
    for name, target in BUILT_IN.items():
        registry.register(name, target)
    for entry in entry_points(group=ENTRY_POINTS):
        registry.register(entry.name, entry.value)
    return registry


def build_providers(resources: ProviderResources, names: Iterable[str] | None = None) -> list[ContextProvider]:
    """One instance of each named provider, by default of all, and of every provider that one of them depends on.

    Raises `ConfigurationError` for an unknown name, or a provider that calls itself otherwise than the table does.
    """
    registry = provider_registry()
    wanted = deque((*registry.names(), *_registered) if names is None else names)
    built: dict[str, ContextProvider] = {}
    while wanted:
        name = wanted.popleft()
        if name in built:
            continue
        build: Build = _registered.get(name) or registry.load(name)
        provider: ContextProvider = build(resources)
        if provider.spec.name != name:
            raise ConfigurationError(f"context provider {name!r} calls itself {provider.spec.name!r}")
        built[name] = provider
        wanted.extend(provider.spec.depends_on)
    return list(built.values())
