"""Personal data found by patterns and checksums: precise on structured data, modest on names and addresses.

Every pattern takes time linear in the text: repeats are possessive or bounded, and a match can only start where a token
starts. Checksums: Luhn (ISO/IEC 7812-1) for cards, mod 97 (ISO 13616) for IBANs, RFC 4291 text form for IPv6.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator

from models.safety import pii_patterns as patterns
from models.safety.types import PIISpan, PIIType

Candidate = tuple[PIIType, int, int]

#: Where kinds overlap, the earlier one names the span.
_PRECEDENCE = (
    PIIType.EMAIL,
    PIIType.IBAN,
    PIIType.CREDIT_CARD,
    PIIType.SSN,
    PIIType.IP_ADDRESS,
    PIIType.PHONE,
    PIIType.ADDRESS,
    PIIType.PERSON,
)


class PatternPIIDetector:
    """Finds e-mail, IP and street addresses, phone, card, IBAN and social security numbers, and introduced names."""

    def detect(self, text: str) -> tuple[PIISpan, ...]:
        """Non-overlapping spans in order of appearance; overlapping finds become one, so that nothing stays bare."""
        found = sorted((c for find in _FINDERS for c in find(text)), key=lambda c: (c[1], -c[2]))
        spans: list[Candidate] = []
        for kind, start, end in found:
            if spans and start < spans[-1][2]:
                last, last_start, last_end = spans[-1]
                spans[-1] = (min(last, kind, key=_PRECEDENCE.index), last_start, max(last_end, end))
            else:
                spans.append((kind, start, end))
        return tuple(PIISpan(type=kind, start=start, end=end) for kind, start, end in spans)

    def redact(self, text: str) -> str:
        """The text with every span replaced by its type, such as `[EMAIL]`; redacting again changes nothing."""
        while spans := self.detect(text):
            parts: list[str] = []
            at = 0
            for span in spans:
                parts += (text[at : span.start], f"[{span.type.value.upper()}]")
                at = span.end
            # Glued data may only show once its neighbour is gone; no pattern matches a bracketed type, so this ends.
            text = "".join((*parts, text[at:]))
        return text


def _digits(text: str) -> list[int]:
    return [int(c) for c in text if c.isdecimal()]


def luhn(digits: list[int]) -> bool:
    """Whether the last digit is the Luhn check digit of the others."""
    doubled = [d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _emails(text: str) -> Iterator[Candidate]:
    for match in patterns.EMAIL.finditer(text):
        yield PIIType.EMAIL, match.start(), match.end()


def _cards(text: str) -> Iterator[Candidate]:
    for match in patterns.CARD.finditer(text):
        digits = _digits(match.group())
        # 2 to 6 are the first digits of payment networks; a repeated digit passes Luhn by accident of being a filler.
        if 13 <= len(digits) <= 19 and 2 <= digits[0] <= 6 and len(set(digits)) > 1 and luhn(digits):
            yield PIIType.CREDIT_CARD, match.start(), match.end()


def _ibans(text: str) -> Iterator[Candidate]:
    for match in patterns.IBAN_START.finditer(text):
        length = patterns.IBAN_LENGTHS.get(match.group()[:2].upper())
        if length is None:
            continue
        end, letters = match.start(), ""
        while end < len(text) and len(letters) < length:
            char = text[end]
            if char.isascii() and char.isalnum():
                letters += char.upper()
            elif char not in " -" or not text[end - 1].isalnum():
                break
            end += 1
        glued = end < len(text) and text[end].isalnum()
        if len(letters) == length and not glued:
            number = int("".join(str(int(c, 36)) for c in letters[4:] + letters[:4]))
            if number % 97 == 1:
                yield PIIType.IBAN, match.start(), end


def _ssns(text: str) -> Iterator[Candidate]:
    for match in patterns.SSN.finditer(text):
        yield PIIType.SSN, match.start(), match.end()
    for match in patterns.SSN_NAMED.finditer(text):
        yield PIIType.SSN, match.start(1), match.end(1)


def _ip_addresses(text: str) -> Iterator[Candidate]:
    for match in patterns.IP.finditer(text):
        value = match.group().rstrip(".:") if match.group() != "::" else ""
        try:
            ipaddress.ip_address(value)
        except ValueError:
            continue
        # "::1" and the like are notation, not a person's address.
        if "." in value or len(value) > 6:
            yield PIIType.IP_ADDRESS, match.start(), match.start() + len(value)


def _phones(text: str) -> Iterator[Candidate]:
    for match in patterns.PHONE.finditer(text):
        before, after = text[max(0, match.start() - 40) : match.start()], text[match.end() : match.end() + 12]
        if _is_phone(match.group(), before, after):
            yield PIIType.PHONE, match.start(), match.end()


def _is_phone(number: str, before: str, after: str) -> bool:
    body = patterns.EXTENSION.sub("", number)
    count = len(_digits(body))
    if not 6 <= count <= 15 or patterns.DATE.fullmatch(body):
        return False
    if patterns.PHONE_WORD.search(before) or patterns.PHONE_WORD_AFTER.match(after):
        return True
    if patterns.AMOUNT.fullmatch(body) or patterns.REFERENCE_WORD.search(before):
        return False
    if body.startswith("+"):
        return count >= 8
    return any(shape.fullmatch(body) for shape in patterns.PHONE_SHAPES)


def _addresses(text: str) -> Iterator[Candidate]:
    for pattern in patterns.ADDRESSES:
        for match in pattern.finditer(text):
            yield PIIType.ADDRESS, match.start(), match.end()


def _persons(text: str) -> Iterator[Candidate]:
    for pattern in patterns.PERSONS:
        for match in pattern.finditer(text):
            start, end = match.span("name")
            first = patterns.WORD.match(text, start, end)
            if first and first.group().lower() not in patterns.NOT_A_NAME:
                yield PIIType.PERSON, start, end


_FINDERS: tuple[Callable[[str], Iterator[Candidate]], ...] = (
    _emails,
    _ibans,
    _cards,
    _ssns,
    _ip_addresses,
    _phones,
    _addresses,
    _persons,
)
