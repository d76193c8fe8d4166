"""`POST /v1/moderations`: the safety gate's findings in OpenAI's categories.

Four of OpenAI's thirteen categories are judged: hate, self-harm, sexual and violence. The others are always `false`
with score 0, because clients expect the fields; an empty `category_applied_input_types` says that nobody looked.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BeforeValidator, ConfigDict, Field

from deployments.ingress.errors import UnsupportedParameter
from deployments.ingress.http.injection import Here, refuse_query
from deployments.ingress.http.openai.catalogue import unknown
from deployments.ingress.http.openai.chat_request import ModelId, Part, StrictWire
from deployments.ingress.http.openai.documented import failures
from deployments.ingress.http.openai.streaming import while_connected
from deployments.ingress.schemas import Wire
from models.errors import DeadlineExceeded, FieldError, InvalidRequest, SafetyUnavailable, UnknownModel
from models.ids import new_id
from models.resilience.deadline import Deadline
from models.safety.types import Harm, Purpose, Verdict

MODERATION = "rapport-moderation"
#: OpenAI's names are taken for ours, so that a client's default works; the reply says which model judged.
ALIASES = frozenset({MODERATION, "omni-moderation-latest", "text-moderation-latest", "text-moderation-stable"})
MAX_INPUTS = 256

JUDGED: Mapping[Harm, str] = MappingProxyType(
    {Harm.HATE: "hate", Harm.SELF_HARM: "self-harm", Harm.SEXUAL: "sexual", Harm.VIOLENCE: "violence"}
)
CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)

router = APIRouter(tags=["OpenAI"], dependencies=[Depends(refuse_query)])


def _as_parts(value: Any) -> Any:
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, list):
        return [{"type": "text", "text": text} if isinstance(text, str) else text for text in texts]
    return texts


class ModerationRequest(StrictWire):
    """Texts to judge, each by itself."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"input": "I will hurt you."}]})

    input: Annotated[
        list[Part],
        Field(min_length=1, max_length=MAX_INPUTS),
        BeforeValidator(_as_parts, json_schema_input_type=str | list[str | Part]),
    ]
    model: ModelId = MODERATION


class ModerationResult(Wire):
    """`flagged` follows the thresholds of the safety policy for customers' messages."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    """Probability of the harm, 0 to 1."""
    category_applied_input_types: dict[str, list[Literal["text"]]]
    """Empty for the categories that are not judged here."""

    @classmethod
    def of(cls, verdict: Verdict) -> ModerationResult:
        scores = {JUDGED[finding.harm]: finding.probability for finding in verdict.findings}
        flagged = {JUDGED[harm] for harm in verdict.harms}
        return cls(
            flagged=not verdict.allowed,
            categories={name: name in flagged for name in CATEGORIES},
            category_scores={name: scores.get(name, 0.0) for name in CATEGORIES},
            category_applied_input_types={name: ["text"] if name in scores else [] for name in CATEGORIES},
        )


class ModerationBody(Wire):
    """One result for each input, in its order."""

    id: str
    model: str
    results: list[ModerationResult]


@router.post(
    "/v1/moderations",
    summary="Judge texts for harm",
    responses=failures(UnknownModel, SafetyUnavailable, DeadlineExceeded, body=True),
)
async def create_moderation(body: ModerationRequest, request: Request, here: Here) -> ModerationBody:
    """Categories that are not judged here are false, and their `category_applied_input_types` empty. When the judge is
    away the answer is 503: a text that nobody looked at is never reported as harmless."""
    if body.model not in ALIASES:
        raise unknown(f"is no moderation model; use {MODERATION}")
    texts = [_text(part, index) for index, part in enumerate(body.input)]
    deadline = Deadline.after(here.settings.ingress.request_timeout_s)
    verdicts = await while_connected(
        request.receive, here.services.safety.check(texts, purpose=Purpose.CUSTOMER_MESSAGE, deadline=deadline)
    )
    if len(verdicts) != len(texts) or not all(verdict.available for verdict in verdicts):
        raise SafetyUnavailable("moderation did not judge every text")
    return ModerationBody(
        id=new_id("modr"), model=MODERATION, results=[ModerationResult.of(verdict) for verdict in verdicts]
    )


def _text(part: Part, index: int) -> str:
    if part.type != "text" or part.model_extra:
        error = UnsupportedParameter("only text is judged")
        raise error.with_fields(FieldError(f"/input/{index}", "must be text; images are not judged here"))
    if not part.text:
        raise InvalidRequest("").with_fields(FieldError(f"/input/{index}", "must not be empty"))
    return part.text
