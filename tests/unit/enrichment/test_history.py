"""What changed between two versions of a context."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from models.enrichment.history import FieldChange, HistoryPage, diff, history_page_json, lasting, sources_of
from models.enrichment.types import CurrentActivity, HistoryEntry, ProviderOutcome, ProviderState, SupportHistory

AT = datetime(2026, 11, 1, 8, 30, tzinfo=UTC)
SUPPORT = {
    "total_conversations": 12,
    "avg_csat": 4.5,
    "open_tickets": 1,
    "last_conversation_at": "2026-10-30T12:00:00Z",
    "common_topics": ["billing", "exports"],
}


def entry(content: dict[str, Any], *, version: str = "v", at: datetime = AT, **sources: str) -> HistoryEntry:
    return HistoryEntry(
        customer_id="customer_1", agent_type="support", context_version=version, content=content, at=at, sources=sources
    )


def told(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(change.field, change.before, change.after) for change in diff(entry(before), entry(after))]


def test_a_changed_field_has_its_source_and_its_time() -> None:
    later = AT + timedelta(hours=1)
    older = entry({"support_history": SUPPORT}, support_history="database")
    newer = entry({"support_history": {**SUPPORT, "open_tickets": 2}}, at=later, support_history="database")
    assert diff(older, newer) == (
        FieldChange(field="support_history.open_tickets", source="database", before=1, after=2, at=later),
    )


def test_equal_content_has_no_changes() -> None:
    assert told({"support_history": SUPPORT}, {"support_history": dict(SUPPORT)}) == []


def test_a_value_that_came_or_went_is_told_as_null() -> None:
    assert told({"support_history": {**SUPPORT, "avg_csat": None}}, {"support_history": SUPPORT}) == [
        ("support_history.avg_csat", None, 4.5)
    ]
    assert told({"a": {"x": 1, "gone": 2}}, {"a": {"x": 1, "new": 3}}) == [("a.new", None, 3), ("a.gone", 2, None)]


def test_sections_come_and_go_whole() -> None:
    older = entry({"support_history": SUPPORT, "company_news": {"total": 0}}, company_news="news_api")
    newer = entry({"support_history": SUPPORT, "account_health": {"red_flags": []}}, account_health="database")
    assert [(c.field, c.source, c.before, c.after) for c in diff(older, newer)] == [
        ("account_health", "database", None, {"red_flags": []}),
        ("company_news", "news_api", {"total": 0}, None),
    ]


def test_without_an_older_version_every_section_came() -> None:
    content = {"support_history": SUPPORT, "account_health": {"red_flags": []}}
    changes = diff(None, entry(content))
    assert [(c.field, c.before, c.after) for c in changes] == [(name, None, value) for name, value in content.items()]


def test_a_list_of_values_is_one_change_even_when_only_its_order_differs() -> None:
    assert told({"a": {"flags": []}}, {"a": {"flags": ["x"]}}) == [("a.flags", [], ["x"])]
    assert told({"a": {"flags": ["x", "y"]}}, {"a": {"flags": ["y", "x"]}}) == [("a.flags", ["x", "y"], ["y", "x"])]


def test_of_records_only_those_that_differ_are_told() -> None:
    first, second, third = ({"title": title, "url": title} for title in "abc")
    assert told({"news": {"articles": [first, second]}}, {"news": {"articles": [third, first]}}) == [
        ("news.articles", [second], [third])
    ]
    assert told({"news": {"articles": []}}, {"news": {"articles": [first]}}) == [("news.articles", [], [first])]
    assert told({"news": {"articles": [first, second]}}, {"news": {"articles": [second, first]}}) == [
        ("news.articles", [first, second], [second, first])
    ]


def test_a_page_as_json() -> None:
    zone = timezone(timedelta(hours=2))
    newest = entry({"a": {"x": 2}}, version="v2", at=AT.astimezone(zone), a="database")
    oldest = entry({"a": {"x": 1}}, version="v1", a="database")
    page = history_page_json(HistoryPage(entries=(newest, oldest), preceding=None, next_cursor="17"))
    assert page == {
        "versions": [
            {
                "context_version": "v2",
                "previous_version": "v1",
                "at": "2026-11-01T08:30:00Z",
                "changes": [
                    {"field": "a.x", "source": "database", "before": 1, "after": 2, "at": "2026-11-01T08:30:00Z"}
                ],
            },
            {
                "context_version": "v1",
                "previous_version": None,
                "at": "2026-11-01T08:30:00Z",
                "changes": [
                    {"field": "a", "source": "database", "before": None, "after": {"x": 1},
                     "at": "2026-11-01T08:30:00Z"}
                ],
            },
        ],
        "next_cursor": "17",
    }  # fmt: skip


def test_the_oldest_of_a_page_is_compared_with_the_version_before_the_page() -> None:
    page = HistoryPage(
        entries=(entry({"a": {"x": 2}}),), preceding=entry({"a": {"x": 1}}, version="older"), next_cursor="1"
    )
    [version] = history_page_json(page)["versions"]
    assert version["previous_version"] == "older"
    assert [change["field"] for change in version["changes"]] == ["a.x"]


def test_an_empty_page() -> None:
    empty = HistoryPage(entries=(), preceding=None, next_cursor=None)
    assert history_page_json(empty) == {"versions": [], "next_cursor": None}


def test_real_time_sections_are_no_part_of_a_version() -> None:
    support = SupportHistory(
        total_conversations=1, avg_csat=None, open_tickets=0, last_conversation_at=None, common_topics=()
    )
    activity = CurrentActivity(
        active_now=True, last_seen_at=AT, active_people_15m=1, events_1h=4, recent_features=("reports",)
    )
    assert lasting({"support_history": support, "current_activity": activity}) == {"support_history": support}
    outcomes = [
        ProviderOutcome(provider=name, section=name, state=ProviderState.FRESH, source=source)
        for name, source in (("support_history", "database"), ("current_activity", "redis"))
    ]
    assert sources_of(outcomes) == {"support_history": "database"}
