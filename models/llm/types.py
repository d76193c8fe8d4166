"""Values of the language-model contract: what a request carries and what an engine answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A model's wish to run a tool; `arguments` is the JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatMessage:
    """One message of a conversation as a model sees it."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePassage:
    """A piece of an approved document that an answer may quote.

    Passages travel typed beside the messages, never inside them: an engine renders them as its model likes, and nothing
    ever parses them back out of a prompt.
    """

    passage_id: str
    document_id: str
    title: str
    version: str
    text: str
    score: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """A verbatim quote from one passage: `quote` is a substring of that passage's text."""

    passage_id: str
    document_id: str
    title: str
    version: str
    quote: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """A tool as a model sees it; `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens as the engine counts them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an engine can do; asking for more is `UnsupportedByModel`."""

    streaming: bool
    tools: bool
    schema: bool
    #: Answers without passages, from the model's own knowledge.
    free_text: bool
    #: Sends what it is given outside our walls, so personal data is redacted first.
    external: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageModelRequest:
    """One generation: the messages, and the passages an answer must rest on (may be empty)."""

    messages: tuple[ChatMessage, ...]
    passages: tuple[SourcePassage, ...] = ()
    max_tokens: int = 512
    temperature: float = 0.0
    tools: tuple[ToolSpec, ...] = ()
    response_schema: Mapping[str, Any] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def question(self) -> str:
        """The last user message, which an answer must address."""
        for message in reversed(self.messages):
            if message.role is Role.USER:
                return message.content
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageModelReply:
    """A finished generation: which engine answered, and whether it did so as a fallback."""

    text: str
    engine: str
    model: str
    finish_reason: FinishReason = FinishReason.STOP
    citations: tuple[Citation, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage = Usage()
    degraded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A piece of a streamed generation; the last one carries `reply`, which is authoritative."""

    text: str = ""
    reply: LanguageModelReply | None = None
