"""What the rest of Rapport relies on to classify messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from models.classification.types import Classification
from models.embedding.protocol import Vectors
from models.resilience.deadline import Deadline


class Classifier(Protocol):
    """Sorts customer messages into categories and intents."""

    async def classify(
        self, messages: Sequence[str], *, vectors: Vectors | None = None, deadline: Deadline | None = None
    ) -> list[Classification]:
        """One classification per message. `vectors` are their embeddings when the caller already has them.

        Raises `ModelUnavailable`, `DeadlineExceeded`.
        """
        ...
