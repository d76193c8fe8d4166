"""A context over time: what is kept of it, and what changed between two versions.

A version covers a context without its real-time sections, and so does the history: the version that a reply names is
found in the history, and the history grows only when something about the customer changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from models.enrichment.types import REAL_TIME_SECTIONS, HistoryEntry, ProviderOutcome, Section
from models.plain import plain


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """One field that reads otherwise since `at`; `field` is `section.field`, or the section that came or went."""

    field: str
    source: str
    before: Any
    after: Any
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPage:
    """A stretch of versions, the newest first; `preceding` is the version before its oldest, the last one of all
    where it is `None`. `next_cursor` is `None` on the last page.
    """

    entries: tuple[HistoryEntry, ...]
    preceding: HistoryEntry | None
    next_cursor: str | None

    def steps(self) -> list[tuple[HistoryEntry | None, HistoryEntry]]:
        """Every version of the page with the one before it, the newest first."""
        before = (*self.entries[1:], self.preceding) if self.entries else ()
        return list(zip(before, self.entries, strict=True))


def lasting(sections: Mapping[str, Section]) -> dict[str, Section]:
    """The sections that a version covers."""
    return {name: section for name, section in sections.items() if name not in REAL_TIME_SECTIONS}


def sources_of(outcomes: Iterable[ProviderOutcome]) -> dict[str, str]:
    """Where each lasting section came from."""
    return {o.section: o.source for o in outcomes if o.section not in REAL_TIME_SECTIONS}


def diff(older: HistoryEntry | None, newer: HistoryEntry) -> tuple[FieldChange, ...]:
    """What changed from one version of a context to another, in the order in which a context shows it.

    A section that came or went is one change; without an older version all came. A list of values is compared as a
    whole; of a list of records only those are told that are not on both sides.
    """
    past: Mapping[str, Any] = older.content if older else {}
    sources = {**(older.sources if older else {}), **newer.sources}
    return tuple(
        FieldChange(field=path, source=sources.get(section, ""), before=before, after=after, at=newer.at)
        for section in (*newer.content, *(name for name in past if name not in newer.content))
        for path, before, after in _changed(section, past.get(section), newer.content.get(section))
    )


def history_page_json(page: HistoryPage) -> dict[str, Any]:
    """The page as JSON values: each version with its changes, and the cursor of the next page."""
    return {
        "versions": [
            {
                "context_version": entry.context_version,
                "previous_version": older.context_version if older else None,
                "at": plain(entry.at),
                "changes": changes_json(diff(older, entry)),
            }
            for older, entry in page.steps()
        ],
        "next_cursor": page.next_cursor,
    }


def changes_json(changes: Sequence[FieldChange]) -> list[dict[str, Any]]:
    """The changes as JSON values."""
    return [plain(change) for change in changes]


def _changed(path: str, before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in (*after, *(key for key in before if key not in after)):
            yield from _changed(f"{path}.{key}", before.get(key), after.get(key))
    elif before != after:
        yield path, *_without_common(before, after)


def _without_common(before: Any, after: Any) -> tuple[Any, Any]:
    if not (_records(before) and _records(after)):
        return before, after
    gone = [record for record in before if record not in after]
    new = [record for record in after if record not in before]
    return (gone, new) if gone or new else (before, after)  # the same records, in another order or number


def _records(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) for item in value)
