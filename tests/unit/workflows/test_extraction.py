"""Order references are found however people write them, and other numbers are left alone."""

from __future__ import annotations

import pytest

from models.workflows.extraction import account_field, ends_subscription, lone_number_reference, order_references


@pytest.mark.parametrize(
    "text",
    [
        "Where is ORD-10234?",
        "where is ord 10234",
        "ORD10234 has not arrived",
        "Where is my order #10234",
        "my order number is 10234, please cancel it",
        "order no. 10234",
        "Order: 10234",
        "I ordered vitamins, the number was 10234",
        "#10234 is the order I mean",
        "please track parcel 10234.",
        "ＯＲＤ-10234",
    ],
)
def test_every_way_of_writing_a_reference_is_normalised(text: str) -> None:
    assert order_references(text) == ("ORD-10234",)


@pytest.mark.parametrize(
    "text",
    [
        "I ordered on 2026-05-01",
        "my order cost $10234",
        "call me at 555-10234 about my order",
        "my order goes to zip code 90210",
        "invoice 10234 for my order is wrong",
        "the order was 10234 EUR",
        "I have 10234 patients",
        "my order arrived",
        "card number 4111111111111111 was charged for my order",
        "ordinary 12",
    ],
)
def test_other_numbers_are_not_orders(text: str) -> None:
    assert order_references(text) == ()


def test_several_orders_come_in_order_of_appearance_and_once() -> None:
    assert order_references("ORD-20001 and order 10234, I mean ORD-20001") == ("ORD-20001", "ORD-10234")


def test_a_bare_number_is_a_reference_only_as_a_whole_answer() -> None:
    assert lone_number_reference(" #10234. ") == "ORD-10234"
    assert lone_number_reference("it's 10234") == "ORD-10234"
    assert lone_number_reference("we are 10234 people") is None


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("change my e-mail to dana@example.com", "email"),
        ("please update my phone number", "phone"),
        ("we moved, new address", "address"),
        ("add two seats", "seats"),
        ("please change it", None),
    ],
)
def test_the_part_of_the_account_is_named(text: str, field: str | None) -> None:
    assert account_field(text) == field


@pytest.mark.parametrize(
    "text",
    [
        "Cancel my plan please",
        "cancel our subscription",
        "Cancel subscription",
        "I want to end my premium membership today",
        "Terminate our contract at the end of the month",
        "Please close my account",
        "We would like to give notice on our plan",
        "get me out of this contract",
        "stop the automatic renewal",
    ],
)
def test_a_wish_to_end_a_subscription_is_noticed(text: str) -> None:
    assert ends_subscription(text)


@pytest.mark.parametrize(
    "text",
    [
        "Cancel my order",
        "Cancel the repeat order of my plan",
        "Add two seats to our plan",
        "Upgrade my subscription",
        "Cancel it",
        "Stop the delivery to my account",
        "The export stops half way in my account settings page",
    ],
)
def test_other_wishes_end_no_subscription(text: str) -> None:
    assert not ends_subscription(text)
