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
    "text",
    [
        "my patient died after using your product",
        "A patient passed away two days after the injection",
        "the patient is dead",
        "Two residents have died since we switched to the new syrup",
        "My husband died last week, he was taking your capsules",
        "The drops killed my mother",
        "one of our clients was found dead with the patch on",
        "I want to report the death of a patient",
        "She is unresponsive after the second dose",
        "He lost consciousness in our waiting room",
        "I can't wake my son up, he had the syrup",
        "the patient isn't responding any more",
        "My grandmother collapsed in the kitchen after the tablets",
        "A client fell unconscious during the treatment",
        "needle broke off in my patient's arm",
        "The tip of the swab snapped and is still in my nose",
        "A piece of the catheter was left inside the patient",
        "there is a broken needle in my thigh",
        "the thermometer tip came off in her ear",
        "My two-year-old drank the disinfectant",
        "Our kids ate a whole jar of gummies",
        "the twins are fine but my daughter got into the vitamin gummies",
        "I accidentally gave my baby the adult syrup",
        "A toddler chewed on one of your patches",
        "my son took two of his grandmother's pills",
    ],
)
def test_deaths_broken_devices_and_exposed_children_are_urgent(text: str) -> None:
    found = assess(text)
    assert (found.severity, found.reported, found.self_harm) == (Severity.URGENT, True, False)


@pytest.mark.parametrize(
    "text",
    [
        "My phone died and I cannot log in",
        "The patient portal is dead since this morning",
        "The battery of the thermometer is dead",
        "The link in the patient's e-mail is dead",
        "My father passed away, please close his account",
        "The patient is not responding to our e-mails",
        "My son ordered the vitamins for me, where are they?",
        "A fatal error appears when I open the calendar",
        "The needle arrived broken in the box",
        "Part of my order is still in transit",
        "The calendar page collapsed into one column",
        "My plan includes pregnant women as a patient group, how do I filter them?",
        "My wife is pregnant and your delivery took three weeks",
        "The price increase hurt our business",
        "Please cut my subscription to three seats",
    ],
)
def test_dead_phones_and_settled_accounts_are_no_emergency(text: str) -> None:
    assert not assess(text).reported


@pytest.mark.parametrize(
    "text",
    [
        "I am pregnant and took the capsules by mistake",
        "I used your retinol cream for a month and just found out that I'm pregnant",
        "A patient who is breastfeeding was given the tablets",
        "The box was damaged and the glass cut my hand",
        "I cut myself on the broken jar",
        "my wife burned her fingers on the heating pad",
        "Our nurse was injured when the monitor fell off the wall",
        "a shard from the bottle is why I have a cut on my finger",
        "I got an electric shock from the blood pressure monitor",
        "Needlestick with your safety syringe this morning, my colleague is worried",
    ],
)
def test_exposure_in_pregnancy_and_injuries_are_high(text: str) -> None:
    found = assess(text)
    assert (found.severity, found.reported, found.self_harm) == (Severity.HIGH, True, False)


@pytest.mark.parametrize(
    "text",
    [
        "the seal was broken",
        "The seal on the vitamin bottle was already torn when it arrived",
        "My tablets came with a missing foil",
        "The safety ring of the syrup is not intact",
        "parcel fine, but the jar of cream looks tampered with",
    ],
)
def test_a_broken_seal_is_a_standard_report(text: str) -> None:
    found = assess(text)
    assert (found.severity, found.reported) == (Severity.STANDARD, True)


@pytest.mark.parametrize(
    "text",
    [
        "The seal was not broken, I just changed my mind",
        "The courier's parcel had a broken seal",
        "Can I return the drops if the seal is broken?",
        "What do I do when the seal is missing?",
    ],
)
def test_an_intact_or_imagined_seal_is_none(text: str) -> None:
    assert not assess(text).reported


@pytest.mark.parametrize(
    "text",
    [
        "Can this cream cause a rash?",
        "Is it safe to take two painkillers with alcohol?",
        "Does the syrup make people dizzy?",
        "Could these drops irritate the eyes?",
        "Hi, what are the side effects of the zinc tablets?",
        "Can I take the antihistamine with beer?",
        "I have no rash, just wondering how to return the cream",
        "No side effects so far, where can I order more?",
        "I didn't get any headaches, I only want a refund because it was too expensive",
    ],
)
def test_nobody_is_affected_by_a_question_or_a_denial(text: str) -> None:
    found = assess(text)
    assert (found.unaffected, found.reported, found.signals) == (True, False, ())


@pytest.mark.parametrize(
    ("text", "severity"),
    [
        ("Can this cream cause a rash? I have one now", Severity.HIGH),
        ("Can this cream cause a rash? My arm is covered in blisters", Severity.HIGH),
        ("Is it safe that my daughter swallowed two of the tablets?", Severity.URGENT),
        ("No rash, but I have been vomiting, how do I return the capsules?", Severity.HIGH),
        ("Does the syrup cause seizures? My son had a seizure", Severity.URGENT),
    ],
)
def test_a_question_around_a_report_is_still_a_report(text: str, severity: Severity) -> None:
    found = assess(text)
    assert (found.unaffected, found.reported, found.severity) == (False, True, severity)


@pytest.mark.parametrize(
    "text", ["Is it safe to take 40 painkillers with alcohol?", "How many pills does it take to die?"]
)
def test_a_question_that_sounds_like_a_plan_is_never_waved_through(text: str) -> None:
    assert not assess(text).unaffected


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
