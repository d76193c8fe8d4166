"""Language models behind any OpenAI-compatible chat-completions endpoint (OpenAI, vLLM, Ollama, gateways...)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Self

import httpx2
import openai
from openai import AsyncOpenAI

from models.embedding.protocol import Embedder
from models.errors import (
    ConfigurationError,
    ContextLengthExceeded,
    DeadlineExceeded,
    ModelRefused,
    ModelUnavailable,
    UnsupportedByModel,
)
from models.llm.citations import MarkFilter, cited, without_marks
from models.llm.prompt import GroundedPrompt, load_grounded_prompt
from models.llm.types import (
    Capabilities,
    ChatMessage,
    Delta,
    FinishReason,
    LanguageModelReply,
    LanguageModelRequest,
    Role,
    ToolCall,
    Usage,
)
from models.resilience.breaker import CircuitBreaker
from models.resilience.deadline import Deadline
from models.resilience.retry import RetryPolicy
from models.settings import LanguageModelSettings

_FINISH = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}

_TRANSIENT_STATUSES = frozenset({408, 409, 429, 500, 502, 503, 504, 529})


class OpenAILanguageModel:
    """Chat completions by the official client; passages are rendered as numbered sources, citations checked verbatim.

    A failed call is tried again (at most three times, with jitter, inside the deadline) only while nothing of the reply
    has reached the caller. After repeated outages in a row a circuit breaker refuses at once with `ModelUnavailable`,
    until a trial call gets through. A reply that says the sources hold no answer is `ModelRefused`.
    """

    engine = "openai"
    capabilities = Capabilities(streaming=True, tools=True, schema=True, free_text=True, external=True)

    def __init__(
        self,
        model: str,
        *,
        api_key: str,
        base_url: str,
        timeout_s: float = 30.0,
        prompt: GroundedPrompt | None = None,
        retry: RetryPolicy | None = None,
        breaker: CircuitBreaker | None = None,
        http_client: httpx2.AsyncClient | None = None,
    ) -> None:
        self._model = model
        self._timeout_s = timeout_s
        self._prompt = prompt or load_grounded_prompt()
        self._retry = retry or RetryPolicy(retryable=is_transient)
        self._breaker = breaker or circuit_breaker(model)
        # An endpoint of one's own may need no key, but the client insists on some text.
        self._client = AsyncOpenAI(api_key=api_key or "none", base_url=base_url, max_retries=0, http_client=http_client)

    @classmethod
    def from_settings(cls, settings: LanguageModelSettings, embedder: Embedder) -> Self:
        """Raises `ConfigurationError` if OpenAI's own address is used without a key."""
        key = settings.openai_api_key.get_secret_value()
        if not key and httpx2.URL(settings.openai_base_url).host == "api.openai.com":
            raise ConfigurationError("the openai engine needs OPENAI_API_KEY, or an OPENAI_BASE_URL that needs no key")
        return cls(settings.openai_model, api_key=key, base_url=settings.openai_base_url, timeout_s=settings.timeout_s)

    async def generate(self, request: LanguageModelRequest, *, deadline: Deadline) -> LanguageModelReply:
        """The whole reply; raises as the protocol says."""
        reply: LanguageModelReply | None = None
        async for delta in self.stream(request, deadline=deadline):
            reply = delta.reply or reply
        if reply is None:
            raise ModelUnavailable(f"model {self._model!r} ended its reply without finishing it")
        return reply

    async def stream(self, request: LanguageModelRequest, *, deadline: Deadline) -> AsyncIterator[Delta]:
        """Text without citation marks as it comes, then the reply; closing the iterator closes the connection."""
        budget = deadline.child(self._timeout_s)
        answer = _Answer(request, self._prompt, self._model)
        chunks, first = await self._retry.run(lambda: self._attempt(request, budget), deadline=budget)
        try:
            chunk: Any = first
            while chunk is not None:
                if text := answer.add(chunk):
                    yield Delta(text=text)
                chunk = await self._next(chunks, budget)
        finally:
            await chunks.close()
        if rest := answer.finish():
            yield Delta(text=rest)
        yield Delta(reply=answer.reply())

    async def check_health(self) -> None:
        """Return if the endpoint lists its models for our key; raise `ModelUnavailable` otherwise."""
        try:
            await self._client.models.list(timeout=min(self._timeout_s, 5.0))
        except openai.OpenAIError as exc:
            raise translate(exc, self._model) from exc

    async def close(self) -> None:
        """Close the connection pool."""
        await self._client.close()

    async def _attempt(self, request: LanguageModelRequest, budget: Deadline) -> tuple[Any, Any]:
        with self._breaker.guard():
            return await self._begin(request, budget)

    async def _begin(self, request: LanguageModelRequest, budget: Deadline) -> tuple[Any, Any]:
        """The open stream and its first chunk: up to here a retry costs the caller nothing."""
        chunks: Any = None
        try:
            async with budget.enforce(f"model {self._model!r}"):
                chunks = await self._client.chat.completions.create(**self._arguments(request))
                return chunks, await anext(aiter(chunks), None)
        except openai.OpenAIError as exc:
            await _close(chunks)
            raise translate(exc, self._model) from exc
        except httpx2.HTTPError as exc:
            await _close(chunks)
            raise ModelUnavailable(f"model {self._model!r}: the connection broke ({type(exc).__name__})") from exc
        except BaseException:
            await _close(chunks)
            raise

    async def _next(self, chunks: Any, budget: Deadline) -> Any:
        try:
            async with budget.enforce(f"model {self._model!r}"):
                return await anext(aiter(chunks), None)
        except openai.OpenAIError as exc:
            raise translate(exc, self._model) from exc
        except httpx2.HTTPError as exc:
            raise ModelUnavailable(f"model {self._model!r}: the reply broke off ({type(exc).__name__})") from exc

    def _arguments(self, request: LanguageModelRequest) -> dict[str, Any]:
        messages = [_wire(message) for message in request.messages]
        if request.passages:
            messages.insert(0, {"role": "system", "content": self._prompt.render(request.passages)})
        arguments: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
            # The deadline is enforced around the call; the client's own limit only has to be no shorter.
            "timeout": self._timeout_s + 1.0,
        }
        if request.tools:
            arguments["tools"] = [
                {
                    "type": "function",
                    "function": {"name": t.name, "description": t.description, "parameters": dict(t.parameters)},
                }
                for t in request.tools
            ]
        if request.response_schema is not None:
            arguments["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "reply", "schema": dict(request.response_schema), "strict": True},
            }
        return arguments


class _Answer:
    """Puts one streamed completion together."""

    def __init__(self, request: LanguageModelRequest, prompt: GroundedPrompt, model: str) -> None:
        self._passages = request.passages
        self._no_answer = prompt.no_answer
        self._model = model
        self._filter = MarkFilter()
        self._head = ""
        self._head_passed = not request.passages
        self._finish = FinishReason.STOP
        self._usage = Usage()
        self._calls: dict[int, dict[str, str]] = {}

    def add(self, chunk: Any) -> str:
        """The text that this chunk makes certain."""
        if chunk.usage is not None:
            self._usage = Usage(
                prompt_tokens=chunk.usage.prompt_tokens, completion_tokens=chunk.usage.completion_tokens
            )
        if chunk.model:
            self._model = chunk.model
        if not chunk.choices:
            return ""
        choice = chunk.choices[0]
        if choice.finish_reason:
            self._finish = _FINISH.get(choice.finish_reason, FinishReason.STOP)
        for call in choice.delta.tool_calls or ():
            held = self._calls.setdefault(call.index, {"id": "", "name": "", "arguments": ""})
            held["id"] = held["id"] or call.id or ""
            if call.function is not None:
                held["name"] += call.function.name or ""
                held["arguments"] += call.function.arguments or ""
        return self._text(choice.delta.content or "")

    def finish(self) -> str:
        """The last of the text. Raises `ModelRefused` if the model said that the sources hold no answer."""
        if not self._head_passed:
            if self._head.strip().startswith(self._no_answer):
                raise ModelRefused("the model found no answer in the passages")
            self._head_passed = True
            return self._filter.feed(self._head) + self._filter.close()
        return self._filter.close()

    def reply(self) -> LanguageModelReply:
        raw = self._filter.raw
        return LanguageModelReply(
            text=without_marks(raw) if self._passages else raw,
            engine=OpenAILanguageModel.engine,
            model=self._model,
            finish_reason=self._finish,
            citations=cited(raw, self._passages),
            tool_calls=tuple(ToolCall(**self._calls[index]) for index in sorted(self._calls)),
            usage=self._usage,
        )

    def _text(self, piece: str) -> str:
        if not self._passages:
            self._filter.raw += piece
            return piece
        if self._head_passed:
            return self._filter.feed(piece)
        self._head += piece
        start = self._head.lstrip()
        if self._no_answer.startswith(start[: len(self._no_answer)]):
            return ""  # may still be the refusal; not a word of it may reach the customer
        self._head_passed = True
        return self._filter.feed(start)


def is_transient(error: Exception) -> bool:
    """Whether another try may mend a translated error: lost connections, rate limits and failing servers."""
    cause = error.__cause__
    if isinstance(cause, openai.APIStatusError):
        return cause.status_code in _TRANSIENT_STATUSES and cause.code != "insufficient_quota"
    return isinstance(cause, openai.APIConnectionError | httpx2.HTTPError)


def is_outage(error: BaseException) -> bool:
    """Whether a translated error speaks against the endpoint: what another try may mend, and silence."""
    return isinstance(error, DeadlineExceeded) or (isinstance(error, Exception) and is_transient(error))


def circuit_breaker(model: str) -> CircuitBreaker:
    """The breaker of one engine: opens after five outages in a row, tries again ten seconds later."""
    return CircuitBreaker(f"model {model!r}", counts=is_outage, refusal=ModelUnavailable)


def translate(error: openai.OpenAIError, model: str) -> Exception:
    """The client's error as one of ours, most specific first; the message never holds the endpoint's text."""
    where = f"model {model!r}"
    match error:
        case openai.APITimeoutError():
            return ModelUnavailable(f"{where}: no answer in time")
        case openai.APIConnectionError():
            return ModelUnavailable(f"{where}: no connection")
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            return ModelUnavailable(f"{where}: the endpoint refused our key; check OPENAI_API_KEY")
        case openai.NotFoundError():
            return ModelUnavailable(
                f"{where}: the endpoint does not know this model; check the model and OPENAI_BASE_URL"
            )
        case openai.RateLimitError() if error.code == "insufficient_quota":
            return ModelUnavailable(f"{where}: the account's quota is spent")
        case openai.RateLimitError():
            return _with_retry_after(ModelUnavailable(f"{where}: rate limited"), error)
        case openai.BadRequestError() if error.code == "context_length_exceeded":
            return ContextLengthExceeded(f"{where}: the request is longer than the model's window")
        case openai.BadRequestError() | openai.UnprocessableEntityError():
            return UnsupportedByModel(f"{where}: the endpoint does not take this request")
        case openai.APIStatusError() if (
            error.status_code == 408 or error.status_code == 409 or error.status_code >= 500
        ):
            return _with_retry_after(ModelUnavailable(f"{where}: the endpoint failed with {error.status_code}"), error)
        case _:
            return ModelUnavailable(f"{where}: {type(error).__name__}")


def _with_retry_after(translated: ModelUnavailable, error: openai.APIStatusError) -> ModelUnavailable:
    value = error.response.headers.get("retry-after", "")
    if value.isdigit():
        translated.with_retry_after(float(value))
    return translated


def _wire(message: ChatMessage) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": str(message.role), "content": message.content}
    if message.role is Role.TOOL:
        wire["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        wire["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return wire


async def _close(chunks: Any) -> None:
    if chunks is not None:
        await chunks.close()
