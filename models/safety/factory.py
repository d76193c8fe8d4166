"""Builds the gate from settings, the same way online and in campaigns."""

from __future__ import annotations

from models.embedding.protocol import Embedder
from models.safety.policy import PolicyGate, SafetyPolicy
from models.safety.probe import ProbeModerator, ProbeWeights
from models.settings import SafetySettings
from models.telemetry import Metrics, NoMetrics


def build_gate(settings: SafetySettings, embedder: Embedder, metrics: Metrics | None = None) -> PolicyGate:
    """The shipped probe behind the shipped policy. Raises `ConfigurationError`."""
    policy = SafetyPolicy.load(block_at=settings.block_at, escalate_at=settings.escalate_at)
    return PolicyGate(ProbeModerator(embedder, ProbeWeights.load()), policy, metrics or NoMetrics())
