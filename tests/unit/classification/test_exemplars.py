"""The nearest exemplars decide, the decision is a probability, and what fits nothing is not claimed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.classification.calibration import expected_calibration_error, fit_temperature, probabilities
from models.classification.exemplars import ExemplarClassifier, Exemplars
from models.classification.types import Category, Intent
from models.errors import ConfigurationError, ModelUnavailable
from tests.fakes.embedder import HashingEmbedder

EXEMPLARS = Exemplars(
    categories={
        "informational": (
            "how do I add a seat",
            "how do I export a plan",
            "how do I add a plan",
            "how do I export a seat",
        ),
        "service_action": ("please change my address", "please change my email", "please change my name"),
        "safety_compliance": (
            "the cream gave me a rash",
            "the cream gave me hives",
            "the cream gave my skin a rash",
            "the cream gave my skin hives",
        ),
        "out_of_scope": (
            "tell us some joke about cats",
            "tell us some joke about dogs",
            "tell us some story about cats",
            "tell us some story about dogs",
        ),
    },
    intents={
        "open_ticket": ("open one support ticket", "open one new ticket", "open one new support ticket"),
        "track_order": ("where is my parcel", "where is my parcel now", "where is my parcel today"),
        "refund": ("refund all money", "refund all of the money", "refund all money now"),
        "cancel_order": ("please cancel my order", "please cancel my last order", "please cancel my order now"),
        "update_account": ("update your account email", "update your account name", "update your account"),
    },
)


@pytest.fixture
async def classifier() -> ExemplarClassifier:
    classifier = ExemplarClassifier(HashingEmbedder(), EXEMPLARS, nearest=2)
    await classifier.load()
    return classifier


async def test_a_request_that_is_like_no_example_is_not_claimed() -> None:
    classifier = ExemplarClassifier(HashingEmbedder(), EXEMPLARS, nearest=2, min_confidence=0.0)
    await classifier.load()
    far, near = await classifier.classify(["change mi correo electrónico de contacto ahora", "please change my email"])
    assert (near.category, near.abstained) == (Category.SERVICE_ACTION, False)
    assert (far.category, far.abstained) == (Category.SERVICE_ACTION, True)


@pytest.mark.parametrize(
    ("message", "category", "intent"),
    [
        ("how do I export a new plan", Category.INFORMATIONAL, None),
        ("please cancel my order", Category.SERVICE_ACTION, Intent.CANCEL_ORDER),
        ("where is my other parcel", Category.SERVICE_ACTION, Intent.TRACK_ORDER),
        ("the cream gave my face a rash", Category.SAFETY_COMPLIANCE, None),
    ],
)
async def test_the_nearest_exemplars_decide(
    classifier: ExemplarClassifier, message: str, category: Category, intent: Intent | None
) -> None:
    (found,) = await classifier.classify([message])
    assert (found.category, found.intent, found.abstained) == (category, intent, False)
    assert 0.5 <= found.confidence <= 1.0


async def test_what_is_out_of_scope_is_left_to_a_human(classifier: ExemplarClassifier) -> None:
    (found,) = await classifier.classify(["tell us some joke"])
    assert found.abstained
    assert found.confidence < 0.5


async def test_given_vectors_are_used_instead_of_embedding(classifier: ExemplarClassifier) -> None:
    embedder = HashingEmbedder()
    other = ExemplarClassifier(embedder, EXEMPLARS, nearest=2)
    await other.load()
    vectors = await HashingEmbedder().embed(["please cancel my order"])
    before = len(embedder.calls)
    (found,) = await other.classify(["these words are not looked at"], vectors=vectors)
    assert len(embedder.calls) == before
    assert found.intent is Intent.CANCEL_ORDER


async def test_the_same_message_always_gets_the_same_answer_alone_or_in_a_batch(classifier: ExemplarClassifier) -> None:
    messages = ["how do I export a plan", "please cancel my order", "the cream gave me a rash"]
    together = await classifier.classify(messages)
    alone = [(await classifier.classify([message]))[0] for message in messages]
    assert [(c.category, c.reasoning) for c in together] == [(c.category, c.reasoning) for c in alone]
    assert [c.confidence for c in together] == pytest.approx([c.confidence for c in alone], abs=1e-6)


async def test_the_reasoning_repeats_nothing_of_the_message(classifier: ExemplarClassifier) -> None:
    (found,) = await classifier.classify(["please cancel my order, I am dana@example.com"])
    assert "dana" not in found.reasoning
    assert "requests to do something" in found.reasoning


async def test_an_unloaded_classifier_says_so() -> None:
    with pytest.raises(ModelUnavailable):
        await ExemplarClassifier(HashingEmbedder(), EXEMPLARS).classify(["hello"])


@pytest.mark.parametrize(
    "text", ["informational: [one, two]", "[a, b]", "informational: x", "{", "informational: [1, 2]"]
)
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "categories.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=r"categories\.yaml"):
        Exemplars.read(tmp_path)


def test_the_shipped_exemplars_are_enough_for_every_class() -> None:
    shipped = Exemplars.read(Path(__file__).parents[3] / "config" / "exemplars")
    assert min(len(sentences) for sentences in (*shipped.categories.values(), *shipped.intents.values())) >= 30


def test_the_fitted_temperature_recovers_the_one_that_drew_the_labels() -> None:
    rng = np.random.default_rng(7)
    scores = rng.uniform(0, 0.4, size=(4000, 3))
    drawn = np.array([rng.choice(3, p=row) for row in probabilities(scores, 0.1)])
    assert fit_temperature(scores, drawn) == pytest.approx(0.1, rel=0.1)


def test_calibration_error_is_zero_for_honest_confidence_and_large_for_bragging() -> None:
    rng = np.random.default_rng(7)
    confidence = rng.uniform(0.5, 1.0, size=20_000)
    honest = rng.uniform(size=20_000) < confidence
    assert expected_calibration_error(confidence, honest) < 0.02
    assert expected_calibration_error(np.full(100, 0.95), np.arange(100) < 50) == pytest.approx(0.45)
