"""`GET /v1/models`: the assistant, the configured engines and the embedding model, by the names to ask for."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter

from deployments.ingress.http.injection import Here
from deployments.ingress.http.openai.documented import failures
from deployments.ingress.schemas import Wire
from models.errors import FieldError, RapportError, UnknownModel
from models.llm.engines import engine_of
from models.settings import Settings

ASSISTANT = "rapport"

router = APIRouter(tags=["OpenAI"])


class ModelBody(Wire):
    """A model by its id. When it was made is not known, so `created` is always 0."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: Literal["rapport"] = "rapport"


class ModelList(Wire):
    object: Literal["list"] = "list"
    data: list[ModelBody]


def engines_of(settings: Settings) -> list[str]:
    """Names of the configured engines in order of preference, without variants."""
    chosen = settings.language_model
    return list(dict.fromkeys(engine_of(name) for name in (chosen.engine, *chosen.fallbacks)))


def model_ids(settings: Settings) -> list[str]:
    return [ASSISTANT, *engines_of(settings), settings.embedding.model]


def check_engine(model: str, settings: Settings) -> None:
    """Raises `UnknownModel` unless the name, with or without a variant, is one of a configured engine."""
    if engine_of(model) not in engines_of(settings):
        raise unknown(f"is no chat model; choose one of: {', '.join([ASSISTANT, *engines_of(settings)])}")


def unknown(detail: str) -> RapportError:
    return UnknownModel("no such model").with_fields(FieldError("/model", detail))


@router.get("/v1/models", summary="List the models", responses=failures())
async def list_models(here: Here) -> ModelList:
    """What can be asked for under `model`. An engine may be given a variant after a colon, which is not listed."""
    return ModelList(data=[ModelBody(id=model_id) for model_id in model_ids(here.settings)])


@router.get("/v1/models/{model_id:path}", summary="Look up a model", responses=failures(UnknownModel))
async def get_model(model_id: str, here: Here) -> ModelBody:
    """One of those listed."""
    if model_id not in model_ids(here.settings):
        raise unknown("is not on the list; see /v1/models")
    return ModelBody(id=model_id)
