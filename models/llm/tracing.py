"""What a chain tells whoever traces its calls; nobody, unless a tracer is given."""

from __future__ import annotations

from typing import Protocol

from models.llm.types import LanguageModelReply, LanguageModelRequest


class CallSpan(Protocol):
    """One call of one engine, all its tries included."""

    def try_failed(self, error: BaseException) -> None: ...

    def first_piece(self, after_s: float) -> None: ...

    def end(self, *, reply: LanguageModelReply | None = None, error: BaseException | None = None) -> None:
        """The call is over; with neither reply nor error its caller went away."""
        ...


class CallTracer(Protocol):
    """Opens spans; requests and replies reach it as the model sees them, redacted where that is redacted."""

    def start(self, engine: str, model: str, request: LanguageModelRequest, *, external: bool) -> CallSpan: ...

    def close(self) -> None:
        """Send what is left."""
        ...


class NoTracing:
    """A `CallTracer` that does nothing; it is its own span."""

    def start(self, engine: str, model: str, request: LanguageModelRequest, *, external: bool) -> CallSpan:
        return self

    def try_failed(self, error: BaseException) -> None:
        return None

    def first_piece(self, after_s: float) -> None:
        return None

    def end(self, *, reply: LanguageModelReply | None = None, error: BaseException | None = None) -> None:
        return None

    def close(self) -> None:
        return None
