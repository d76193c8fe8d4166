"""The table of agent types refuses what would show too much; a request narrows a view and never widens it."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from models.enrichment.masking import FREE_TEXT_RULE
from models.enrichment.selection import SECTION_OF, AgentView, AgentViews
from models.enrichment.types import PERSONAL_FIELDS, SECTIONS, ContextRequest, CustomerIntelligence
from models.errors import ConfigurationError, Forbidden, InvalidRequest, UnknownAgentType
from models.resilience.deadline import Deadline
from tests.fakes.enrichment import ACME

KEYS = (*PERSONAL_FIELDS, FREE_TEXT_RULE)


def rules(mask: str, *, without: str = "", extra: str = "") -> str:
    keys = [key for key in (*KEYS, extra) if key and key != without]
    return "{" + ", ".join(f"{key}: {mask}" for key in keys) + "}"


RULES = f"rule_sets:\n  open: {rules('keep')}\n  masked: {rules('redact')}\n"


def load(tmp_path: Path, text: str, **options: str) -> AgentViews:
    file = tmp_path / "agent_types.yaml"
    file.write_text(text, encoding="utf-8")
    return AgentViews.load(file, **options)


def request(agent_type: str = "", *, masked: bool = False, providers: tuple[str, ...] | None = None) -> ContextRequest:
    return ContextRequest(deadline=Deadline.after(1), agent_type=agent_type, masked=masked, providers=providers)


def contact(view: AgentView) -> tuple[str, str]:
    seen = view.mask("customer_intelligence", ACME["customer_intelligence"])
    assert isinstance(seen, CustomerIntelligence)
    assert seen.company_name == "Acme Corp"
    return seen.contact_name, seen.contact_email


def test_no_agent_type_is_the_most_masked_view() -> None:
    view = AgentViews.load().view("")
    assert contact(view) == ("[redacted]", "[redacted]")
    assert view.unmasked == ()


def test_partial_masks_name_nobody() -> None:
    assert contact(AgentViews.load().view("support")) == ("Jordan B.", "j***@example.com")


def test_every_section_is_shown_to_someone_and_every_name_is_one() -> None:
    shown = {SECTION_OF.get(name, name) for name in AgentViews.load().providers()}
    assert shown == set(SECTIONS)


def test_what_does_not_concern_an_agent_type_is_not_shown() -> None:
    views = AgentViews.load()

    def viewers(name: str) -> set[str]:
        return {agent_type for agent_type in views.names() if name in views.view(agent_type).providers}

    assert viewers("security_context") == {"security"}
    assert viewers("agent_performance") == {"operations"}
    assert not viewers("sales_pipeline") & {"general", "support", "billing", "security", "operations"}


def test_an_unknown_agent_type_lists_the_known_ones() -> None:
    with pytest.raises(UnknownAgentType, match="support"):
        AgentViews.load().resolve(request("astrology"))
    with pytest.raises(UnknownAgentType):
        AgentViews.load().resolve(request("astrology", masked=True))


def test_a_masked_request_sees_the_same_providers_as_the_default_type_would() -> None:
    views = AgentViews.load()
    plain, masked = views.resolve(request("sales")), views.resolve(request("sales", masked=True))
    assert contact(plain) == ("Jordan Blake", "jordan.blake@example.com")
    assert contact(masked) == ("[redacted]", "[redacted]")
    assert (masked.agent_type, masked.providers, masked.unmasked) == ("sales", plain.providers, ())


def test_a_restricted_view_keeps_the_order_of_its_agent_type() -> None:
    views = AgentViews.load()
    asked = ("sales_pipeline", "customer_intelligence", "sales_pipeline")
    view = views.resolve(request("sales", providers=asked))
    assert view.providers == ("customer_intelligence", "sales_pipeline")
    assert views.resolve(request("sales", providers=asked[1:])) is not None
    without = views.resolve(request("sales", providers=("sales_pipeline",)))
    assert without.unmasked == (), "nothing personal is in what it shows"


def test_a_restriction_cannot_reach_beyond_the_agent_type() -> None:
    views = AgentViews.load()
    with pytest.raises(Forbidden, match="security_context"):
        views.resolve(request("sales", providers=("customer_intelligence", "security_context")))
    for names in ((), ("horoscope",), ("customer_intelligence", "horoscope")):
        with pytest.raises(InvalidRequest, match="customer_intelligence"):
            views.resolve(request("sales", providers=names))


def test_a_provider_that_is_not_configured_is_nobodys() -> None:
    views = AgentViews.load().only(["customer_intelligence", "agent_performance", "clearbit"])
    assert views.view("sales").providers == ("customer_intelligence", "clearbit")
    with pytest.raises(InvalidRequest):
        views.resolve(request("sales", providers=("news_api",)))
    with pytest.raises(Forbidden):
        views.resolve(request("sales", providers=("agent_performance",)))


def test_keys_differ_exactly_when_views_do() -> None:
    views = AgentViews.load()
    seen: dict[str, tuple[object, ...]] = {}
    for agent_type, masked in product(("", *views.names()), (False, True)):
        for count in range(len(views.view(agent_type).providers)):
            view = views.resolve(request(agent_type, masked=masked, providers=views.view(agent_type).providers[count:]))
            shows = (view.agent_type, view.providers, tuple(view.rules.masks.items()))
            assert seen.setdefault(view.key, shows) == shows
    assert len(set(seen.values())) == len(seen)
    assert max(map(len, seen)) < 40


def test_views_are_worked_out_once() -> None:
    views = AgentViews.load()
    assert views.resolve(request("sales")) is views.view("sales")
    assert views.resolve(request()) is views.view("general")
    assert views.resolve(request("general", masked=True)) is views.view("general")
    narrow = request("sales", masked=True, providers=("clearbit",))
    assert views.resolve(narrow) is views.resolve(narrow)


def test_what_is_named_first_matters_most() -> None:
    importance = AgentViews.load().view("security").importance
    assert importance["customer_intelligence"] == 1
    assert importance["security_context"] > importance["product_status"] > 0


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
        *(
            (
                f"default: a\nrule_sets: {{m: {rules('redact', without=key)}}}\n"
                "agent_types: {a: {rules: m, providers: []}}",
                f"no rule for {key}",
            )
            for key in KEYS
        ),
        (
            f"default: a\nrule_sets: {{m: {rules('redact', extra='x.y')}}}\n"
            "agent_types: {a: {rules: m, providers: []}}",
            "x.y",
        ),
        (
            f"default: a\nrule_sets: {{m: {rules('hash')}}}\nagent_types: {{a: {{rules: m, providers: []}}}}",
            "keep or redact",
        ),
    ],
)
def test_a_table_that_shows_too_much_or_makes_no_sense_stops_the_start(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        load(tmp_path, text)


def test_a_changed_rule_or_secret_changes_the_fingerprint_of_the_views_it_is_about(tmp_path: Path) -> None:
    types = "{a: {rules: masked, providers: [x]}, b: {rules: open, providers: [x]}}"
    table = f"default: a\n{RULES}\nagent_types: {types}"
    tightened = table.replace("rules: open, providers: [x]", "rules: masked, providers: [x, y]")

    def prints(text: str, **secret: str) -> list[str]:
        views = load(tmp_path, text, **secret)
        return [views.view(name).fingerprint for name in ("a", "b")]

    a, b = prints(table)
    assert a != b
    assert prints(tightened) == [a, a], "the rules count, not who is shown by them"
    others = [*prints(table, secret="pepper"), *prints(table, secret="salt")]
    assert len({a, b, *others}) == 6
    assert prints(table, secret="salt") == others[2:]


def test_a_provider_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match="account_health"):
        AgentViews.load().check({"customer_intelligence": object()})


def test_a_provider_from_outside_may_show_anything(tmp_path: Path) -> None:
    types = "agent_types: {a: {rules: masked, providers: []}, b: {rules: open, providers: [crm]}}"
    table = f"default: a\n{RULES}\n{types}"
    assert load(tmp_path, table).view("b").unmasked == KEYS
