"""Settings that name engines are checked before anything starts, and `/ready` names each engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from deployments.engines import check_engines
from deployments.ingress.services import DependencyState
from deployments.readiness import ReadinessChecks, language_model_check
from models.errors import ConfigurationError, ModelUnavailable
from models.llm.types import EngineState
from models.settings import EmbeddingSettings, LanguageModelSettings, Settings, VLLMSettings


def chain(engine: str, *fallbacks: str, **fields: Any) -> Settings:
    return Settings(language_model=LanguageModelSettings(engine=engine, fallbacks=fallbacks, **fields))


@pytest.mark.parametrize(
    "settings",
    [
        chain("extractive"),
        chain("openai", "azure_openai", "extractive"),
        chain("scripted:tokens=20,gap_ms=20", "scripted"),
        chain("vllm", "extractive", vllm=VLLMSettings(model="Qwen/Qwen3-8B")),
    ],
)
def test_a_chain_of_known_engines_may_start(settings: Settings) -> None:
    check_engines(settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (chain("gpt"), r"language_model\.engine: there is no engine 'gpt'; choose one of: azure_openai"),
        (chain("openai", "gpt"), r"language_model\.fallbacks: there is no engine 'gpt'"),
        (chain("openai", "extractive", "openai"), "'openai' is in the chain already"),
        (chain("scripted:tokens=many"), r"language_model\.engine: scripted: the option tokens"),
        (chain("openai", "scripted:speed=1"), r"language_model\.fallbacks: scripted: there is no option"),
        (chain("openai:gpt-5"), "takes no variant"),
        (chain("extractive", "vllm"), r"language_model\.vllm\.model"),
        (Settings(embedding=EmbeddingSettings(engine="none")), r"embedding\.engine: there is no engine 'none'"),
    ],
)
def test_what_cannot_work_is_named_before_the_start(settings: Settings, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        check_engines(settings)


def state(engine: str, breaker: str = "closed", failing: str = "") -> EngineState:
    return EngineState(engine=engine, breaker=breaker, external=False, failing=failing)


@pytest.mark.parametrize(
    ("states", "expected", "detail"),
    [
        ([state("extractive")], DependencyState.UP, "extractive answers"),
        ([state("vllm"), state("openai")], DependencyState.UP, "vllm answers; openai stands by"),
        (
            [state("vllm"), state("openai", failing="MODEL_ACCESS_DENIED")],
            DependencyState.UP,
            "vllm answers; openai: MODEL_ACCESS_DENIED",
        ),
        (
            [state("vllm", "open", "MODEL_UNAVAILABLE"), state("openai"), state("extractive")],
            DependencyState.DEGRADED,
            "vllm: circuit open; openai answers; extractive stands by",
        ),
        ([state("vllm", "open")], DependencyState.DEGRADED, "vllm: circuit open; no answers"),
    ],
)
async def test_ready_names_every_engine_and_who_answers(
    states: Sequence[EngineState], expected: DependencyState, detail: str
) -> None:
    async def ask() -> Sequence[EngineState]:
        return states

    (report,) = await ReadinessChecks([language_model_check(ask, missing="no answers")]).check()
    assert (report.name, report.state, report.critical, report.detail) == ("language_model", expected, False, detail)


async def test_a_chain_that_cannot_be_asked_is_degraded_and_never_critical() -> None:
    async def ask() -> Sequence[EngineState]:
        raise ModelUnavailable("no replica")

    (report,) = await ReadinessChecks([language_model_check(ask, missing="no answers")]).check()
    assert (report.state, report.detail) == (DependencyState.DEGRADED, "no answers")
