"""How urgent a safety message is: patterns for what is reported, with negation and mere mention told apart.

Patterns only ever raise an alarm; a message without any is judged by the classifier alone. Negation follows the idea
of NegEx (Chapman et al., 2001): a negating cue governs the next few words of its clause, unless it is a false friend
such as "not sure".
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType

from models.workflows import signals
from models.workflows.types import NextStep, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLevel:
    """Who must look at a report of one severity, and by when."""

    queue: str
    due_in: timedelta
    next_step: NextStep


SERVICE_LEVELS = MappingProxyType(
    {
        Severity.URGENT: ServiceLevel(
            queue="pharmacist", due_in=timedelta(minutes=15), next_step=NextStep.PHARMACIST_15_MIN
        ),
        Severity.HIGH: ServiceLevel(queue="pharmacist", due_in=timedelta(hours=2), next_step=NextStep.PHARMACIST_2_H),
        Severity.STANDARD: ServiceLevel(
            queue="compliance", due_in=timedelta(hours=24), next_step=NextStep.COMPLIANCE_24_H
        ),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """The severity of a text and the names of the signals that decided it.

    `reported` says that the text tells of something that happened, rather than asking about it in general: only then
    does a signal overrule the classifier. `unaffected` says that by its own words nobody came to harm: it asks in
    general what a product may do, or names symptoms only to deny them. `self_harm` asks for its own wording.
    """

    severity: Severity
    signals: tuple[str, ...] = ()
    reported: bool = False
    self_harm: bool = False
    unaffected: bool = False


_NEGATED_WORDS = 6


def assess(text: str) -> Assessment:
    """Severity by the worst signal found; `standard` with no signals when there is none."""
    text = _plain(text)
    general = bool(signals.GENERAL_QUESTION.match(text)) and not signals.SOMEBODY.search(text)
    if any(not _denied(text, match) for match in signals.SELF_HARM.finditer(text)):
        return Assessment(severity=Severity.URGENT, signals=("self_harm",), reported=True, self_harm=True)
    if general and signals.EFFECT_QUESTION.search(text) and not signals.MUCH.search(text):
        return Assessment(severity=Severity.STANDARD, unaffected=True)
    urgent = tuple(name for name, pattern in signals.URGENT if _stated(pattern, text))
    if urgent and not (urgent == ("death",) and _bereaved(text)):
        # A shout has no grammar: an urgent sign counts as reported unless the text is plainly a general question.
        return Assessment(severity=Severity.URGENT, signals=urgent, reported=not general)
    if high := tuple(name for name, pattern in signals.HIGH if _stated(pattern, text, product=True)):
        told = bool(signals.TOLD.search(text)) and not general
        return Assessment(severity=Severity.HIGH, signals=high, reported=told)
    if standard := tuple(name for name, pattern in signals.STANDARD if _stated(pattern, text)):
        faulty = bool(signals.HEALTH_PRODUCT.search(text)) or not signals.OTHER_SEAL.search(text)
        if faulty:
            return Assessment(severity=Severity.STANDARD, signals=standard, reported=not general)
    return Assessment(severity=Severity.STANDARD, unaffected=_only_denies(text))


def _plain(text: str) -> str:
    """Lower case, straight quotes, no invisible characters, single spaces."""
    text = unicodedata.normalize("NFKC", text).replace("’", "'").replace("`", "'").replace("´", "'").casefold()
    text = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return re.sub(r"[ \t\r\f\v]+", " ", text)


def _stated(pattern: re.Pattern[str], text: str, *, product: bool = False) -> bool:
    """Whether the pattern stands in the text at least once, neither negated nor as mere mention."""
    for match in pattern.finditer(text):
        before, after = text[: match.start()], text[match.end() :]
        mentioned = (
            signals.PAPERWORK.match(after)
            or signals.HISTORY.search(before)
            or (product and signals.PRODUCT.match(after))
        )
        if not (mentioned or _negated(before) or signals.NEGATED_AFTER.match(after)):
            return True
    return False


def _bereaved(text: str) -> bool:
    """Whether a death is told only because an account has to be settled."""
    return bool(signals.BEREAVED.search(text)) and not signals.TREATED.search(text)


def _only_denies(text: str) -> bool:
    """Whether symptoms are named, each of them denied, by somebody who wants something else."""
    named = (match for _, pattern in (*signals.URGENT, *signals.HIGH) for match in pattern.finditer(text))
    denied = any(_negated(text[: match.start()]) for match in named)
    return denied and bool(signals.ERRAND.search(text)) and not signals.CONTRAST.search(text)


def _denied(text: str, match: re.Match[str]) -> bool:
    """Only the plainest denial silences a sign of self-harm; "why not kill myself" must not."""
    before, after = text[: match.start()], text[match.end() :]
    return bool(signals.PAPERWORK.match(after) or signals.DENIAL.search(before))


def _clause(before: str) -> str:
    """The part of `before` that belongs to the same clause as what follows it."""
    ends = list(signals.CLAUSE_END.finditer(before))
    return before[ends[-1].end() :] if ends else before


def _negated(before: str) -> bool:
    clause = _clause(before)
    cues = list(signals.NEGATION.finditer(clause))
    return bool(cues) and len(clause[cues[-1].end() :].split()) <= _NEGATED_WORDS
