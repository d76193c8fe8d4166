"""How the pieces of a streamed reply become one reply, whatever wire format they came in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from models.errors import ModelRefused, ModelReplyBroken
from models.llm.citations import MarkFilter, cited, without_marks
from models.llm.prompt import GroundedPrompt
from models.llm.types import Delta, FinishReason, LanguageModelReply, LanguageModelRequest, ToolCall, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPiece:
    """A part of the tool call number `index`; the parts of `arguments` joined are its JSON text."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What one event of a streamed reply adds; `refusal` is the model's own words for not answering."""

    text: str = ""
    refusal: str = ""
    calls: tuple[CallPiece, ...] = ()
    finish: FinishReason | None = None
    usage: Usage | None = None
    model: str = ""


class Completion:
    """Puts the pieces of one streamed reply together.

    An answer from passages loses its citation marks and gains citations, and no word of a refusal reaches the caller. A
    reply that fills a schema, or rests on no passages, is left as the model wrote it.
    """

    def __init__(self, request: LanguageModelRequest, prompt: GroundedPrompt, *, engine: str, model: str) -> None:
        self._passages = request.passages if request.response_schema is None else ()
        self._no_answer = prompt.no_answer
        self._engine = engine
        self._model = model
        self._filter = MarkFilter()
        self._raw: list[str] = []
        self._half = ""
        self._head = ""
        self._head_passed = False
        self._finish: FinishReason | None = None
        self._refused = False
        self._usage: Usage | None = None
        self._calls: dict[int, _Call] = {}

    @contextmanager
    def counted(self) -> Iterator[None]:
        """An error that ends the reply within this block carries the usage that came before it: tokens are billed."""
        try:
            yield
        except (ModelRefused, ModelReplyBroken) as exc:
            exc.usage = exc.usage or self._usage
            raise

    def add(self, piece: Piece) -> str:
        """The text that this piece makes certain."""
        self._usage = piece.usage or self._usage
        self._model = piece.model or self._model
        self._finish = piece.finish or self._finish
        self._refused = self._refused or bool(piece.refusal)
        for part in piece.calls:
            self._calls.setdefault(part.index, _Call()).add(part)
        return self._certain(self._whole(piece.text)) if piece.text else ""

    def finish(self) -> str:
        """The last of the text.

        Raises `ModelReplyBroken` if the reply never said that it is finished, and `ModelRefused` if the model would not
        answer or said that the sources hold no answer.
        """
        if self._finish is None:
            raise ModelReplyBroken("the reply broke off")
        if self._refused:
            raise ModelRefused("the model would not answer")
        if any(not call.name for call in self._calls.values()):
            raise ModelReplyBroken("the reply holds a tool call without a name")
        rest = self._certain(encodable(self._half)) if self._half else ""
        self._half = ""
        if not self._passages:
            return rest
        if not self._head_passed:
            if self._head.strip().startswith(self._no_answer):
                raise ModelRefused("the model found no answer in the passages")
            self._head_passed = True
            rest = self._filter.feed(self._head)
        return rest + self._filter.close()

    def reply(self) -> LanguageModelReply:
        """The finished reply; its text is what `add` and `finish` returned, joined."""
        calls = tuple(self._calls[index].whole(index) for index in sorted(self._calls))
        finish = self._finish or FinishReason.STOP
        if calls and finish is FinishReason.STOP:  # what OpenAI and vLLM say when a tool was forced
            finish = FinishReason.TOOL_CALLS
        return LanguageModelReply(
            text=without_marks(self._filter.raw) if self._passages else "".join(self._raw),
            engine=self._engine,
            model=self._model,
            finish_reason=finish,
            citations=cited(self._filter.raw, self._passages),
            tool_calls=calls,
            usage=self._usage or Usage(),
        )

    def _certain(self, text: str) -> str:
        if not self._passages:
            self._raw.append(text)
            return text
        if self._head_passed:
            return self._filter.feed(text)
        self._head += text
        start = self._head.lstrip()
        if self._no_answer.startswith(start[: len(self._no_answer)]):
            return ""  # may still be the refusal; not a word of it may reach the customer
        self._head_passed = True
        return self._filter.feed(start)

    def _whole(self, text: str) -> str:
        """The text, without a last half of a surrogate pair: its other half comes with the next piece."""
        text, self._half = self._half + text, ""
        if "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return str(encodable(text))


class _Call:
    """A tool call that comes in parts."""

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self._arguments: list[str] = []

    def add(self, part: CallPiece) -> None:
        # Some endpoints repeat id and name in every part.
        self.id = self.id or part.id
        self.name = self.name or part.name
        self._arguments.append(part.arguments)

    def whole(self, index: int) -> ToolCall:
        return ToolCall(
            id=self.id or f"call_{index}", name=self.name, arguments=str(encodable("".join(self._arguments)))
        )


async def reply_of(deltas: AsyncIterator[Delta]) -> LanguageModelReply:
    """The reply at the end of a stream. Raises `ModelReplyBroken` if there is none."""
    reply: LanguageModelReply | None = None
    async for delta in deltas:
        reply = delta.reply or reply
    if reply is None:
        raise ModelReplyBroken("the stream ended without a reply")
    return reply


def encodable(value: Any) -> Any:
    """The JSON value with lone surrogates as U+FFFD: they reach us through JSON escapes, and UTF-8 has none."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return value
    if isinstance(value, Mapping):
        return {encodable(key): encodable(inner) for key, inner in value.items()}
    if isinstance(value, Sequence):
        return [encodable(inner) for inner in value]
    return value
