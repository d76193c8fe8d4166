"""What the rest of Rapport relies on when it needs a language model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from models.llm.types import Capabilities, Delta, LanguageModelReply, LanguageModelRequest
from models.resilience.deadline import Deadline


class LanguageModel(Protocol):
    """Generates text from messages and typed passages."""

    async def generate(self, request: LanguageModelRequest, *, deadline: Deadline) -> LanguageModelReply:
        """The whole reply.

        Raises `UnsupportedByModel`, `ContextLengthExceeded` and `ModelRefused` for what the request asks,
        `ModelUnavailable` (or a kind of it) and `DeadlineExceeded` for what the engine fails to do.
        """
        ...

    def stream(self, request: LanguageModelRequest, *, deadline: Deadline) -> AsyncIterator[Delta]:
        """Pieces as they come, the last one carrying the reply; closing the iterator cancels the model's work."""
        ...

    async def check_health(self) -> None:
        """Return if the engine can answer now; raise `ModelUnavailable` otherwise."""
        ...

    async def close(self) -> None: ...


class Engine(LanguageModel, Protocol):
    """A language model that knows its name and what it can do: what a chain is made of."""

    @property
    def engine(self) -> str:
        """Name as in the setting `language_model.engine`, without a variant."""
        ...

    @property
    def capabilities(self) -> Capabilities: ...
