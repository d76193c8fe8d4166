"""Structured logging and the small metrics contract every room may use."""

from __future__ import annotations

import atexit
import contextvars
import json
import logging
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from queue import SimpleQueue
from typing import Protocol

#: The id of the request being served; set by the ingress, carried by context, printed on every log line.
request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")

#: The caller on whose behalf work is done; set by the ingress beside the request id.
principal: contextvars.ContextVar[str] = contextvars.ContextVar("principal", default="")

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "request_id"}


class Metrics(Protocol):
    """Counts and observes by metric name; names and label sets are declared in one table by the implementation."""

    def count(self, name: str, value: float = 1.0, **labels: str) -> None: ...

    def observe(self, name: str, value: float, **labels: str) -> None: ...


class NoMetrics:
    """Metrics that go nowhere: for library use and tests that look elsewhere."""

    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        return None

    def observe(self, name: str, value: float, **labels: str) -> None:
        return None


class JsonFormatter(logging.Formatter):
    """One JSON object a line; `redact` is applied to the message and to every text field."""

    def __init__(self, redact: Callable[[str], str] | None = None) -> None:
        super().__init__()
        self._redact = redact or (lambda text: text)

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": self._redact(record.getMessage()),
        }
        if rid := getattr(record, "request_id", "") or request_id.get():
            line["request_id"] = rid
        for key, value in record.__dict__.items():
            if key not in _STANDARD and not key.startswith("_"):
                line[key] = self._clean(value)
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = self._redact(self.formatException(record.exc_info))
        return json.dumps(line, default=lambda value: self._redact(str(value)), ensure_ascii=False)

    def _clean(self, value: object) -> object:
        if isinstance(value, str):
            return self._redact(value)
        if isinstance(value, Mapping):
            return {str(key): self._clean(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._clean(inner) for inner in value]
        return value


class _Handover(QueueHandler):
    """Hands a record to the writing thread as it is; only what the caller's context knows is added here."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        record.request_id = getattr(record, "request_id", "") or request_id.get()
        return record


def configure_logging(level: str = "INFO", *, redact: Callable[[str], str] | None = None) -> None:
    """Send every log line of this process as JSON to stderr; safe to call again.

    Redaction, formatting and writing happen in a thread of their own, so that an event loop never waits for the disk.
    """
    writer = logging.StreamHandler(sys.stderr)
    writer.setFormatter(JsonFormatter(redact))
    lines: SimpleQueue[logging.LogRecord] = SimpleQueue()
    listener = QueueListener(lines, writer)
    listener.start()
    atexit.register(listener.stop)
    root = logging.getLogger()
    root.handlers = [_Handover(lines)]
    root.setLevel(level)


class Transition:
    """Logs a source going away once, and its return once."""

    def __init__(self, name: str, logger: logging.Logger) -> None:
        self._name = name
        self._logger = logger
        self._up = True

    def down(self, cause: BaseException, **fields: object) -> None:
        if self._up:
            self._up = False
            extra: Mapping[str, object] = {"source": self._name, "error": type(cause).__name__, **fields}
            self._logger.warning("source went away", extra=dict(extra))

    def up(self) -> None:
        if not self._up:
            self._up = True
            self._logger.info("source is back", extra={"source": self._name})
