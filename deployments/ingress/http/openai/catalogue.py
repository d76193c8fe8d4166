"""`GET /v1/models`: the assistant, the configured engines and the embedding model, by the names to ask for."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Depends

from deployments.ingress.http.injection import Here, refuse_query
from deployments.ingress.http.openai.documented import failures
from deployments.ingress.schemas import Wire
from models.errors import FieldError, RapportError, UnknownModel, UnsupportedByModel
from models.llm.engines import engine_of
from models.settings import Settings

ASSISTANT = "rapport"
#: The engine that has no text of its own.
PASSAGES_ONLY = "extractive"

router = APIRouter(tags=["OpenAI"], dependencies=[Depends(refuse_query)])


class ModelBody(Wire):
    """A model by its id, and what it is for. When it was made is not known, so `created` is always 0."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: Literal["rapport"] = "rapport"
    description: str


class ModelList(Wire):
    object: Literal["list"] = "list"
    data: list[ModelBody]


def engines_of(settings: Settings) -> list[str]:
    """Names of the configured engines in order of preference, without variants."""
    chosen = settings.language_model
    return list(dict.fromkeys(engine_of(name) for name in (chosen.engine, *chosen.fallbacks)))


def model_ids(settings: Settings) -> list[str]:
    return [ASSISTANT, *engines_of(settings), settings.embedding.model]


def describe(model_id: str, settings: Settings) -> str:
    """What a listed model is for, in one sentence."""
    if model_id == ASSISTANT:
        return "The whole assistant: knowledge, customer context, actions and safety checks."
    if model_id == PASSAGES_ONLY:
        return f"Quotes given passages, which a chat completion cannot carry; ask {ASSISTANT}, which brings them."
    if model_id in engines_of(settings):
        return "One configured engine, alone and without fallbacks."
    return "Embeddings."


def check_engine(model: str, settings: Settings) -> None:
    """Return if the name, with or without a variant, is one of a configured engine that can answer here.

    Raises `UnknownModel`, `UnsupportedByModel`.
    """
    configured = engines_of(settings)
    if engine_of(model) not in configured:
        raise unknown(f"is no chat model; choose one of: {', '.join([ASSISTANT, *configured])}")
    if engine_of(model) == PASSAGES_ONLY:
        detail = f"answers from given passages only, which this API cannot carry; ask the model {ASSISTANT} instead"
        raise UnsupportedByModel("this engine has no text of its own").with_fields(FieldError("/model", detail))


def unknown(detail: str) -> RapportError:
    return UnknownModel("no such model").with_fields(FieldError("/model", detail))


def _body(model_id: str, settings: Settings) -> ModelBody:
    return ModelBody(id=model_id, description=describe(model_id, settings))


@router.get("/v1/models", summary="List the models", responses=failures())
async def list_models(here: Here) -> ModelList:
    """What can be asked for under `model`. An engine may be given a variant after a colon, which is not listed."""
    return ModelList(data=[_body(model_id, here.settings) for model_id in model_ids(here.settings)])


@router.get("/v1/models/{model_id:path}", summary="Look up a model", responses=failures(UnknownModel))
async def get_model(model_id: str, here: Here) -> ModelBody:
    """One of those listed."""
    if model_id not in model_ids(here.settings):
        raise unknown("is not on the list; see /v1/models")
    return _body(model_id, here.settings)
