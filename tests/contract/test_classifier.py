"""The shipped exemplars on the shipped embedding model, on messages that are in no exemplar file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.classification.calibration import expected_calibration_error
from models.classification.exemplars import ExemplarClassifier, Exemplars
from models.classification.types import Category, Classification, Intent
from models.conversation.handoff import PersonWish
from models.embedding.sentence_transformers import SentenceTransformerEmbedder

CONFIG = Path(__file__).parents[2] / "config"

LABELLED: tuple[tuple[str, Category, Intent | None], ...] = (
    ("Which payment methods do you take for yearly plans?", Category.INFORMATIONAL, None),
    ("How long does shipping to Norway usually take?", Category.INFORMATIONAL, None),
    ("Is there a limit on how many colleagues I can invite?", Category.INFORMATIONAL, None),
    ("Can I download all my invoices as PDF?", Category.INFORMATIONAL, None),
    ("What is your return policy for opened bottles?", Category.INFORMATIONAL, None),
    ("Should the probiotic capsules be kept in the fridge?", Category.INFORMATIONAL, None),
    ("Does the practice plan include SMS reminders?", Category.INFORMATIONAL, None),
    ("Where do I change the language of the calendar?", Category.INFORMATIONAL, None),
    ("What time does your support team start on Mondays?", Category.INFORMATIONAL, None),
    ("Do you deliver to Austria as well?", Category.INFORMATIONAL, None),
    ("Will the ointment cause redness?", Category.INFORMATIONAL, None),
    ("My parcel ORD-48211 still has not turned up, where is it?", Category.SERVICE_ACTION, Intent.TRACK_ORDER),
    ("can you check the status of my shipment", Category.SERVICE_ACTION, Intent.TRACK_ORDER),
    ("Please pay back what I was charged for order 55123", Category.SERVICE_ACTION, Intent.REFUND),
    ("I'm returning the blood pressure monitor and want my money back", Category.SERVICE_ACTION, Intent.REFUND),
    ("Stop order 77120 before it ships, I don't need it any more", Category.SERVICE_ACTION, Intent.CANCEL_ORDER),
    ("please cancel what I ordered this morning", Category.SERVICE_ACTION, Intent.CANCEL_ORDER),
    ("Our clinic moved, please put the new address on our account", Category.SERVICE_ACTION, Intent.UPDATE_ACCOUNT),
    ("change the phone number on my profile", Category.SERVICE_ACTION, Intent.UPDATE_ACCOUNT),
    ("Please raise a ticket, the booking page shows an error", Category.SERVICE_ACTION, Intent.OPEN_TICKET),
    ("Log a support case for me: reminders are not being sent", Category.SERVICE_ACTION, Intent.OPEN_TICKET),
    ("After two days on the supplement my arms were covered in red spots", Category.SAFETY_COMPLIANCE, None),
    ("My mother felt dizzy and threw up after the new tablets", Category.SAFETY_COMPLIANCE, None),
    ("The bottle I received had a broken seal and smells odd", Category.SAFETY_COMPLIANCE, None),
    ("One of the capsules contained a piece of metal", Category.SAFETY_COMPLIANCE, None),
    ("I have had stomach cramps ever since taking your magnesium", Category.SAFETY_COMPLIANCE, None),
    ("Another patient's medical data showed up in my portal", Category.SAFETY_COMPLIANCE, None),
)
OUTSIDE = (
    "Who painted the Mona Lisa?",
    "Write me a poem about autumn",
    "What is the capital of Mongolia?",
    "Which team won the cup final yesterday?",
    "With best regards, Paula",
    "My lawyers will sue you for this",
)
WANTS_PERSON = (
    "can a real human help me",
    "I'm done with this chatbot, human now",
    "Can you have somebody contact me?",
    "I need to speak with someone urgently",
)
WANTS_NO_PERSON = (
    "How do I invite people to the practice?",
    "Can another person pick up my parcel?",
    "How do I transfer a seat to a colleague?",
    "Who is the manager of my account?",
    "I need help with an export",
)


@pytest.fixture(scope="module")
def embedder() -> SentenceTransformerEmbedder:
    return SentenceTransformerEmbedder(threads=2)


@pytest.fixture
async def classified(embedder: SentenceTransformerEmbedder) -> list[Classification]:
    # One test per model load would cost minutes; the embedder's cache makes every load after the first cheap.
    classifier = ExemplarClassifier(embedder, Exemplars.read(CONFIG / "exemplars"))
    await classifier.load()
    return await classifier.classify([text for text, _, _ in LABELLED] + list(OUTSIDE))


async def test_unseen_messages_are_sorted_and_their_confidence_is_honest(classified: list[Classification]) -> None:
    found = classified[: len(LABELLED)]
    right = np.array([c.category is label for c, (_, label, _) in zip(found, LABELLED, strict=True)])
    assert right.mean() >= 0.9
    confidence = np.array([c.confidence for c in found])
    assert expected_calibration_error(confidence, right, bins=5) <= 0.25


async def test_intents_of_service_requests_are_recognised(classified: list[Classification]) -> None:
    wanted = [(c.intent, intent) for c, (_, _, intent) in zip(classified, LABELLED, strict=False) if intent]
    assert sum(found is intent for found, intent in wanted) >= len(wanted) - 1


async def test_topics_outside_the_business_are_left_to_a_human(classified: list[Classification]) -> None:
    assert sum(c.abstained for c in classified[len(LABELLED) :]) >= len(OUTSIDE) - 1


async def test_the_wish_for_a_person_is_told_from_talk_about_people(embedder: SentenceTransformerEmbedder) -> None:
    wish = PersonWish(embedder, CONFIG / "exemplars" / "handoff.yaml")
    await wish.load()
    wanting = [wish.found(text, await embedder.embed([text])) for text in WANTS_PERSON]
    talking = [wish.found(text, await embedder.embed([text])) for text in WANTS_NO_PERSON]
    assert (wanting, talking) == ([True] * len(WANTS_PERSON), [False] * len(WANTS_NO_PERSON))
