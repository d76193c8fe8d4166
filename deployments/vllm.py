"""The engine `vllm`: the model of the vLLM deployment, as the chain of language models sees it."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar

import orjson

from deployments.handles import VLLMHandle
from models.errors import (
    ContextLengthExceeded,
    FieldError,
    InvalidRequest,
    ModelReplyBroken,
    ModelUnavailable,
    RapportError,
    UnknownModel,
    UnsupportedByModel,
)
from models.llm.chat_completions import arguments, piece_of
from models.llm.completion import Completion, Piece
from models.llm.engines import VLLM
from models.llm.prompt import load_grounded_prompt
from models.llm.types import Capabilities, Delta, LanguageModelReply, LanguageModelRequest
from models.resilience.deadline import Deadline
from models.settings import VLLMSettings

_ADAPTER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PREFIX = "data: "
_DONE = "[DONE]"


class VLLMEngine:
    """`models.llm.protocol.Engine` over the vLLM deployment; a request for `vllm:ADAPTER` takes that LoRA adapter.

    A whole reply travels as one message and a streamed one in groups of tokens: what a token costs on the way decides
    how many of them a processor has time to make.
    """

    engine: ClassVar[str] = VLLM
    capabilities: ClassVar[Capabilities] = Capabilities(
        streaming=True, tools=True, schema=True, free_text=True, external=False
    )

    def __init__(self, handle: VLLMHandle, settings: VLLMSettings, *, temperature: float | None = None) -> None:
        """`temperature` is for requests that name none: 0 by default, whatever the model's own files suggest."""
        self._handle = handle
        self._temperature = temperature or 0.0
        self._has_adapters = bool(settings.lora_path)
        self._prompt = load_grounded_prompt()

    async def generate(self, request: LanguageModelRequest, *, deadline: Deadline) -> LanguageModelReply:
        """The whole reply; raises as the protocol says."""
        body = self._arguments(request) | {"stream": False}
        del body["stream_options"]
        completion = self._completion(request)
        with completion.counted():
            async for pieces in self._pieces(request, body, deadline):
                for piece in pieces:
                    completion.add(piece)
            completion.finish()
        return completion.reply()

    async def stream(self, request: LanguageModelRequest, *, deadline: Deadline) -> AsyncIterator[Delta]:
        """Text without citation marks as it comes, then the reply; closing the iterator aborts the generation."""
        body = self._arguments(request)
        completion = self._completion(request)
        with completion.counted():
            async with aclosing(self._pieces(request, body, deadline)) as groups:
                async for pieces in groups:
                    if text := "".join(completion.add(piece) for piece in pieces):
                        yield Delta(text=text)
            if rest := completion.finish():
                yield Delta(text=rest)
        yield Delta(reply=completion.reply())

    async def check_health(self) -> None:
        """Return if a replica's engine is alive; raise `ModelUnavailable` otherwise."""
        await self._handle.check_health()

    async def close(self) -> None:
        """Nothing to release: the deployment is the graph's."""

    def _arguments(self, request: LanguageModelRequest) -> dict[str, Any]:
        return {"temperature": self._temperature, **arguments(request, model=self.engine, prompt=self._prompt)}

    def _completion(self, request: LanguageModelRequest) -> Completion:
        return Completion(request, self._prompt, engine=self.engine, model=request.model or self.engine)

    async def _pieces(
        self, request: LanguageModelRequest, body: Mapping[str, Any], deadline: Deadline
    ) -> AsyncGenerator[list[Piece], None]:
        adapter = request.model.partition(":")[2]
        if adapter and not self._has_adapters:
            raise UnknownModel("this model has no adapters: language_model.vllm.lora_path is empty")
        if adapter and not _ADAPTER.fullmatch(adapter):
            # It becomes a part of a path, on disk and in cloud storage.
            raise UnknownModel("an adapter's name has 1 to 64 letters, digits, '.', '_' or '-', no dot first")
        # Ray's loader knows an adapter as MODEL:ADAPTER, and so does vLLM once it is loaded.
        model = f"{self.engine}:{adapter}" if adapter else self.engine
        named = {**body, "model": model}
        async with aclosing(
            self._handle.complete(named, adapter=model if adapter else "", deadline=deadline)
        ) as groups:
            async for group in groups:
                yield [_piece(document) for text in group if (document := _document(text)) is not None]


def _document(text: str) -> dict[str, Any] | None:
    """The JSON object of one event; `None` for the mark at the end of a stream."""
    text = text.strip().removeprefix(_PREFIX)
    if text == _DONE:
        return None
    try:
        document: dict[str, Any] = orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise ModelReplyBroken("vLLM's reply is not JSON") from exc
    return document


def _piece(document: dict[str, Any]) -> Piece:
    """A chunk, or a whole completion taken as a single chunk. Raises what an error document means."""
    if error := document.get("error"):
        raise _failure(error)
    # The model's name is the caller's business: vLLM only knows the name of the adapter.
    chunk = {**document, "model": ""}
    if "message" in next(iter(document.get("choices") or ()), ()):
        chunk["choices"] = [{**choice, "delta": choice["message"]} for choice in document["choices"]]
    return piece_of(chunk)


def _failure(error: Mapping[str, Any]) -> RapportError:
    """vLLM's error as one of ours; its text may hold the prompt and stays behind."""
    try:
        status = int(error.get("code") or 500)
    except (TypeError, ValueError):
        status = 500
    parameter = str(error.get("param") or "")
    text = str(error.get("message") or "")
    if status >= 500:
        return ModelUnavailable(f"vLLM failed with {status}")
    if parameter == "max_tokens":
        wrong = InvalidRequest("max_tokens is more than the model's window")
        return wrong.with_fields(FieldError("/max_tokens", "is more than the model's window; ask for fewer tokens"))
    if parameter == "input_tokens" or "maximum context length" in text or "maximum model length" in text:
        return ContextLengthExceeded("the messages and max_tokens together are longer than the model's window")
    if "json schema" in text.lower() or "grammar" in text.lower():
        wrong = InvalidRequest("the JSON schema uses something that the model's grammar does not know")
        return wrong.with_fields(FieldError("/response_format", "use plain types, properties, enum, and bounds"))
    if status == 404:
        return UnknownModel("the model has no such adapter")
    return UnsupportedByModel("vLLM does not take this request")
