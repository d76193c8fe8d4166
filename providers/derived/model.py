"""Which trained model the derived providers use."""

from __future__ import annotations

from pathlib import Path

from models.insights.artifact import SHIPPED, Insights
from providers.base import ProviderResources


def insights_of(resources: ProviderResources) -> Insights:
    """The company's own model where the setting `context.insights_model` names one, otherwise the demo company's.

    Raises `ConfigurationError`.
    """
    chosen = resources.settings.insights_model
    return Insights.load(Path(chosen) if chosen else SHIPPED)
