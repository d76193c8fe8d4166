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


class ToolMode(StrEnum):
    """Whether a model may, must not, or must call a tool."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolChoice:
    """How a model is to use the tools; `name` forces that one tool."""

    mode: ToolMode = ToolMode.AUTO
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens as the engine counts them; `cached_tokens` are the part of the prompt that it had already read."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

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
    """One generation: the messages, and the passages an answer must rest on (may be empty).

    `model` is the name of one configured engine, which then answers alone; empty means the chain with its fallbacks.
    `account` names what the cost is summed under beside the day, such as `campaign:cpn_5f0c`; empty for single turns.
    """

    messages: tuple[ChatMessage, ...]
    passages: tuple[SourcePassage, ...] = ()
    model: str = ""
    max_tokens: int = 512
    #: `None` leaves it to the engine: OpenAI's reasoning models take no other than their own.
    temperature: float | None = None
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    #: A JSON schema that the reply's text must satisfy.
    response_schema: Mapping[str, Any] | None = None
    #: Whether the engine must hold itself to that schema; not every schema can be held to.
    strict: bool = True
    account: str = ""
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
    """A finished generation: which engine answered, and whether it did so as a fallback (`degraded`).

    `cost_usd` is `None` when the price table does not know the model.
    """

    text: str
    engine: str
    model: str
    finish_reason: FinishReason = FinishReason.STOP
    citations: tuple[Citation, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage = Usage()
    cost_usd: float | None = None
    degraded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A piece of a streamed generation; the last one carries `reply`, which is authoritative."""

    text: str = ""
    reply: LanguageModelReply | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineState:
    """How a chain finds one of its engines: `breaker` is closed, open or half_open.

    `failing` is the code of its last outage, or of its last health check if that failed later; empty while it is well.
    """

    engine: str
    breaker: str
    external: bool
    failing: str = ""
