"""Values of the classification contract."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Category(StrEnum):
    INFORMATIONAL = "informational"
    SERVICE_ACTION = "service_action"
    SAFETY_COMPLIANCE = "safety_compliance"


class Intent(StrEnum):
    OPEN_TICKET = "open_ticket"
    TRACK_ORDER = "track_order"
    REFUND = "refund"
    CANCEL_ORDER = "cancel_order"
    UPDATE_ACCOUNT = "update_account"


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """What a message is about.

    `confidence` is the probability of `category` (0 to 1). `abstained` says that the classifier does not stand behind
    it (out of scope or too close to call); the category is then its best guess and a human should look.
    """

    category: Category
    confidence: float
    reasoning: str
    abstained: bool = False
    intent: Intent | None = None
    intent_confidence: float = 0.0
    engine: str = ""
