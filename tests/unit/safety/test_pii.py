from __future__ import annotations

import time
from itertools import pairwise

import pytest

from models.safety.pii import PatternPIIDetector
from models.safety.types import PIIType

DETECTOR = PatternPIIDetector()


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("Write to anna.muster+shop@clinic.example.org please", PIIType.EMAIL, "anna.muster+shop@clinic.example.org"),
        ("Mail: JÖRG@müller-praxis.de.", PIIType.EMAIL, "JÖRG@müller-praxis.de"),
        ("Call +41 44 668 18 00 after six", PIIType.PHONE, "+41 44 668 18 00"),
        ("My mobile is +1 (415) 555-0132.", PIIType.PHONE, "+1 (415) 555-0132"),
        ("(415) 555-0132 is best", PIIType.PHONE, "(415) 555-0132"),
        ("415-555-0132 x204", PIIType.PHONE, "415-555-0132 x204"),
        ("Tel. 0650 995 04 94", PIIType.PHONE, "0650 995 04 94"),
        ("reach me at 44668180", PIIType.PHONE, "44668180"),
        ("card 4111 1111 1111 1111 expires soon", PIIType.CREDIT_CARD, "4111 1111 1111 1111"),
        ("amex 378282246310005", PIIType.CREDIT_CARD, "378282246310005"),
        ("pay to DE89 3704 0044 0532 0130 00 today", PIIType.IBAN, "DE89 3704 0044 0532 0130 00"),
        ("IBAN:gb82west12345698765432.", PIIType.IBAN, "gb82west12345698765432"),
        ("SSN 219-09-9999", PIIType.SSN, "219-09-9999"),
        ("social security number is 219099999", PIIType.SSN, "219099999"),
        ("from 192.168.13.37 last night", PIIType.IP_ADDRESS, "192.168.13.37"),
        ("host 2001:db8:85a3::8a2e:370:7334 failed", PIIType.IP_ADDRESS, "2001:db8:85a3::8a2e:370:7334"),
        ("Hello, my name is Anna van der Berg and I need help", PIIType.PERSON, "Anna van der Berg"),
        ("my name is jane doe.", PIIType.PERSON, "jane doe"),
        ("Please ask Dr. Miller about it", PIIType.PERSON, "Miller"),
        ("Best regards,\nJohn Q. Public", PIIType.PERSON, "John Q. Public"),
        ("Send it to 742 Evergreen Terrace, Apt 5", PIIType.ADDRESS, "742 Evergreen Terrace, Apt 5"),
        ("Ship to 10 Main St, Springfield, IL 62704 please", PIIType.ADDRESS, "10 Main St, Springfield, IL 62704"),
        ("Ich wohne Bahnhofstrasse 12a", PIIType.ADDRESS, "Bahnhofstrasse 12a"),
        ("12, rue de la Paix", PIIType.ADDRESS, "12, rue de la Paix"),
        ("P.O. Box 255 is fine", PIIType.ADDRESS, "P.O. Box 255"),
    ],
)
def test_finds(text: str, kind: PIIType, value: str) -> None:
    assert [(span.type, text[span.start : span.end]) for span in DETECTOR.detect(text)] == [(kind, value)]


@pytest.mark.parametrize(
    "text",
    [
        "Where is my order 20240117334?",
        "Order #4155550132 has not arrived",
        "order number 415-555-0132",
        "Invoice INV-2024-000123 of 2024-01-17",
        "It cost $1,299.00 on 01/17/2024, not 1 299 000",
        "Tracking 00340434161094042557 says delivered on 17.01.2024",
        "We have 12 seats and 3,500 patients",
        "Between 2019-2024 we ordered 10 000 000 gloves",
        "Version 2.10.4 of the app at 12:30:45",
        "ratio 16:9, batch 12:34:56:78",
        "card 4111 1111 1111 1112 fails its check digit",
        "DE88 3704 0044 0532 0130 00 fails its checksum",
        "SSN 000-12-3456 and 666-12-3456 were never issued",
        "My name is wrong on the invoice",
        "I am Muslim and I am Very Happy With It",
        "Dear customer, Dear Team, Hi there,",
        "Take 20 tablets in 10 days; 5 Star service",
        "customer_123 has 40 events since March 3 2024",
        "the 24 hour line and the 7 day trial",
    ],
)
def test_leaves_alone(text: str) -> None:
    assert [(span.type, text[span.start : span.end]) for span in DETECTOR.detect(text)] == []


MIXED = (
    "Hi, my name is Anna Muster, anna@clinic.example, phone +41 44 668 18 00, card 4111111111111111, "
    "IBAN DE89370400440532013000, from 10.0.0.7. I live at 742 Evergreen Terrace. SSN 219-09-9999."
)


def test_redacts_everything_in_order() -> None:
    assert DETECTOR.redact(MIXED) == (
        "Hi, my name is [PERSON], [EMAIL], phone [PHONE], card [CREDIT_CARD], "
        "IBAN [IBAN], from [IP_ADDRESS]. I live at [ADDRESS]. SSN [SSN]."
    )


@pytest.mark.parametrize("text", [MIXED, "", "nothing here", "a@b.co/c@d.co,4111111111111111;219-09-9999", "[EMAIL]"])
def test_redacting_twice_changes_nothing(text: str) -> None:
    once = DETECTOR.redact(text)
    assert DETECTOR.redact(once) == once
    assert DETECTOR.detect(once) == ()


def test_spans_do_not_overlap_and_come_in_order() -> None:
    spans = DETECTOR.detect(MIXED + " Mr. 10 Main St 219-09-9999 Dr. Main 4111 1111 1111 1111 415-555-0132")
    assert spans
    for left, right in pairwise(spans):
        assert left.start < left.end <= right.start


UNITS = [
    "a", "1", "1 ", "1-", "1.", "a.", "a@", "@", "a@a.", "A ", "A-", "Mr ", "my name is ", "Dr. A ", "1 A ", "1 Aa Aa ",
    "::", "f:", "1:", "(1", "+1 ", "DE89 ", "DE89", "219-09-", "P.O. Box ", "rue de la ", "Aastr. ", "0 ", "call ", "'",
    "219-09-9999", "a@b.co,", "1.1.1.1.", "\n", " ", "é", "１",
]  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
def test_hostile_input_takes_linear_time(unit: str) -> None:
    def seconds(length: int) -> float:
        text = (unit * length)[:length] + "!"
        started = time.process_time()
        DETECTOR.redact(text)
        return time.process_time() - started

    assert seconds(5_000) < 0.5
    assert seconds(40_000) < 4.0
