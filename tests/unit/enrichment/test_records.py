"""Packed records: what is unpacked is what was packed, of the same release and generation, or nothing."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from models.enrichment import records
from models.enrichment.records import SectionRecord, checked, epoch_ms, pack, unpack
from models.enrichment.types import SECTIONS, ProductStatus, Section
from tests.fakes.enrichment import ACME, MORE, NOW

EVERY = {**ACME, **MORE}
AT = epoch_ms(NOW)


def record(section: Section | None) -> SectionRecord:
    return SectionRecord(section=section, as_of_ms=AT, fresh_ms=300_000, latency_ms=1.5, read_at=50.0, order=7)


def unpacked(name: str, data: bytes, *, stamp: str = "s", later_ms: int = 0) -> SectionRecord | None:
    return unpack(name, data, stamp=stamp, now_ms=AT + later_ms, clock_s=100.0, confirm_s=30.0)


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_survives_being_packed(name: str) -> None:
    again = unpacked(name, pack(record(EVERY[name]), "s"))
    assert again is not None
    assert again.section == EVERY[name]
    assert type(again.section) is SECTIONS[name]
    assert (again.as_of_ms, again.fresh_ms, again.latency_ms, again.order) == (AT, 300_000, 1.5, 0)
    assert again.confirmed_until == 130.0
    assert records.dump(again.section) == records.dump(EVERY[name]), "or the version of the context would change"


def test_nothing_is_a_record_too() -> None:
    again = unpacked("support_history", pack(record(None), "s"))
    assert again is not None
    assert again.section is None


def test_age_is_carried_to_the_clock_of_the_reader() -> None:
    data = pack(record(None), "s")
    later, earlier = unpacked("support_history", data, later_ms=4_000), unpacked("support_history", data, later_ms=-9)
    assert later is not None
    assert earlier is not None
    assert (later.read_at, earlier.read_at) == (96.0, 100.0)


def test_another_release_or_generation_is_a_miss() -> None:
    data = pack(record(ACME["support_history"]), "s")
    assert unpacked("support_history", data, stamp="t") is None
    assert unpacked("support_history", b"ffffffff" + data[8:]) is None


@pytest.mark.parametrize("data", [b"", b"\n", b"garbage", b"{}\n{}", b"\xff\x00 not ours"])
def test_anything_else_is_a_miss(data: bytes) -> None:
    assert unpacked("support_history", data) is None


def test_a_truncated_value_is_a_miss() -> None:
    whole = pack(record(ACME["support_history"]), "s")
    assert [unpacked("support_history", whole[:cut]) for cut in range(len(whole))] == [None] * len(whole)


def test_text_that_looks_like_our_own_survives() -> None:
    section = EVERY["product_status"]
    assert isinstance(section, ProductStatus)
    incident = replace(section.incidents[0], title='s 1 2\n{"a":1} %d \\u2028 é🙂')
    again = unpacked("product_status", pack(record(replace(section, incidents=(incident,))), "s"))
    assert again is not None
    assert again.section == replace(section, incidents=(incident,))


def test_the_schema_version_covers_nested_shapes() -> None:
    schemas = {name: adapter.json_schema() for name, adapter in records._ADAPTERS.items()}
    nested = schemas["product_status"]["$defs"]["OpenIncident"]["properties"]
    incident = MORE["product_status"].incidents[0]  # type: ignore[union-attr]  # a ProductStatus
    assert set(nested) == {item.name for item in fields(incident)}


@pytest.mark.parametrize(
    "value",
    [
        "text",
        {"open_tickets": 1},
        ACME["account_health"],
        replace(ACME["support_history"], open_tickets="many"),  # type: ignore[arg-type]  # garbage on purpose
        replace(ACME["support_history"], common_topics=(1, 2)),  # type: ignore[arg-type]  # garbage on purpose
        replace(ACME["support_history"], open_tickets=object()),  # type: ignore[arg-type]  # garbage on purpose
    ],
)
def test_what_is_no_such_section_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        checked("support_history", value)


@pytest.mark.parametrize("topics", [("x" * 2_000_000,), ("x",) * 100_000, ("x" * 1_000,) * 2_000])
def test_what_is_too_large_is_refused_before_it_is_looked_at(
    topics: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    dumped: list[object] = []
    monkeypatch.setattr(records, "dump", dumped.append)
    with pytest.raises(ValueError, match="larger"):
        checked("support_history", replace(ACME["support_history"], common_topics=topics))  # type: ignore[arg-type]  # a SupportHistory
    assert dumped == []


def test_what_contains_itself_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises((TypeError, ValueError)):
        checked("support_history", replace(ACME["support_history"], common_topics=endless))  # type: ignore[arg-type]  # garbage on purpose


def test_a_well_formed_section_passes_unchanged() -> None:
    for name, section in EVERY.items():
        assert checked(name, section) == section
    assert checked("support_history", None) is None
