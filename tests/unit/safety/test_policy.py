from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from models.embedding.protocol import Vectors
from models.errors import ConfigurationError, SafetyUnavailable
from models.resilience.deadline import Deadline
from models.safety.policy import Comparison, PolicyGate, SafetyPolicy
from models.safety.types import Decision, Finding, Harm, Purpose
from models.telemetry import NoMetrics

OURS = (Purpose.REPLY, Purpose.CAMPAIGN)


class FixedModerator:
    """Says of every text what it was told to; raises `error` if it has one."""

    def __init__(self, findings: tuple[Finding, ...] = (), error: Exception | None = None) -> None:
        self.findings = findings
        self.error = error

    async def moderate(
        self, texts: Sequence[str], *, vectors: Vectors | None = None, deadline: Deadline | None = None
    ) -> list[tuple[Finding, ...]]:
        if self.error is not None:
            raise self.error
        return [self.findings for _ in texts]


class CountingMetrics(NoMetrics):
    def __init__(self) -> None:
        self.counted: list[tuple[str, dict[str, str]]] = []

    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        self.counted.append((name, labels))


def seen(**severities: int) -> tuple[Finding, ...]:
    return tuple(Finding(harm=harm, severity=severities.get(harm.value, 0), probability=0.5) for harm in Harm)


def gate(moderator: FixedModerator, policy: SafetyPolicy | None = None) -> PolicyGate:
    return PolicyGate(moderator, policy or SafetyPolicy(), NoMetrics())


@pytest.mark.parametrize(
    ("purpose", "severity", "comparison", "decision"),
    [
        (Purpose.REPLY, 3, Comparison.AT_LEAST, Decision.ALLOW),
        (Purpose.REPLY, 4, Comparison.AT_LEAST, Decision.BLOCK),
        (Purpose.REPLY, 7, Comparison.AT_LEAST, Decision.BLOCK),
        (Purpose.CAMPAIGN, 3, Comparison.AT_LEAST, Decision.ALLOW),
        (Purpose.CAMPAIGN, 4, Comparison.AT_LEAST, Decision.BLOCK),
        (Purpose.CAMPAIGN, 4, Comparison.ABOVE, Decision.ALLOW),
        (Purpose.CAMPAIGN, 5, Comparison.ABOVE, Decision.BLOCK),
        (Purpose.CUSTOMER_MESSAGE, 3, Comparison.AT_LEAST, Decision.ALLOW),
        (Purpose.CUSTOMER_MESSAGE, 4, Comparison.AT_LEAST, Decision.ESCALATE),
        (Purpose.CUSTOMER_MESSAGE, 7, Comparison.AT_LEAST, Decision.ESCALATE),
        (Purpose.CUSTOMER_MESSAGE, 4, Comparison.ABOVE, Decision.ALLOW),
    ],
)
@pytest.mark.parametrize("harm", list(Harm))
async def test_policy_table(
    harm: Harm, purpose: Purpose, severity: int, comparison: Comparison, decision: Decision
) -> None:
    policy = SafetyPolicy(comparison=comparison)
    (verdict,) = await gate(FixedModerator(seen(**{harm.value: severity})), policy).check(["text"], purpose=purpose)
    assert verdict.decision is decision
    assert verdict.available
    assert verdict.policy_version == policy.version
    assert bool(verdict.reasons) == (decision is not Decision.ALLOW)
    assert all(harm.value in reason and str(severity) in reason for reason in verdict.reasons)


@pytest.mark.parametrize("error", [SafetyUnavailable("down"), RuntimeError("a defect"), KeyError("hate")])
@pytest.mark.parametrize("purpose", list(Purpose))
async def test_nothing_passes_unmoderated(error: Exception, purpose: Purpose) -> None:
    verdicts = await gate(FixedModerator(error=error)).check(["one", "two"], purpose=purpose)
    expected = Decision.ESCALATE if purpose is Purpose.CUSTOMER_MESSAGE else Decision.BLOCK
    assert [(v.decision, v.available, v.allowed) for v in verdicts] == [(expected, False, False)] * 2


@pytest.mark.parametrize("purpose", OURS)
async def test_a_moderator_that_skips_a_harm_is_not_trusted(purpose: Purpose) -> None:
    partial = FixedModerator(seen()[:3])
    (verdict,) = await gate(partial).check(["text"], purpose=purpose)
    assert (verdict.decision, verdict.available) == (Decision.BLOCK, False)


async def test_a_moderator_that_hangs_blocks_at_the_deadline() -> None:
    class HangingModerator(FixedModerator):
        async def moderate(
            self, texts: Sequence[str], *, vectors: Vectors | None = None, deadline: Deadline | None = None
        ) -> list[tuple[Finding, ...]]:
            await asyncio.Event().wait()
            raise AssertionError("never set")

    (verdict,) = await gate(FixedModerator(seen())).check(["text"], purpose=Purpose.REPLY, deadline=Deadline.after(60))
    assert verdict.allowed
    (verdict,) = await gate(HangingModerator()).check(["text"], purpose=Purpose.REPLY, deadline=Deadline.after(0))
    assert (verdict.decision, verdict.available) == (Decision.BLOCK, False)


async def test_every_verdict_is_counted_and_an_outage_apart() -> None:
    metrics = CountingMetrics()
    moderator = FixedModerator(seen(hate=6))
    policed = PolicyGate(moderator, SafetyPolicy(), metrics)
    await policed.check(["text"], purpose=Purpose.REPLY)
    moderator.error = SafetyUnavailable("down")
    await policed.check(["text"], purpose=Purpose.REPLY)
    assert metrics.counted == [
        ("safety_checks_total", {"purpose": "reply", "outcome": "block"}),
        ("safety_checks_total", {"purpose": "reply", "outcome": "unavailable"}),
    ]


def test_the_version_says_when_two_policies_decide_alike() -> None:
    assert SafetyPolicy().version == SafetyPolicy(exceptions={Purpose.REPLY: {Harm.HATE: 4}}).version
    assert SafetyPolicy().version != SafetyPolicy(exceptions={Purpose.REPLY: {Harm.HATE: 5}}).version
    assert SafetyPolicy().version != SafetyPolicy(comparison=Comparison.ABOVE).version
    assert SafetyPolicy().version != SafetyPolicy(block_at=5).version


def test_the_shipped_policy_blocks_what_we_send_from_four_on() -> None:
    policy = SafetyPolicy.load()
    assert policy.comparison is Comparison.AT_LEAST
    assert {policy.threshold(purpose, harm) for purpose in OURS for harm in Harm} == {4}
    assert policy.threshold(Purpose.CUSTOMER_MESSAGE, Harm.SELF_HARM) <= 4
    assert SafetyPolicy.load(block_at=2).threshold(Purpose.REPLY, Harm.HATE) == 2


@pytest.mark.parametrize(
    "text",
    [
        "thresholds: {reply: {hate: 9}}",
        "thresholds: {reply: {hate: 4.5}}",
        "thresholds: {reply: {rudeness: 4}}",
        "thresholds: {leaflet: {hate: 4}}",
        "thresholds: [4]",
        "comparison: roughly",
        "treshold: 4",
        "{",
        "",
    ],
)
def test_a_malformed_policy_stops_the_start_and_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "strict.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"strict\.yaml|threshold"):
        SafetyPolicy.load(path)


async def test_a_verdict_names_the_harms_over_their_threshold() -> None:
    (verdict,) = await gate(FixedModerator(seen(violence=6, hate=4, sexual=3))).check(["x"], purpose=Purpose.REPLY)
    assert set(verdict.harms) == {Harm.VIOLENCE, Harm.HATE}
    (harmless,) = await gate(FixedModerator(seen(violence=3))).check(["x"], purpose=Purpose.REPLY)
    assert harmless.harms == ()
