"""Which sections an event outdates, checked against the providers themselves."""

from __future__ import annotations

import pytest

from models.enrichment.dependencies import tags_of
from models.enrichment.events import OUTDATED, Event, EventType
from models.enrichment.types import ProviderSpec
from models.registry import Registry
from providers.external.company import VENDORS
from providers.registry import BUILT_IN
from tests.fakes.talks import NOW


def specs() -> dict[str, ProviderSpec]:
    registry: Registry[type] = Registry("context provider")
    for name, target in BUILT_IN.items():
        registry.register(name, target)
    return {name: registry.load(name).spec for name in BUILT_IN}  # type: ignore[attr-defined]  # a class with a spec


def outdated(event: Event) -> set[str]:
    return {name for name, tags in tags_of(specs()).items() if not tags.isdisjoint(event.tags)}


def test_every_type_says_what_it_outdates() -> None:
    assert set(OUTDATED) == set(EventType)


@pytest.mark.parametrize(
    ("type", "sections", "untouched"),
    [
        (EventType.SUBSCRIPTION_CHANGED, {"subscription_details", "customer_intelligence"}, {"support_history"}),
        (EventType.INVOICE_CHANGED, {"subscription_details", "account_health"}, {"feature_usage"}),
        (EventType.TICKET_CHANGED, {"support_history", "account_health"}, {"engagement_metrics"}),
        (EventType.CONVERSATION_CLOSED, {"support_history", "account_health"}, {"sales_pipeline"}),
        (EventType.PRODUCT_ACTIVITY, {"current_activity", "engagement_metrics", "feature_usage"}, {"sales_pipeline"}),
        (EventType.DEAL_CHANGED, {"sales_pipeline"}, {"account_health"}),
        (EventType.SECURITY_EVENT, {"security_context"}, {"support_history"}),
        (EventType.INCIDENT_CHANGED, {"product_status"}, {"account_health"}),
    ],
)
def test_an_event_outdates_who_shows_its_data_and_not_the_rest(
    type: EventType, sections: set[str], untouched: set[str]
) -> None:
    found = outdated(Event(type=type, at=NOW, customer_id="customer_1"))
    assert sections <= found
    assert not untouched & found


def test_the_predictions_go_with_what_they_are_made_from() -> None:
    for type in (EventType.TICKET_CHANGED, EventType.INVOICE_CHANGED, EventType.PRODUCT_ACTIVITY):
        assert {"churn_prediction", "next_best_action"} <= outdated(Event(type=type, at=NOW, customer_id="customer_1"))


def test_what_a_vendor_said_stays_unless_it_was_meant() -> None:
    ordinary = set(EventType) - {EventType.CUSTOMER_CREATED, EventType.CUSTOMER_CHANGED, EventType.ACCOUNT_CHANGED}
    for type in ordinary:
        assert not VENDORS.keys() & outdated(Event(type=type, at=NOW, customer_id="customer_1")), type


def test_sections_narrow_an_event_to_their_providers() -> None:
    event = Event(
        type=EventType.CUSTOMER_CHANGED, at=NOW, customer_id="customer_1", sections=("company_news", "account_health")
    )
    assert event.tags == ("news_api", "account_health")
