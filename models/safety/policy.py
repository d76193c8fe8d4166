"""What to do about findings: thresholds per harm and purpose, and the gate that applies them and fails closed."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from models.embedding.protocol import Vectors
from models.errors import ConfigurationError, SafetyUnavailable
from models.resilience.deadline import Deadline
from models.safety.protocol import Moderator
from models.safety.types import Decision, Finding, Harm, Purpose, Verdict
from models.telemetry import Metrics, Transition

_log = logging.getLogger(__name__)

SHIPPED = Path(__file__).parents[2] / "config" / "safety.yaml"


class Comparison(StrEnum):
    """`at_least`: severity 4 is over a threshold of 4; `above`: only 5 is (the reading of older Azure samples)."""

    AT_LEAST = "at_least"
    ABOVE = "above"


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetyPolicy:
    """Thresholds from 1 to 7. `exceptions` names the harms that differ from the default of their purpose.

    The default is `escalate_at` for a customer's message and `block_at` for what we send.
    """

    block_at: int = 4
    escalate_at: int = 4
    comparison: Comparison = Comparison.AT_LEAST
    exceptions: Mapping[Purpose, Mapping[Harm, int]] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        limits = (limit for by_harm in self.exceptions.values() for limit in by_harm.values())
        for limit in (self.block_at, self.escalate_at, *limits):
            if type(limit) is not int or not 1 <= limit <= 7:
                raise ConfigurationError(
                    f"safety policy: a threshold must be a whole number from 1 to 7, not {limit!r}"
                )

    @classmethod
    def load(cls, path: Path = SHIPPED, *, block_at: int = 4, escalate_at: int = 4) -> SafetyPolicy:
        """The policy of a YAML file with `comparison` and `thresholds`. Raises `ConfigurationError` naming the file."""
        try:
            content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
            if unknown := set(content) - {"comparison", "thresholds"}:
                raise ValueError(f"unknown {sorted(unknown)}")
            return cls(
                block_at=block_at,
                escalate_at=escalate_at,
                comparison=Comparison(content.get("comparison", Comparison.AT_LEAST)),
                exceptions={
                    Purpose(purpose): {Harm(harm): limit for harm, limit in (by_harm or {}).items()}
                    for purpose, by_harm in (content.get("thresholds") or {}).items()
                },
            )
        except (OSError, yaml.YAMLError, TypeError, ValueError, AttributeError) as exc:
            raise ConfigurationError(f"safety policy {path.name}: {exc}") from exc

    @property
    def version(self) -> str:
        """Hash of everything that decides, so that equal versions decide alike."""
        content = {
            "comparison": self.comparison,
            "thresholds": {p: {h: self.threshold(p, h) for h in Harm} for p in Purpose},
        }
        return "policy_" + hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def threshold(self, purpose: Purpose, harm: Harm) -> int:
        default = self.escalate_at if purpose is Purpose.CUSTOMER_MESSAGE else self.block_at
        return self.exceptions.get(purpose, {}).get(harm, default)

    def objection(self, purpose: Purpose) -> Decision:
        """What happens to a text over a threshold: what we send is blocked, a customer is heard by a person."""
        return Decision.ESCALATE if purpose is Purpose.CUSTOMER_MESSAGE else Decision.BLOCK

    def decide(self, findings: Sequence[Finding], purpose: Purpose) -> Verdict:
        """The verdict on one moderated text. Raises `SafetyUnavailable` if a harm was not looked at."""
        if missing := set(Harm) - {finding.harm for finding in findings}:
            raise SafetyUnavailable(f"moderation gave no finding for {', '.join(sorted(missing))}")
        sign = ">=" if self.comparison is Comparison.AT_LEAST else ">"
        over = [
            (finding, limit)
            for finding in findings
            for limit in (self.threshold(purpose, finding.harm),)
            if finding.severity > limit or (finding.severity == limit and self.comparison is Comparison.AT_LEAST)
        ]
        return Verdict(
            decision=self.objection(purpose) if over else Decision.ALLOW,
            findings=tuple(findings),
            reasons=tuple(f"{each.harm.value} severity {each.severity} {sign} {limit}" for each, limit in over),
            harms=tuple(finding.harm for finding, _ in over),
            policy_version=self.version,
        )


class PolicyGate:
    """Moderation and policy behind one door; whatever goes wrong inside, no text is allowed unmoderated."""

    def __init__(self, moderator: Moderator, policy: SafetyPolicy, metrics: Metrics) -> None:
        self._moderator = moderator
        self._policy = policy
        self._metrics = metrics
        self._source = Transition("moderation", _log)

    @property
    def policy_version(self) -> str:
        return self._policy.version

    async def check(
        self,
        texts: Sequence[str],
        *,
        purpose: Purpose,
        vectors: Vectors | None = None,
        deadline: Deadline | None = None,
    ) -> list[Verdict]:
        """One verdict per text; if moderation cannot run each is the purpose's objection, with `available` false."""
        if not texts:
            return []
        try:
            findings = await self._moderate(texts, vectors, deadline)
            if len(findings) != len(texts):
                raise SafetyUnavailable("moderation did not answer for every text")
            verdicts = [self._policy.decide(each, purpose) for each in findings]
        except Exception as exc:  # an unforeseen defect must not open the door either
            self._source.down(exc)
            verdicts = [self._unavailable(purpose)] * len(texts)
        else:
            self._source.up()
        for verdict in verdicts:
            outcome = verdict.decision.value if verdict.available else "unavailable"
            self._metrics.count("safety_checks_total", purpose=purpose.value, outcome=outcome)
        return verdicts

    async def _moderate(
        self, texts: Sequence[str], vectors: Vectors | None, deadline: Deadline | None
    ) -> list[tuple[Finding, ...]]:
        if deadline is None:
            return await self._moderator.moderate(texts, vectors=vectors)
        async with deadline.enforce("moderation"):
            return await self._moderator.moderate(texts, vectors=vectors, deadline=deadline)

    def _unavailable(self, purpose: Purpose) -> Verdict:
        return Verdict(
            decision=self._policy.objection(purpose),
            reasons=("moderation unavailable",),
            policy_version=self._policy.version,
            available=False,
        )
