"""Stored bytes: what is read from them is what was put in, with this read's numbers in the right places."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from models.enrichment.encoding import StoredContext, encode, splice, splice_many, splice_summary, version_of
from models.enrichment.records import epoch_ms
from models.enrichment.types import (
    CustomerIntelligence,
    EnrichedContext,
    ProviderOutcome,
    ProviderState,
    ServedFrom,
    SupportHistory,
)
from tests.fakes.enrichment import ACME, MORE, NOW


def context(*, states: dict[str, ProviderState] | None = None) -> EnrichedContext:
    states = states or {}
    outcomes = []
    for position, name in enumerate(ACME):
        state = states.get(name, ProviderState.FRESH)
        as_of = NOW - timedelta(seconds=position) if state is ProviderState.FRESH else None
        outcomes.append(
            ProviderOutcome(provider=name, section=name, state=state, source="database", as_of=as_of, latency_ms=1.5)
        )
    sections: dict[str, Any] = {o.section: ACME[o.section] for o in outcomes if o.state is ProviderState.FRESH}
    return EnrichedContext(
        customer_id="customer_123",
        agent_type="support",
        context_version="abc",
        enriched_at=NOW,
        outcomes=tuple(outcomes),
        enrichment_latency_ms=3.25,
        **sections,
    )


def stored(value: EnrichedContext) -> StoredContext:
    return encode(value, expires_at_ms=epoch_ms(NOW) + 300_000)


def read(value: StoredContext, *, later_ms: int = 0, tier: ServedFrom = ServedFrom.L1) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(
        splice(value, now_ms=epoch_ms(NOW) + later_ms, served_from=tier, deadline_ms=250, elapsed_ms=0.0421)
    )
    return body


def test_ages_are_those_of_the_read() -> None:
    body = read(stored(context()), later_ms=7)
    assert [o["age_ms"] for o in body["providers"].values()] == [7, 1007, 2007, 3007, 4007]
    assert body["age_ms"] == 4007
    assert body["elapsed_ms"] == 0.042
    assert body["deadline_ms"] == 250


def test_a_clock_that_stepped_back_makes_no_negative_age() -> None:
    assert read(stored(context()), later_ms=-10_000)["age_ms"] == 0


@pytest.mark.parametrize(("tier", "hit"), [(ServedFrom.L1, True), (ServedFrom.L2, True), (ServedFrom.ORIGIN, False)])
def test_the_tier_is_named_for_the_whole_and_for_each_provider(tier: ServedFrom, hit: bool) -> None:
    body = read(stored(context()), tier=tier)
    assert body["served_from"] == tier
    assert {o["served_from"] for o in body["providers"].values()} == {tier}
    assert body["cache_hit"] is hit
    assert json.loads(splice_summary(stored(context()), served_from=tier))["cache_hit"] is hit


def test_providers_without_data_have_no_age_wherever_they_stand() -> None:
    for names in (["customer_intelligence"], ["account_health"], list(ACME)):
        body = read(stored(context(states=dict.fromkeys(names, ProviderState.ERROR))))
        for name, outcome in body["providers"].items():
            assert (outcome["age_ms"] is None) is (name in names)
            assert (outcome["served_from"] is None) is (name in names)
        assert not body["complete"]


def test_a_context_without_providers_is_still_json() -> None:
    empty = replace(context(), outcomes=())
    assert read(stored(empty))["providers"] == {}


def test_text_that_looks_like_our_own_survives() -> None:
    profile = ACME["customer_intelligence"]
    assert isinstance(profile, CustomerIntelligence)
    profile = replace(profile, company_name='"},"age_ms":1\n%d%s%% %(a)s \\u2028 é🙂')
    body = read(stored(replace(context(), customer_intelligence=profile)))
    assert body["customer_intelligence"]["company_name"] == profile.company_name


def test_relevance_stands_beside_the_rest() -> None:
    value = stored(context())
    body = json.loads(
        splice(value, now_ms=0, served_from=ServedFrom.L1, deadline_ms=1, elapsed_ms=0, relevance={"a": 0.123456})
    )
    assert body["relevance"] == {"a": 0.1235}
    assert body["ranked_by_message"] is False
    assert body.keys() - read(value).keys() == {"relevance", "ranked_by_message"}


def test_a_section_that_is_not_shown_is_null() -> None:
    assert read(stored(context()))["agent_performance"] is None


def test_many_bodies_make_one() -> None:
    bodies = [b'{"a":1}', b'{"a":2}']
    for some in (bodies, []):
        joined = json.loads(splice_many(some, unknown=["x"], complete=False, deadline_ms=250, elapsed_ms=1.5))
        assert joined == {
            "contexts": [json.loads(body) for body in some],
            "unknown": ["x"],
            "complete": False,
            "deadline_ms": 250,
            "elapsed_ms": 1.5,
        }


def test_real_time_sections_are_no_part_of_the_version() -> None:
    with_activity = {**ACME, "current_activity": MORE["current_activity"]}
    assert version_of("customer_123", "support", with_activity) == version_of("customer_123", "support", ACME)
    with_news = {**ACME, "company_news": MORE["company_news"]}
    assert version_of("customer_123", "support", with_news) != version_of("customer_123", "support", ACME)


def test_versions_tell_content_apart() -> None:
    base = version_of("customer_123", "support", ACME)
    assert base == version_of("customer_123", "support", dict(reversed(ACME.items())))
    support = ACME["support_history"]
    assert isinstance(support, SupportHistory)
    changed = {**ACME, "support_history": replace(support, open_tickets=2)}
    others = [
        version_of("customer_124", "support", ACME),
        version_of("customer_123", "sales", ACME),
        version_of("customer_123", "support", changed),
        version_of("customer_123", "support", {}),
    ]
    assert len({base, *others}) == 5
