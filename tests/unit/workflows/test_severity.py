"""Emergencies are never missed for their wording, and words that only mention one raise no alarm."""

from __future__ import annotations

from datetime import timedelta

import pytest

from models.workflows.severity import SERVICE_LEVELS, assess
from models.workflows.types import NextStep, Severity


@pytest.mark.parametrize(
    "text",
    [
        "I can't breathe after taking the tablets",
        "I can’t breathe",
        "i cant breath properly",
        "My throat is closing up",
        "CHEST PAIN HELP",
        "She has no fever but her lips are swollen",
        "My toddler swallowed six of the gummies",
        "I took too many pills last night",
        "a patient collapsed after the injection",
        "not sure, but I think I'm having a heart attack",
        "the bleeding won't stop",
        "What should I do if my son has chest pain?",
        "We had to call an ambulance after the spray",
        "he had a seizu\u200bre this morning",
    ],
)
def test_reported_emergencies_are_urgent(text: str) -> None:
    found = assess(text)
    assert (found.severity, found.reported) == (Severity.URGENT, True)


@pytest.mark.parametrize(
    "text", ["I want to kill myself", "why should I not kill myself", "I don't want to live anymore"]
)
def test_self_harm_is_urgent_with_its_own_wording(text: str) -> None:
    found = assess(text)
    assert found.self_harm
    assert found.severity is Severity.URGENT


@pytest.mark.parametrize(
    "text",
    [
        "The cream gave me a rash, I want my money back",
        "No trouble breathing, just a mild rash on my arm",
        "I feel dizzy since I started the capsules",
        "He has been vomiting after the syrup",
        "You sent me the wrong tablets and I took one",
    ],
)
def test_reported_reactions_are_high(text: str) -> None:
    found = assess(text)
    assert (found.severity, found.reported) == (Severity.HIGH, True)


@pytest.mark.parametrize(
    "text",
    [
        "I never had chest pain",
        "There was no swelling and no rash at all",
        "How do I add an anaphylaxis protocol to a patient's record?",
        "Where is the seizure training module?",
        "I would never hurt myself, I was joking about the price",
        "We had a stroke of luck with the delivery",
        "My package arrived unsealed",
        "I am sick of waiting for my refund",
        "I want to order the anti-itch cream",
    ],
)
def test_negation_and_mere_mention_raise_no_alarm(text: str) -> None:
    found = assess(text)
    assert not (found.reported and found.severity is not Severity.STANDARD)


@pytest.mark.parametrize("text", ["Can the lotion cause a rash?", "Is chest pain a side effect of the iron tablets?"])
def test_a_general_question_reports_nothing(text: str) -> None:
    assert not assess(text).reported


def test_service_levels_are_those_of_the_contact_center() -> None:
    assert {severity: (level.queue, level.due_in, level.next_step) for severity, level in SERVICE_LEVELS.items()} == {
        Severity.URGENT: ("pharmacist", timedelta(minutes=15), NextStep.PHARMACIST_15_MIN),
        Severity.HIGH: ("pharmacist", timedelta(hours=2), NextStep.PHARMACIST_2_H),
        Severity.STANDARD: ("compliance", timedelta(hours=24), NextStep.COMPLIANCE_24_H),
    }
