"""A double that users can select: the name says how fast, how long, how well and how badly it answers."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import cycle, islice
from typing import Any, ClassVar, Self

from models.embedding.protocol import Embedder
from models.errors import (
    ConfigurationError,
    ContextLengthExceeded,
    DeadlineExceeded,
    FieldError,
    InvalidRequest,
    ModelAccessDenied,
    ModelRateLimited,
    ModelRefused,
    ModelReplyBroken,
    ModelUnavailable,
    RapportError,
    UnsupportedByModel,
)
from models.llm.completion import CallPiece, Completion, Piece, encodable, reply_of
from models.llm.prompt import GroundedPrompt, load_grounded_prompt
from models.llm.schema_instance import minimal_instance
from models.llm.script import OF_THE_ENGINE, Failure, Malformed, Script
from models.llm.sentences import SentenceKind, split_sentences
from models.llm.types import (
    Capabilities,
    Delta,
    FinishReason,
    LanguageModelReply,
    LanguageModelRequest,
    Role,
    SourcePassage,
    ToolMode,
    ToolSpec,
    Usage,
)
from models.resilience.deadline import Deadline
from models.settings import LanguageModelSettings

_REPLY = "This reply was written before you asked and says the same words in the same order every time."
_TOKENS = 16
_QUOTABLE = frozenset({SentenceKind.PROSE, SentenceKind.ITEM})
_GARBAGE = '\x00\x1b[31m\ufffd\u202e</script> [1 "never said"] {"a": [ %s \ud83d \u0000'
_JSON_TOKEN = re.compile(r".{1,4}", re.DOTALL)

_FAILURES: dict[Failure, type[RapportError]] = {
    Failure.ACCESS_DENIED: ModelAccessDenied,
    Failure.UNKNOWN_MODEL: ModelAccessDenied,
    Failure.RATE_LIMITED: ModelRateLimited,
    Failure.SERVER_ERROR: ModelUnavailable,
    Failure.UNAVAILABLE: ModelUnavailable,
    Failure.CONTEXT: ContextLengthExceeded,
    Failure.UNSUPPORTED: UnsupportedByModel,
    Failure.REFUSE: ModelRefused,
    Failure.CUT: ModelReplyBroken,
}


class ScriptedLanguageModel:
    """Does what its name says (`models.llm.script` lists the options), always the same for the same request.

    Token i leaves at start + ttft + i * gap, however late its predecessors were. Without an option that says otherwise
    it behaves: it quotes and cites the first sentence of the first passage, fills a schema with its smallest value, and
    calls the tool that a request demands. A request for `scripted:OPTIONS` is answered by those options alone.
    """

    engine: ClassVar[str] = "scripted"
    #: Of the class; an engine with `external=1` has its own.
    capabilities: Capabilities = Capabilities(streaming=True, tools=True, schema=True, free_text=True, external=False)

    def __init__(
        self,
        options: str = "",
        *,
        prompt: GroundedPrompt | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Raises `ConfigurationError` naming the option that is wrong."""
        self._name = f"{self.engine}:{options}" if options else self.engine
        self._script = Script.parse(options)
        self._prompt = prompt or load_grounded_prompt()
        self._clock = clock
        self._sleep = sleep
        self._calls = 0
        self.capabilities = Capabilities(
            streaming=True, tools=True, schema=True, free_text=True, external=self._script.external
        )

    @classmethod
    def from_settings(cls, settings: LanguageModelSettings, embedder: Embedder) -> Self:
        """The options stand after the colon in `language_model.engine`."""
        return cls(settings.engine.partition(":")[2])

    async def generate(self, request: LanguageModelRequest, *, deadline: Deadline) -> LanguageModelReply:
        """The whole reply, as late as its last token; raises as the script says."""
        return await reply_of(self.stream(request, deadline=deadline))

    async def stream(self, request: LanguageModelRequest, *, deadline: Deadline) -> AsyncIterator[Delta]:
        """One delta a token, then the reply."""
        start = self._clock()
        script = self._script_of(request)
        self._calls += 1
        fails = script.fail if script.fail_calls is None or self._calls <= script.fail_calls else None
        completion = Completion(request, self._prompt, engine=self.engine, model=request.model or self._name)
        due = start
        with completion.counted():
            for sent, piece in enumerate(self._pieces(request, script)):
                if piece.finish is None or sent == 0:
                    due = start + (script.ttft_ms + sent * script.gap_ms) / 1000.0
                await self._until(due, deadline)
                if fails is not None and (sent >= script.fail_after or piece.finish is not None):
                    await self._fail(fails, script, sent, deadline)
                if text := completion.add(piece):
                    yield Delta(text=text)
            if rest := completion.finish():
                yield Delta(text=rest)
        yield Delta(reply=completion.reply())

    async def check_health(self) -> None:
        """Always healthy: it is answers that fail."""

    async def close(self) -> None:
        """Nothing to release."""

    def _script_of(self, request: LanguageModelRequest) -> Script:
        if not request.messages:
            raise InvalidRequest("a request to a language model needs at least one message")
        options = request.model.partition(":")[2]
        if not options or request.model == self._name:
            return self._script
        try:
            script = Script.parse(options)
        except ConfigurationError as exc:
            raise _not_a_model(str(exc)) from exc
        for name in sorted(OF_THE_ENGINE):
            if getattr(script, name) != getattr(Script(), name):
                raise _not_a_model(f"scripted: the option {name} stands in the settings only")
        return script

    def _pieces(self, request: LanguageModelRequest, script: Script) -> Iterator[Piece]:
        """One piece a token; the last one ends the reply and counts the tokens."""
        tool = _tool(request, script)
        if tool is not None:
            tokens = _JSON_TOKEN.findall(_arguments(tool, script))
            pieces = [Piece(calls=(CallPiece(index=0, id="call_scripted", name=tool.name, arguments=tokens[0]),))]
            pieces += [Piece(calls=(CallPiece(index=0, arguments=token),)) for token in tokens[1:]]
        else:
            pieces = [Piece(text=token) for token in _until_stop(_tokens(request, script), request.stop)]
        cut = len(pieces) > request.max_tokens
        pieces = pieces[: request.max_tokens]
        prompt = sum(len(message.content.split()) for message in request.messages)
        prompt += sum(len(passage.text.split()) for passage in request.passages)
        yield from pieces
        yield Piece(
            finish=FinishReason.LENGTH if cut else FinishReason.STOP,
            usage=Usage(prompt_tokens=prompt, completion_tokens=len(pieces)),
        )

    async def _until(self, due: float, deadline: Deadline) -> None:
        """Wait until `due` on our clock; also where there is nothing to wait for, others get their turn."""
        wait_s = max(0.0, due - self._clock())
        left_s = deadline.remaining_s()
        await self._sleep(min(wait_s, left_s))
        if left_s <= wait_s:
            raise DeadlineExceeded("the scripted model did not finish within its time budget")

    async def _fail(self, failure: Failure, script: Script, sent: int, deadline: Deadline) -> None:
        if failure is Failure.TIMEOUT:
            await self._sleep(deadline.remaining_s())
            raise DeadlineExceeded("the scripted model fell silent, as its name says")
        # A status is the beginning of an answer: once there are tokens, an endpoint can only break off.
        error = ModelReplyBroken if sent else _FAILURES[failure]
        raised = error(f"the scripted model failed with {failure}, as its name says")
        if script.retry_after_ms is not None:
            raised.with_retry_after(script.retry_after_ms / 1000.0)
        raise raised


def _not_a_model(why: str) -> RapportError:
    return InvalidRequest(why).with_fields(FieldError("/model", why))


def _tool(request: LanguageModelRequest, script: Script) -> ToolSpec | None:
    """The tool to call now, if any: what the request demands, else what the script names."""
    offered = {tool.name: tool for tool in request.tools}
    choice = request.tool_choice
    if choice.name is not None:
        if choice.name not in offered:
            raise UnsupportedByModel("the tool that the request demands is not among those it offers")
        return offered[choice.name]
    if choice.mode is ToolMode.NONE or request.messages[-1].role is Role.TOOL:
        return None
    if script.tool is not None:  # also a tool that nobody offered: models do that
        return offered.get(script.tool, ToolSpec(name=script.tool, description="", parameters={"type": "object"}))
    return request.tools[0] if choice.mode is ToolMode.REQUIRED and request.tools else None


def _arguments(tool: ToolSpec, script: Script) -> str:
    if script.args is not None:
        return script.args
    return _json(minimal_instance(tool.parameters or {"type": "object"}), script)


def _tokens(request: LanguageModelRequest, script: Script) -> list[str]:
    """The reply's text in tokens; all but the first carry the space before them."""
    if script.text is not None:
        return re.findall(r"\s*\S+|\s+\Z", script.text)
    if script.malformed is Malformed.GARBAGE:
        return _JSON_TOKEN.findall(_GARBAGE)
    if request.response_schema is not None:
        return list(_JSON_TOKEN.findall(_json(minimal_instance(request.response_schema), script)))
    if script.malformed is not None:
        return list(_JSON_TOKEN.findall(_json({"answer": "no"}, script)))
    quoted = _quoted(request.passages[0]) if request.passages else []
    words = quoted or _REPLY.split()
    count = max(script.tokens or 0, len(quoted)) if quoted else _TOKENS if script.tokens is None else script.tokens
    return [word if place == 0 else f" {word}" for place, word in enumerate(islice(cycle(words), count))]


def _quoted(passage: SourcePassage) -> list[str]:
    """The words of the passage's first sentence, and the mark that cites it."""
    prose = (sentence for sentence in split_sentences(passage.text) if sentence.kind in _QUOTABLE)
    if (first := next(prose, None)) is None:
        return []
    quote = first.text
    # A quote that holds quotation marks would end its mark too early; a bare mark finds the sentence by its words.
    mark = "[1]" if re.search(r"[\"“”\]]", quote) else f'[1 "{quote}"]'
    return [*first.plain.split(), mark]


def _json(value: Any, script: Script) -> str:
    text = json.dumps(value, ensure_ascii=False)
    match script.malformed:
        case Malformed.JSON:
            return f'{{"answer": {text[:-1]}'
        case Malformed.SCHEMA:
            return '{"unexpected": [null]}' if isinstance(value, dict) and value else "[null]"
        case Malformed.GARBAGE:
            return str(encodable(_GARBAGE))
        case _:
            return text


def _until_stop(tokens: list[str], stop: tuple[str, ...]) -> list[str]:
    """The tokens before the first stop sequence."""
    text = "".join(tokens)
    end = min((place for word in stop if word and (place := text.find(word)) >= 0), default=len(text))
    kept: list[str] = []
    for token in tokens:
        if end <= 0:
            break
        kept.append(token[:end])
        end -= len(token)
    return kept
