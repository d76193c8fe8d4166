"""`POST /v1/embeddings`: unit vectors of texts."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BeforeValidator, ConfigDict, Field

from deployments.ingress.errors import UnsupportedParameter
from deployments.ingress.http.injection import Here, refuse_query
from deployments.ingress.http.openai.catalogue import unknown
from deployments.ingress.http.openai.chat_request import Label, ModelId, StrictWire, as_list
from deployments.ingress.http.openai.documented import failures
from deployments.ingress.http.openai.streaming import while_connected
from deployments.ingress.schemas import Wire
from models.embedding.protocol import Vectors
from models.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    FieldError,
    InvalidRequest,
    ModelUnavailable,
    UnknownModel,
)
from models.resilience.deadline import Deadline

MAX_INPUTS = 2048

router = APIRouter(tags=["OpenAI"], dependencies=[Depends(refuse_query)])


class EmbeddingRequest(StrictWire):
    """Texts to embed, each at most as long as the model's window."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "all-minilm-l6-v2", "input": ["How do I invite a colleague?"]}]}
    )

    model: ModelId
    input: Annotated[
        list[Any],
        Field(min_length=1, max_length=MAX_INPUTS),
        BeforeValidator(as_list, json_schema_input_type=str | Annotated[list[str], Field(max_length=MAX_INPUTS)]),
    ]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int | None, Field(ge=1)] = None
    """Only the model's own."""
    user: Label = None


class EmbeddingBody(Wire):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    """Numbers, or base64 of little-endian 32-bit floats."""


class EmbeddingUsage(Wire):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Wire):
    """One vector of length 1 for each input, in its order."""

    object: Literal["list"]
    data: list[EmbeddingBody]
    model: str
    usage: EmbeddingUsage


@router.post(
    "/v1/embeddings",
    summary="Embed texts",
    response_model=EmbeddingList,
    responses=failures(UnknownModel, ContextLengthExceeded, ModelUnavailable, DeadlineExceeded, body=True),
)
async def create_embeddings(body: EmbeddingRequest, request: Request, here: Here) -> Response:
    """A text longer than the model's window is an error, never cut. Token arrays are not taken."""
    embedder = here.services.embedder
    if body.model != embedder.model_id:
        raise unknown(f"is no embedding model; use {embedder.model_id}")
    texts = _texts(body)
    deadline = Deadline.after(here.settings.ingress.request_timeout_s)
    vectors, counts = await while_connected(request.receive, embedder.embed_strict(texts, deadline=deadline))
    if body.dimensions is not None and body.dimensions != vectors.shape[1]:
        error = UnsupportedParameter("the model has vectors of one length")
        raise error.with_fields(FieldError("/dimensions", f"must be {vectors.shape[1]}, the model's own, or left out"))
    return Response(_encoded(body, vectors, sum(counts)), media_type="application/json")


def _texts(body: EmbeddingRequest) -> list[str]:
    texts: list[str] = []
    for index, text in enumerate(body.input):
        if not isinstance(text, str):
            error = UnsupportedParameter("token arrays are not supported")
            raise error.with_fields(FieldError("/input", "must be text or a list of texts; tokens are not supported"))
        if not text:
            raise InvalidRequest("").with_fields(FieldError(f"/input/{index}", "must not be empty"))
        texts.append(text)
    return texts


def _encoded(body: EmbeddingRequest, vectors: Vectors, tokens: int) -> bytes:
    rows = vectors.astype("<f4", copy=False)
    encode = _base64 if body.encoding_format == "base64" else _numbers
    reply = {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": encode(row)} for index, row in enumerate(rows)],
        "model": body.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY)


def _base64(row: Vectors) -> Any:
    return base64.b64encode(row.tobytes()).decode("ascii")


def _numbers(row: Vectors) -> Any:
    return row
