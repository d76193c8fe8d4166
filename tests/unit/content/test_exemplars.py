"""The example messages of the classifier: enough of each class, varied, and none in two classes."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from models.classification.exemplars import OUT_OF_SCOPE, Exemplars
from models.classification.types import Category

DIRECTORY = Path(__file__).parents[3] / "config" / "exemplars"


@pytest.fixture(scope="module")
def exemplars() -> Exemplars:
    return Exemplars.read(DIRECTORY)


def _normal(sentence: str) -> str:
    return re.sub(r"\W+", " ", sentence.casefold()).strip()


def test_there_are_enough_of_each_class(exemplars: Exemplars) -> None:
    assert {name: len(found) for name, found in exemplars.categories.items() if len(found) < 45} == {}
    assert {name: len(found) for name, found in exemplars.intents.items() if len(found) < 36} == {}


def test_no_message_stands_in_two_classes(exemplars: Exemplars) -> None:
    every = [*exemplars.categories.values(), *exemplars.intents.values()]
    counted = Counter(_normal(sentence) for sentences in every for sentence in sentences)
    assert [sentence for sentence, times in counted.items() if times > 1] == []


def test_messages_are_of_a_length_the_api_accepts(exemplars: Exemplars) -> None:
    for sentences in (*exemplars.categories.values(), *exemplars.intents.values()):
        assert all(1 <= len(sentence.strip()) <= 5000 for sentence in sentences)


@pytest.mark.parametrize("name", list(Category))
def test_lengths_and_registers_vary(exemplars: Exemplars, name: Category) -> None:
    sentences = exemplars.categories[name]
    lengths = [len(sentence.split()) for sentence in sentences]
    assert min(lengths) <= 6
    assert max(lengths) >= 25
    assert any(sentence[0].islower() for sentence in sentences), "people do not always write capitals"
    assert any(re.search(r"\b(?:um|uh)\b", sentence) for sentence in sentences), "a voice transcript hesitates"


def test_requests_come_with_and_without_an_order_reference(exemplars: Exemplars) -> None:
    for intent in ("track_order", "refund", "cancel_order"):
        named = [bool(re.search(r"\bORD-\d{5}\b", sentence)) for sentence in exemplars.intents[intent]]
        assert any(named), intent
        assert not all(named), intent


def test_a_question_and_a_report_about_side_effects_lie_in_different_classes(exemplars: Exemplars) -> None:
    def mentions(name: str, pattern: str) -> bool:
        return any(re.search(pattern, sentence.casefold()) for sentence in exemplars.categories[name])

    assert mentions(Category.INFORMATIONAL, "side effects")
    assert mentions(Category.SAFETY_COMPLIANCE, "side effects")
    assert mentions(OUT_OF_SCOPE, "no side effects at all")
    assert mentions(Category.INFORMATIONAL, "how do refunds work")
