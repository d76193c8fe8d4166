"""Log lines carry the request they belong to and no personal data, however deep it lies."""

from __future__ import annotations

import json
import logging

from models.safety.pii import PatternPIIDetector
from models.telemetry import JsonFormatter


def line(message: str, **fields: object) -> dict[str, object]:
    record = logging.makeLogRecord({"msg": message, "levelname": "INFO", "name": "test", **fields})
    parsed: dict[str, object] = json.loads(JsonFormatter(PatternPIIDetector().redact).format(record))
    return parsed


def test_personal_data_is_redacted_at_any_depth() -> None:
    written = line("mail from joe@example.com", note={"inner": ["call 415-555-0132", 5]}, request_id="req_1")
    assert "joe@example.com" not in json.dumps(written)
    assert "415-555-0132" not in json.dumps(written)
    assert written["request_id"] == "req_1"


def test_numbers_keep_their_type() -> None:
    assert line("done", duration_ms=1.5)["duration_ms"] == 1.5
