"""What every moderator promises, whatever is inside."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from models.errors import ModelUnavailable, SafetyUnavailable
from models.safety.probe import ProbeModerator, ProbeWeights
from models.safety.protocol import Moderator
from models.safety.types import Harm
from tests.fakes.embedder import HashingEmbedder

TEXTS = ["Where is my parcel?", "", "I will hurt you.", "Long text. " * 400, "\ud83d\ude80", "\x00\u200b"]


def _probe(embedder: HashingEmbedder) -> Moderator:
    rng = np.random.default_rng(0)
    weights = ProbeWeights(
        model_id=embedder.model_id,
        harms=tuple(Harm),
        coefficients=rng.normal(size=(4, embedder.dimension)),
        intercepts=np.zeros(4),
        severity_cuts=np.tile(np.linspace(0.1, 0.9, 7), (4, 1)),
    )
    return ProbeModerator(embedder, weights)


@pytest.fixture(params=[_probe], ids=["probe"])
def build(request: pytest.FixtureRequest) -> Callable[[HashingEmbedder], Moderator]:
    return request.param  # type: ignore[no-any-return]  # pytest does not type parameters


async def test_one_finding_per_harm_and_text(build: Callable[[HashingEmbedder], Moderator]) -> None:
    found = await build(HashingEmbedder()).moderate(TEXTS)
    assert len(found) == len(TEXTS)
    for findings in found:
        assert sorted(finding.harm for finding in findings) == sorted(Harm)
        assert all(0 <= finding.severity <= 7 and 0 <= finding.probability <= 1 for finding in findings)


async def test_no_texts_no_findings(build: Callable[[HashingEmbedder], Moderator]) -> None:
    assert await build(HashingEmbedder()).moderate([]) == []


async def test_blank_text_is_harmless(build: Callable[[HashingEmbedder], Moderator]) -> None:
    (findings,) = await build(HashingEmbedder()).moderate(["   "])
    assert {finding.severity for finding in findings} == {0}


async def test_the_same_text_is_judged_the_same(build: Callable[[HashingEmbedder], Moderator]) -> None:
    moderator = build(HashingEmbedder())
    assert await moderator.moderate(TEXTS) == await moderator.moderate(TEXTS)


async def test_an_outage_is_safety_unavailable(build: Callable[[HashingEmbedder], Moderator]) -> None:
    embedder = HashingEmbedder()
    embedder.error = ModelUnavailable("gone")
    with pytest.raises(SafetyUnavailable):
        await build(embedder).moderate(["text"])
