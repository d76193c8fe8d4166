"""How personal data is hidden: a rule per personal field, and patterns where it may stand in people's own words."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, fields, is_dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any

from models.enrichment.types import PERSONAL_FIELDS, SECTIONS, Section
from models.errors import ConfigurationError
from models.safety.pii import PatternPIIDetector
from models.safety.protocol import PIIDetector

logger = logging.getLogger(__name__)

REDACTED = "[redacted]"
#: The rule for what people wrote, beside those of the personal fields.
FREE_TEXT_RULE = "free_text"
#: The sections that hold such words.
FREE_TEXT_SECTIONS = frozenset(
    name for name, section in SECTIONS.items() if any(item.metadata.get("free_text") for item in fields(section))
)

_REMEMBERED_TEXTS = 512
_EMAIL = re.compile(r"([^@\s])[^@\s]*@([^@\s]+)")
_NAME = re.compile(r"[^\W\d_][\w'’.-]*(?: [^\W\d_][\w'’.-]*){0,4}")

Hide = Callable[[str], str]
SectionMask = Callable[[Section], Section]


class Mask(StrEnum):
    """How a personal field is shown, from the most open to the most closed.

    Partial names nobody but hints; a token shows nothing but can be turned back, a hash shows only that two values are
    the same.
    """

    KEEP = "keep"
    PARTIAL = "partial"
    TOKENISE = "tokenise"
    HASH = "hash"
    REDACT = "redact"

    @property
    def strictness(self) -> int:
        """0 for the most open."""
        return tuple(Mask).index(self)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """A mask for every personal field, and for `free_text`: keep, or redact what patterns find."""

    masks: Mapping[str, Mask]

    def __post_init__(self) -> None:
        known = (*PERSONAL_FIELDS, FREE_TEXT_RULE)
        if unknown := sorted(set(self.masks) - set(known)):
            raise ConfigurationError(f"{', '.join(unknown)} is not a personal field")
        for key in known:
            if key not in self.masks:
                raise ConfigurationError(f"no rule for {key}")
        if self.masks[FREE_TEXT_RULE] not in (Mask.KEEP, Mask.REDACT):
            raise ConfigurationError(f"{FREE_TEXT_RULE} is keep or redact")

    def stricter_than(self, other: RuleSet) -> str | None:
        """The first rule by which this set shows less than the other."""
        return next((key for key, mask in self.masks.items() if mask.strictness > other.masks[key].strictness), None)


class Masker:
    """Hides what rules say. What cannot be masked is redacted: it never raises, and never shows.

    `secret` keys hashes and tokens; without one both redact.
    """

    def __init__(self, secret: str = "", *, detector: PIIDetector | None = None) -> None:
        self._hides: dict[Mask, Hide] = {Mask.PARTIAL: _partial}
        #: Differs between secrets and tells nothing of them.
        self.fingerprint = ""
        if secret:
            from models.enrichment.cryptography_tokens import Tokeniser  # only who tokenises needs the library

            self._hides[Mask.TOKENISE] = Tokeniser(secret).tokenise
            self._hides[Mask.HASH] = partial(_hash, secret)
            self.fingerprint = _hash(secret, "")
        self._search = partial(_free_text, _closed((detector or PatternPIIDetector()).redact))
        # Incidents are the same for every customer, and so are news for every agent type.
        self._remembered = lru_cache(maxsize=_REMEMBERED_TEXTS)(self._search)

    def compile(self, rules: RuleSet) -> Mapping[str, SectionMask]:
        """By section, what must be done to it; a section that is shown as it is has no entry."""
        masks: dict[str, SectionMask] = {}
        for name, section in SECTIONS.items():
            hides = {item.name: hide for item in fields(section) if (hide := self._for_field(name, item, rules))}
            if hides:
                masks[name] = partial(_mask, hides)
        return MappingProxyType(masks)

    def _for_field(self, section: str, item: Field[Any], rules: RuleSet) -> Callable[[Any], Any] | None:
        if item.metadata.get("personal"):
            mask = rules.masks[f"{section}.{item.name}"]
            return None if mask is Mask.KEEP else partial(_personal, _closed(self._hides.get(mask, _redact)))
        if item.metadata.get("free_text") and rules.masks[FREE_TEXT_RULE] is not Mask.KEEP:
            return self._searched
        return None

    def _searched(self, value: Any) -> Any:
        try:
            return self._remembered(value)
        except TypeError:  # not hashable, so not what it should be
            return self._search(value)


def _mask(hides: Mapping[str, Callable[[Any], Any]], section: Section) -> Section:
    changes = {}
    for name, hide in hides.items():
        value = getattr(section, name)
        if (shown := hide(value)) is not value:
            changes[name] = shown
    return replace(section, **changes) if changes else section


def _closed(hide: Hide) -> Hide:
    """The same, with every failure shown as redacted."""

    def closed(text: str) -> str:
        try:
            return hide(text)
        except Exception as error:  # whatever it was, the value must not be shown, and the read must go on
            logger.warning("a value could not be masked and is redacted", extra={"error": type(error).__name__})
            return REDACTED

    return closed


def _personal(hide: Hide, value: Any) -> Any:
    """Every text in it hidden; a value of another kind has no partial form, so nothing of it is shown."""
    if value is None:
        return None
    if isinstance(value, tuple):
        return tuple(_personal(hide, item) for item in value)
    return hide(value) if isinstance(value, str) and value.strip() else REDACTED


def _free_text(hide: Hide, value: Any) -> Any:
    """Every text in it searched, through sequences and nested values; what could hold text elsewhere is not shown."""
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, tuple | list):
        return tuple(_free_text(hide, item) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{item.name: _free_text(hide, getattr(value, item.name)) for item in fields(value)})
    return value if value is None or isinstance(value, int | float | datetime) else REDACTED


def _redact(_: str) -> str:
    return REDACTED


def _hash(secret: str, text: str) -> str:
    """HMAC-SHA-256 (RFC 2104) under a label of its own, so that it equals no other hash under the same secret."""
    return "hash_" + hmac.new(secret.encode(), b"context\0" + text.encode(), hashlib.sha256).hexdigest()[:32]


def _partial(text: str) -> str:
    """The first letter and the domain of an e-mail address, a first name and an initial; of anything else nothing."""
    if address := _EMAIL.fullmatch(text.strip()):
        return f"{address[1]}***@{address[2]}"
    words = text.split()
    if not _NAME.fullmatch(" ".join(words)):
        return REDACTED
    return f"{words[0]} {words[-1][0]}." if len(words) > 1 else f"{words[0][0]}."
