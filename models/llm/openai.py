"""Language models behind any OpenAI-compatible endpoint (OpenAI, vLLM, Ollama, gateways...), by the official client."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, Protocol, Self

import httpx2
import openai
from openai import AsyncOpenAI, AsyncStream

from models.embedding.protocol import Embedder
from models.errors import (
    ConfigurationError,
    ContextLengthExceeded,
    ModelAccessDenied,
    ModelRateLimited,
    ModelRefused,
    ModelReplyBroken,
    ModelUnavailable,
    RapportError,
    UnsupportedByModel,
)
from models.llm import chat_completions, openai_responses
from models.llm.completion import Completion, Piece, reply_of
from models.llm.prompt import GroundedPrompt, load_grounded_prompt
from models.llm.types import Capabilities, Delta, LanguageModelReply, LanguageModelRequest
from models.resilience.deadline import Deadline
from models.settings import LanguageModelSettings

logger = logging.getLogger(__name__)

Api = Literal["chat", "responses"]


class Arguments(Protocol):
    def __call__(self, request: LanguageModelRequest, *, model: str, prompt: GroundedPrompt) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class WireFormat:
    """How one API is asked for a streamed reply, and how its events are read."""

    path: str
    arguments: Arguments
    piece_of: Callable[[Mapping[str, Any]], Piece]


_CHAT = WireFormat("/chat/completions", chat_completions.arguments, chat_completions.piece_of)
#: OpenAI's newer models refuse `max_tokens`; many compatible endpoints know nothing else.
_CHAT_OF_OPENAI = WireFormat(
    "/chat/completions",
    partial(chat_completions.arguments, limit="max_completion_tokens"),
    chat_completions.piece_of,
)
_RESPONSES = WireFormat("/responses", openai_responses.arguments, openai_responses.piece_of)


def wire_format(api: Api, *, of_openai: bool) -> WireFormat:
    """The format of an API; `of_openai` when OpenAI's own models are behind it, at OpenAI or at Azure."""
    if api == "responses":
        return _RESPONSES
    return _CHAT_OF_OPENAI if of_openai else _CHAT


class OpenAILanguageModel:
    """Passages are rendered as numbered sources, citations checked verbatim; one call is one request, without retries.

    A reply that says the sources hold no answer is `ModelRefused`. A reply that breaks off, or is not one, is
    `ModelReplyBroken`, even when part of its text was already passed on.
    """

    engine: ClassVar[str] = "openai"
    capabilities: ClassVar[Capabilities] = Capabilities(
        streaming=True, tools=True, schema=True, free_text=True, external=True
    )

    def __init__(
        self,
        model: str,
        *,
        client: AsyncOpenAI,
        wire: WireFormat = _CHAT,
        headers: Mapping[str, str | openai.Omit] | None = None,
        timeout_s: float = 30.0,
        temperature: float | None = None,
        prompt: GroundedPrompt | None = None,
    ) -> None:
        """`client` belongs to the engine from now on; `headers` travel with every request.

        `temperature` is sent for requests that name none; `None` sends none.
        """
        self._model = model
        self._client = client
        self._wire = wire
        self._headers = dict(headers or {})
        self._timeout_s = timeout_s
        self._temperature = temperature
        self._prompt = prompt or load_grounded_prompt()

    @classmethod
    def from_settings(cls, settings: LanguageModelSettings, embedder: Embedder) -> Self:
        """Raises `ConfigurationError` if OpenAI's own address is used without a key."""
        key = settings.openai_api_key.get_secret_value()
        of_openai = httpx2.URL(settings.openai_base_url).host == "api.openai.com"
        if not key and of_openai:
            raise ConfigurationError("the openai engine needs OPENAI_API_KEY, or an OPENAI_BASE_URL that needs no key")
        if not key:
            logger.info("the openai engine sends no key", extra={"host": httpx2.URL(settings.openai_base_url).host})
        return cls(
            settings.openai_model,
            # An endpoint of one's own may need no key, but the client insists on some text.
            client=AsyncOpenAI(api_key=key or "none", base_url=settings.openai_base_url, max_retries=0),
            wire=wire_format(settings.openai_api, of_openai=of_openai),
            timeout_s=settings.timeout_s,
            temperature=settings.temperature,
        )

    async def generate(self, request: LanguageModelRequest, *, deadline: Deadline) -> LanguageModelReply:
        """The whole reply; raises as the protocol says."""
        return await reply_of(self.stream(request, deadline=deadline))

    async def stream(self, request: LanguageModelRequest, *, deadline: Deadline) -> AsyncIterator[Delta]:
        """Text without citation marks as it comes, then the reply; closing the iterator closes the connection."""
        budget = deadline.child(self._timeout_s)
        completion = Completion(request, self._prompt, engine=self.engine, model=self._model)
        events = await self._begin(request, budget)
        with completion.counted():
            try:
                while (event := await self._next(events, budget)) is not None:
                    if text := completion.add(self._wire.piece_of(event)):
                        yield Delta(text=text)
            finally:
                await events.close()
            if rest := completion.finish():
                yield Delta(text=rest)
        yield Delta(reply=completion.reply())

    async def check_health(self) -> None:
        """Return if the endpoint lists its models for our key; raise `ModelUnavailable` otherwise."""
        try:
            await self._client.models.list(timeout=min(self._timeout_s, 5.0), extra_headers=self._headers)
        except openai.OpenAIError as exc:
            raise translate(exc, self._model) from exc
        except ValueError as exc:
            raise ModelUnavailable(f"model {self._model!r}: the endpoint does not list its models") from exc

    async def close(self) -> None:
        """Close the connection pool."""
        await self._client.close()

    async def _begin(self, request: LanguageModelRequest, budget: Deadline) -> AsyncStream[Any]:
        body = self._wire.arguments(request, model=self._model, prompt=self._prompt)
        if self._temperature is not None:
            body.setdefault("temperature", self._temperature)
        try:
            async with budget.enforce(f"model {self._model!r}"):
                # Not `chat.completions.create`: events stay plain JSON, whose shape is checked here and nowhere else.
                return await self._client.post(
                    self._wire.path,
                    cast_to=object,
                    body=body,
                    options={
                        "headers": self._headers,
                        # The deadline is enforced around the call; the client's own limit only has to be no shorter.
                        "timeout": self._timeout_s + 1.0,
                        # A key never follows to another address.
                        "follow_redirects": False,
                    },
                    stream=True,
                    stream_cls=AsyncStream[Any],
                )
        except openai.OpenAIError as exc:
            raise translate(exc, self._model) from exc

    async def _next(self, events: AsyncStream[Any], budget: Deadline) -> Mapping[str, Any] | None:
        where = f"model {self._model!r}"
        try:
            async with budget.enforce(where):
                event = await anext(events, None)
        except openai.APIConnectionError as exc:
            raise ModelReplyBroken(f"{where}: the connection broke in the middle of the reply") from exc
        except openai.OpenAIError as exc:
            raise translate(exc, self._model) from exc
        except (ValueError, RecursionError) as exc:
            raise ModelReplyBroken(f"{where}: the reply holds something that is not JSON") from exc
        if event is not None and not isinstance(event, Mapping):
            raise ModelReplyBroken(f"{where}: the reply holds an event that is not an object")
        return event


def translate(error: openai.OpenAIError, model: str) -> RapportError:
    """The client's error as one of ours, most specific first; the message never holds the endpoint's text."""
    where = f"model {model!r}"
    match error:
        case openai.APITimeoutError():
            return ModelUnavailable(f"{where}: no answer in time")
        case openai.APIConnectionError():
            return ModelUnavailable(f"{where}: no connection")
        case openai.APIStatusError():
            return _of_status(error, where)
        case openai.APIError() if _is_too_long(error):
            return ContextLengthExceeded(f"{where}: the request is longer than the model's window")
        case openai.APIError():
            return ModelReplyBroken(f"{where}: the endpoint broke its reply off with an error")
        case _:
            return ModelUnavailable(f"{where}: {type(error).__name__}")


def _of_status(error: openai.APIStatusError, where: str) -> RapportError:
    match error.status_code:
        case 401 | 402 | 403:
            return ModelAccessDenied(f"{where}: the endpoint refuses our key or account; check the key")
        case 404:
            return ModelAccessDenied(f"{where}: the endpoint does not know this model; check its name and the address")
        case 429 if error.code == "insufficient_quota":
            return ModelAccessDenied(f"{where}: the account's quota is spent")
        case 429:
            return _with_retry_after(ModelRateLimited(f"{where}: rate limited"), error)
        case 413:
            return ContextLengthExceeded(f"{where}: the request is longer than the endpoint takes")
        case 400 | 422 if _is_too_long(error):
            return ContextLengthExceeded(f"{where}: the request is longer than the model's window")
        case 400 if error.code in ("content_filter", "content_policy_violation"):
            return ModelRefused(f"{where}: the endpoint's policy refused the request")
        case 400 | 422:
            return UnsupportedByModel(f"{where}: the endpoint does not take this request")
        case 408 | 409 | 425:
            return _with_retry_after(ModelUnavailable(f"{where}: the endpoint answered {error.status_code}"), error)
        case status if status >= 500:
            return _with_retry_after(ModelUnavailable(f"{where}: the endpoint failed with {status}"), error)
        case status:
            return ModelAccessDenied(f"{where}: the endpoint answered {status}; check its address")


def _is_too_long(error: openai.APIError) -> bool:
    """OpenAI and Azure say it by a code; vLLM and llama.cpp only in words."""
    said = f"{error.type} {error.message}".lower()
    return error.code == "context_length_exceeded" or "context length" in said or "exceed_context_size" in said


def _with_retry_after(translated: RapportError, error: openai.APIStatusError) -> RapportError:
    headers = error.response.headers
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit_s
        except ValueError:
            continue
        if 0.0 <= seconds < float("inf"):
            return translated.with_retry_after(seconds)
    return translated
