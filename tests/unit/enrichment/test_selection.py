"""The table of agent types refuses what would show too much."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.enrichment.selection import AgentViews
from models.enrichment.types import CustomerIntelligence
from models.errors import ConfigurationError, UnknownAgentType
from tests.fakes.enrichment import ACME

RULES = """
rule_sets:
  open: {customer_intelligence.contact_name: keep, customer_intelligence.contact_email: keep}
  masked: {customer_intelligence.contact_name: redact, customer_intelligence.contact_email: redact}
"""


def load(tmp_path: Path, text: str) -> AgentViews:
    file = tmp_path / "agent_types.yaml"
    file.write_text(text, encoding="utf-8")
    return AgentViews.load(file)


def test_no_agent_type_is_the_most_masked_view() -> None:
    views = AgentViews.load()
    seen = views.view("").mask("customer_intelligence", ACME["customer_intelligence"])
    assert isinstance(seen, CustomerIntelligence)
    assert (seen.contact_name, seen.contact_email) == ("[redacted]", "[redacted]")
    assert seen.company_name == "Acme Corp"


def test_partial_masks_name_nobody() -> None:
    seen = AgentViews.load().view("support").mask("customer_intelligence", ACME["customer_intelligence"])
    assert isinstance(seen, CustomerIntelligence)
    assert (seen.contact_name, seen.contact_email) == ("Jordan B.", "j***@example.com")


def test_an_unknown_agent_type_lists_the_known_ones() -> None:
    with pytest.raises(UnknownAgentType, match="support"):
        AgentViews.load().view("astrology")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "agent_types.yaml"),
        ("default: [", "agent_types.yaml"),
        (f"default: x\n{RULES}\nagent_types: {{a: {{rules: masked, providers: []}}}}", "default"),
        (
            f"default: a\n{RULES}\nagent_types:\n"
            "  a: {rules: open, providers: []}\n  b: {rules: masked, providers: []}",
            "shows more",
        ),
        (f"default: a\n{RULES}\nagent_types: {{a: {{rules: none, providers: []}}}}", "none"),
        (f"default: a:b\n{RULES}\nagent_types: {{'a:b': {{rules: masked, providers: []}}}}", "lower-case"),
        (
            "default: a\nrule_sets: {m: {customer_intelligence.contact_name: redact}}\n"
            "agent_types: {a: {rules: m, providers: []}}",
            "no rule for customer_intelligence.contact_email",
        ),
        ("default: a\nrule_sets: {m: {x.y: redact}}\nagent_types: {a: {rules: m, providers: []}}", "x.y"),
    ],
)
def test_a_table_that_shows_too_much_or_makes_no_sense_stops_the_start(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        load(tmp_path, text)


def test_a_changed_rule_changes_the_fingerprint(tmp_path: Path) -> None:
    one = load(tmp_path, f"default: a\n{RULES}\nagent_types: {{a: {{rules: masked, providers: [x]}}}}")
    two = load(tmp_path, f"default: a\n{RULES}\nagent_types: {{a: {{rules: open, providers: [x]}}}}")
    assert one.fingerprint != two.fingerprint


def test_a_provider_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match="account_health"):
        AgentViews.load().check({"customer_intelligence": object()})
