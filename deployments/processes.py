"""What every replica process sets up once."""

from __future__ import annotations

import logging

from models.safety.pii import PatternPIIDetector
from models.settings import Settings
from models.telemetry import configure_logging
from providers.database import Database


def configure_process(settings: Settings) -> None:
    """JSON logs with personal data redacted, at the configured level."""
    configure_logging(settings.log_level, redact=PatternPIIDetector().redact)
    logging.getLogger("httpx").setLevel(logging.WARNING)


def open_database(settings: Settings) -> Database:
    """This process's pooled access to the configured database."""
    chosen = settings.database
    return Database(settings.database_url, pool_size=chosen.pool_size, busy_timeout_s=chosen.busy_timeout_s)
