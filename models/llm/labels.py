"""What a key says of its value: `phone_number` makes ten digits a telephone's, `customer` makes two words a name.

People write names in sentences, which `models.safety` reads; systems write them after keys, which are read here. Not
found: a name in lower case, a single word after a role (`Customer: Jane`), and a key that stands beside its value in
an object of its own (`{"field": "phone", "value": 4155552671}`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_KEYS_NAMED = 2
_JOINT = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[_\-.]+")
_BEFORE_NAME = re.compile(r" (?=name$)", re.IGNORECASE)

_OF = (
    r"(?:account|agent|billing|caller|client|contact|customer|employee|family|first|full|given|holder|last|maiden|member"
    r"|middle|owner|patient|primary|recipient|shipping|user)[ _-]?"
)
_ROLE = (
    r"(?:(?:account|card|policy)[ _-]?(?:holder|owner|manager)|attn|attention|billed[ _-]to|caller|client|contact"
    r"|customer|patient|recipient|ship[ _-]to|signed[ _-]by)"
)
#: The end of a key: quoted or not, in JSON, YAML, or JSON inside of JSON.
_SAYS = r"""\\?["']?\s{0,2}[:=]\s{0,2}\\?["']?"""
_WORD = r"[A-ZÀ-ÖØ-ÞĀ-Ž][\w'’-]++\.?"
_PARTICLE = r"(?:(?:van|von|de|der|den|di|da|la|le|el|bin|al)[ ]){0,2}"
_MORE = rf"(?:[ ]{_PARTICLE}(?:{_WORD}|[A-Z]\b\.?)|,[ ]{_WORD})"
_NAMES = (
    re.compile(rf"(?<![\w-])(?i:(?:{_OF}){{0,2}}(?:sur)?name){_SAYS}(?P<name>{_WORD}{_MORE}{{0,3}})"),
    re.compile(rf"(?<![\w-])(?i:{_ROLE}){_SAYS}(?P<name>{_WORD}{_MORE}{{1,3}})"),
)


def label_of(keys: Sequence[str]) -> str:
    """The last of these nested keys as words before a value, such as `phone number: `; empty without a key."""
    # What kind of name it is stays a part of the word: a `product_name` is no person's.
    words = " ".join(_BEFORE_NAME.sub("_", _JOINT.sub(" ", key)) for key in keys[-_KEYS_NAMED:])
    return f"{words}: " if words else ""


def names_in(text: str) -> Iterator[tuple[int, int]]:
    """Where names stand after keys that say so; places may overlap."""
    for pattern in _NAMES:
        for match in pattern.finditer(text):
            yield match.span("name")
