"""A wish for a person and a confirmation are known by their wording, and not seen where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.conversation.dialogue import Move, move
from models.conversation.handoff import PersonWish
from tests.fakes.embedder import HashingEmbedder

HANDOFF = Path(__file__).parents[3] / "config" / "exemplars" / "handoff.yaml"


@pytest.mark.parametrize(
    "text",
    [
        "Can I talk to a human?",
        "could we speak with a real person please",
        "I want a human now, your bot is useless",
        "I want an agent, not a bot",
        "let me speak to someone",
        "Let us chat with somebody from your team",
        "agent please",
        "Operator!",
        "a human, please",
        "human now",
        "I need a real person",
        "I'd like a human being to look at this, so give me a person",
        "is there a real person available?",
        "put me through to a representative",
        "May I speak to your supervisor?",
    ],
)
def test_a_wish_for_a_person_is_noticed_by_its_wording(text: str) -> None:
    assert PersonWish(HashingEmbedder(), HANDOFF).found(text, None)


@pytest.mark.parametrize(
    "text",
    [
        "Can I invite a person to my team?",
        "which human resources features do you have",
        "What does an agent seat cost?",
        "I need a person removed from my account",
        "Do I need to talk to someone before I cancel?",
        "I want human resources reports for my clinic",
        "Is there a person field in the patient form?",
        "Can agents please their customers with templates?",
        "I don't need a human, just tell me the price",
        "How can I talk to my patients in the app?",
    ],
)
def test_talk_about_people_is_no_wish(text: str) -> None:
    assert not PersonWish(HashingEmbedder(), HANDOFF).found(text, None)


@pytest.mark.parametrize(
    "text",
    [
        "yes please confirm",
        "please confirm it",
        "confirm",
        "Confirm!",
        "Yes, I confirm.",
        "ok, confirm it please",
        "Yes. Go ahead",
        "confirmed, thanks",
        "I confirm this",
        "sure, please do",
    ],
)
def test_a_confirmation_is_a_yes(text: str) -> None:
    assert move(text) is Move.YES


@pytest.mark.parametrize(
    "text",
    [
        "don't confirm it",
        "please confirm the delivery date of ORD-10234",
        "can you confirm that it was shipped?",
        "yes but change the address first",
        "did you confirm it",
        "I cannot confirm this",
    ],
)
def test_what_says_more_than_yes_is_none(text: str) -> None:
    assert move(text) is not Move.YES


@pytest.mark.timeout(5)
def test_a_long_row_of_confirmations_is_read_in_no_time() -> None:
    assert move("yes " + "please confirm it " * 250 + "x") is None
