"""The table of all context providers.

Others enter it by an entry point of the group `rapport.providers` (name = "package.module:Class"). A class takes one
`ProviderResources` and is a `ContextProvider`; an agent type uses it once `config/agent_types.yaml` names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    }
)


def provider_registry() -> Registry[ContextProvider]:
    """Built-in providers and installed ones. Raises `ConfigurationError` when two have the same name."""
    registry: Registry[ContextProvider] = Registry("context provider")
    for name, target in BUILT_IN.items():
        registry.register(name, target)
    for entry in entry_points(group=ENTRY_POINTS):
        registry.register(entry.name, entry.value)
    return registry


def build_providers(resources: ProviderResources, names: Iterable[str] | None = None) -> list[ContextProvider]:
    """One instance of each named provider, by default of all.

    Raises `ConfigurationError` for an unknown name, or a provider that calls itself otherwise than the table does.
    """
    registry = provider_registry()
    providers: list[ContextProvider] = []
    for name in registry.names() if names is None else names:
        build: type = registry.load(name)
        provider: ContextProvider = build(resources)
        if provider.spec.name != name:
            raise ConfigurationError(f"context provider {name!r} calls itself {provider.spec.name!r}")
        providers.append(provider)
    return providers
