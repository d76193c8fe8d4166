"""The body of a finished chat completion, and how an engine's replies or the assistant's turn become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from deployments.ingress.schemas import Wire
from models.llm.types import Citation, LanguageModelReply, ToolCall, Usage
from models.sessions.types import HandoffReason, Outcome, Turn

Finish = Literal["stop", "length", "tool_calls", "content_filter"]


class PromptTokensDetails(Wire):
    cached_tokens: int


class CompletionUsage(Wire):
    """Tokens as the engine counts them, over all choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails

    @classmethod
    def of(cls, usages: Sequence[Usage]) -> CompletionUsage:
        """The sum; a prompt is counted once for each choice, because each was paid for."""
        prompt = sum(usage.prompt_tokens for usage in usages)
        completion = sum(usage.completion_tokens for usage in usages)
        return cls(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=sum(usage.cached_tokens for usage in usages)),
        )


class FunctionCallBody(Wire):
    name: str
    arguments: str


class ToolCallBody(Wire):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCallBody

    @classmethod
    def of(cls, call: ToolCall) -> ToolCallBody:
        return cls(id=call.id, type="function", function=FunctionCallBody(name=call.name, arguments=call.arguments))


class FileCitation(Wire):
    """OpenAI's annotation of that name, with the quote and the document's version added."""

    type: Literal["file_citation"] = "file_citation"
    file_id: str
    """The document's id."""
    filename: str
    """The document's title."""
    index: int
    """Where in the text the citation belongs: behind the quote, or at the end."""
    quote: str
    version: str

    @classmethod
    def of(cls, citation: Citation, text: str) -> FileCitation:
        found = text.find(citation.quote)
        return cls(
            type="file_citation",
            file_id=citation.document_id,
            filename=citation.title,
            index=len(text) if found < 0 else found + len(citation.quote),
            quote=citation.quote,
            version=citation.version,
        )


class AssistantMessage(Wire):
    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: list[ToolCallBody] | None = None
    annotations: list[FileCitation] | None = None


class ChatChoice(Wire):
    index: int
    message: AssistantMessage
    logprobs: None = None
    finish_reason: Finish


class RapportDetails(Wire):
    """What OpenAI's shape has no place for; clients that do not know it pass it by."""

    request_id: str
    engine: str
    model: str | None = None
    """The model as the engine names it."""
    degraded: list[str]
    """Parts that were left out or stood in for; empty when all went well."""
    cost_usd: float | None = None
    """Null when the price is not known."""
    outcome: Outcome | None = None
    """Of the model `rapport`: how the turn ended."""
    reason: HandoffReason | None = None
    ticket_id: str | None = None
    record_id: str | None = None
    action_id: str | None = None

    @classmethod
    def of(cls, replies: Sequence[LanguageModelReply], request_id: str) -> RapportDetails:
        """Of an engine's choices; the cost is their sum, and null as soon as one is not known."""
        costs = [reply.cost_usd for reply in replies]
        known = [cost for cost in costs if cost is not None]
        return cls(
            request_id=request_id,
            engine=replies[0].engine,
            model=replies[0].model,
            degraded=["language_model"] if any(reply.degraded for reply in replies) else [],
            cost_usd=sum(known) if len(known) == len(costs) else None,
        )

    @classmethod
    def of_turn(cls, turn: Turn, request_id: str) -> RapportDetails:
        return cls(
            request_id=request_id,
            engine=turn.engine,
            degraded=list(turn.degraded),
            cost_usd=turn.cost_usd,
            outcome=turn.outcome,
            reason=turn.reason,
            ticket_id=turn.ticket_id,
            record_id=turn.record_id,
            action_id=turn.action_id,
        )

    def fields(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_unset=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """What every chunk and body of one completion has in common; `model` is the name that the caller chose."""

    id: str
    created: int
    model: str
    request_id: str


class ChatCompletion(Wire):
    """A whole chat completion."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage
    rapport: RapportDetails

    @classmethod
    def of(cls, heading: Heading, replies: Sequence[LanguageModelReply]) -> ChatCompletion:
        """The choices of an engine, in their order."""
        return cls(
            id=heading.id,
            object="chat.completion",
            created=heading.created,
            model=heading.model,
            choices=[_choice(index, reply) for index, reply in enumerate(replies)],
            usage=CompletionUsage.of([reply.usage for reply in replies]),
            rapport=RapportDetails.of(replies, heading.request_id),
        )

    @classmethod
    def of_turn(cls, heading: Heading, turn: Turn) -> ChatCompletion:
        """The assistant's reply, with its citations as annotations."""
        message = AssistantMessage(
            role="assistant", content=turn.reply or "", refusal=None, annotations=annotations_of(turn)
        )
        return cls(
            id=heading.id,
            object="chat.completion",
            created=heading.created,
            model=heading.model,
            choices=[ChatChoice(index=0, message=message, logprobs=None, finish_reason=finish_of(turn))],
            usage=CompletionUsage.of([usage_of(turn)]),
            rapport=RapportDetails.of_turn(turn, heading.request_id),
        )

    def encoded(self) -> bytes:
        return self.model_dump_json(exclude_unset=True).encode()


def _choice(index: int, reply: LanguageModelReply) -> ChatChoice:
    message = AssistantMessage(role="assistant", content=reply.text, refusal=None)
    if reply.citations:
        message.annotations = [FileCitation.of(citation, reply.text) for citation in reply.citations]
    if reply.tool_calls:
        message.content = reply.text or None
        message.tool_calls = [ToolCallBody.of(call) for call in reply.tool_calls]
    return ChatChoice(index=index, message=message, logprobs=None, finish_reason=reply.finish_reason.value)


def annotations_of(turn: Turn) -> list[FileCitation]:
    return [FileCitation.of(citation, turn.reply or "") for citation in turn.citations]


def finish_of(turn: Turn) -> Finish:
    """`content_filter` when moderation withheld the answer, whose place fixed words have taken."""
    return "content_filter" if turn.outcome is Outcome.REFUSED else "stop"


def usage_of(turn: Turn) -> Usage:
    return Usage(prompt_tokens=turn.prompt_tokens, completion_tokens=turn.completion_tokens)
