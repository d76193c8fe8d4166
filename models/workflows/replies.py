"""Fixed wordings, read once and checked at the start."""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import yaml

from models.errors import ConfigurationError
from models.workflows.types import Severity

#: Every wording of `replies.yaml` and the names it may fill in.
REPLIES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        name: frozenset(fields.split())
        for name, fields in {
            "contact_options": "",
            "human_review": "",
            "unclear_request": "",
            "identify_customer": "",
            "customer_not_found": "",
            "order_needed": "",
            "order_needed_recent": "orders",
            "order_not_found": "order_id",
            "order_check_unavailable": "",
            "order_status": "order_id items status",
            "order_status_tracked": "order_id items status tracking_number",
            "cancel_prepared": "order_id items",
            "cancel_impossible": "order_id status",
            "refund_prepared": "order_id items total",
            "refund_impossible": "order_id status",
            "account_field_needed": "",
            "account_prepared": "field",
            "account_value_needed": "field",
            "subscription_end_prepared": "",
            "ticket_prepared": "",
            "handed_off": "ticket_id",
            "handed_off_waiting": "ticket_id",
            "no_answer": "",
            "out_of_scope": "",
            "refused": "",
            "tool_failure": "",
            "greeting": "",
            "thanks": "",
            "declined": "",
        }.items()
    }
)
SELF_HARM = "self_harm"
SAFETY_REPLIES: Mapping[str, frozenset[str]] = MappingProxyType(
    {name: frozenset({"record_id"}) for name in (*Severity, SELF_HARM)}
)


class Wordings:
    """Wordings by name; a file with a missing, unknown or misspelt name is refused before it can reach a customer."""

    def __init__(self, texts: Mapping[str, str], allowed: Mapping[str, frozenset[str]]) -> None:
        self._texts = {str(name): text.strip() for name, text in texts.items()}
        if set(self._texts) != {str(name) for name in allowed}:
            differing = ", ".join(sorted(set(self._texts) ^ {str(name) for name in allowed}))
            raise ConfigurationError(f"wordings missing or unknown: {differing}")
        for name, fields in allowed.items():
            used = {field for _, field, _, _ in string.Formatter().parse(self._texts[str(name)]) if field is not None}
            if used - fields:
                raise ConfigurationError(
                    f"wording {name} fills in {', '.join(sorted(used - fields))}, which is unknown"
                )

    @classmethod
    def read(cls, path: Path, allowed: Mapping[str, frozenset[str]] = REPLIES) -> Wordings:
        """From a YAML mapping of texts. Raises `ConfigurationError` naming the file or the wording."""
        try:
            raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as exc:
            raise ConfigurationError(f"{path.name} cannot be read as YAML") from exc
        if not isinstance(raw, dict) or not all(isinstance(text, str) for text in raw.values()):
            raise ConfigurationError(f"{path.name} must map names to texts")
        return cls(raw, allowed)

    def template(self, name: str) -> str:
        """The wording with the names in braces that `text` fills in."""
        return self._texts[name]

    def text(self, name: str, **fields: str) -> str:
        return self._texts[name].format_map(fields)
