"""Handing a conversation to a person: noticing the wish, and telling the colleague what was said."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from models.classification.exemplars import read_sentences
from models.embedding.protocol import Embedder, Vectors
from models.errors import ModelUnavailable
from models.safety.protocol import PIIDetector
from models.sessions.types import HandoffReason, Session
from models.workflows.protocol import TicketSystem
from models.workflows.types import Channel

_ADJECTIVE = r"(?:real|live|actual|human|proper|different|another|support|service)"
_PERSON = (
    rf"(?:{_ADJECTIVE} )*(?:humans?(?: being| agent)?|person|people|agents?|representatives?|rep|operator|advis[eo]r|"
    r"supervisor|manager|colleague|member of (?:your )?(?:staff|team)|customer (?:service|support)|support team)"
)
_SOMEBODY = rf"(?:(?:an?|the|your|some|any|one of your) )?(?:{_PERSON}|someone|somebody|anyone|anybody)"
#: What may follow for the person to be the whole wish: "a person, please", not "a person removed from my account".
_END = (
    r"(?=\s*(?:$|[.,;!?]|(?:please|now|instead|asap|right|immediately|urgently|about|and|or|directly|here|who can|"
    r"on the|from (?:your|the)|to (?:help|talk|speak|call|look|take))\b))"
)
_MACHINE = r"(?:bot|robot|machine|computer|ai)"


def _any(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives), re.IGNORECASE)


_WISHES = _any(
    rf"\b(?:speak|talk|chat) (?:to|with) {_SOMEBODY}{_END}",
    rf"\b(?:connect|transfer|put|pass|hand|escalate|forward|switch)(?: me| us| this| it| the (?:chat|conversation))"
    rf"(?: \w+)?? (?:to|with) {_SOMEBODY}{_END}",
    rf"\b(?:want|need|would like|i'd like|get me|give me|prefer|(?:can|could|may) i (?:get|have)) "
    rf"(?:an? |the |some )?{_PERSON}{_END}",
    rf"^\W*{_PERSON}\W*(?:please|now)?\W*$",
    rf"^\W*(?:an? |the )?{_PERSON}\W*(?:please|pls|plz|now|asap|here)(?:\W+(?:please|now))?\W*$",
    rf"\b(?:want|need|would like|i'd like) (?:to (?:have|get|see|reach) )?(?:an? |the |some )?{_PERSON}\W+"
    rf"(?:now|please|not (?:an? |this |your )?{_MACHINE})\b",
    rf"\b(?:is|are) there (?:an? |any )?(?:{_ADJECTIVE} )*(?:humans?|person|people|someone|anyone|agent|operator)"
    r"(?: (?:there|here|around|available|who can help\b.*|i can (?:talk|speak|chat) (?:to|with)))\W*$",
    rf"\b(?:don't|do not) (?:want|like) (?:to )?(?:talk|speak|chat)\w* (?:to|with) (?:a |this )?{_MACHINE}\b",
)
_NOT_A_WISH = _any(
    r"\b(?:don't|do not|didn't|needn't|no need to|without having to|rather not)(?: (?:want|need|have|wish))?(?: to)? "
    rf"(?:speak|talk|chat)\b(?! (?:to|with) (?:a |this )?{_MACHINE}\b)",
    rf"\b(?:don't|do not) (?:want|need) (?:an? )?{_PERSON}",
    r"\b(?:do|did|should|must) (?:i|we)(?: (?:need|have) to)? (?:speak|talk|chat)\b",
    r"\b(?:speak|talk|chat) (?:to|with) (?:my|our|his|her|their)\b",
)
_ORDER = ("wants_person", "other")


class PersonWish:
    """Notices that a customer wants a person: by plain wording, or by nearness to exemplars. Errs on the side of no."""

    def __init__(
        self, embedder: Embedder, exemplars: Path, *, nearest: int = 3, at_least: float = 0.5, margin: float = 0.15
    ) -> None:
        self._embedder = embedder
        self._sentences = read_sentences(exemplars, _ORDER)
        self._nearest = nearest
        self._at_least = at_least
        self._margin = margin
        self._vectors: dict[str, Vectors] = {}

    async def load(self) -> None:
        """Embed the exemplars once. Raises `ModelUnavailable`."""
        self._vectors = {name: await self._embedder.embed(self._sentences[name]) for name in _ORDER}

    def found(self, text: str, vector: Vectors | None) -> bool:
        """`vector` is the text's embedding, shape (1, dimension); without it only the wording is judged."""
        text = text.replace("’", "'")
        if _NOT_A_WISH.search(text):
            return False
        if _WISHES.search(text):
            return True
        if vector is None:
            return False
        if not self._vectors:
            raise ModelUnavailable("the wish for a person cannot be noticed before load()")
        wants, other = (self._score(name, vector) for name in _ORDER)
        return wants >= self._at_least and wants - other >= self._margin

    def _score(self, name: str, vector: Vectors) -> float:
        similarities = np.sort((vector @ self._vectors[name].T)[0])
        return float(similarities[-self._nearest :].mean())


class HandoffDesk:
    """Keeps the ticket by which a person takes over; what it tells is free of personal data."""

    def __init__(self, tickets: TicketSystem, pii: PIIDetector, *, max_turns: int = 10, max_chars: int = 4000) -> None:
        self._tickets = tickets
        self._pii = pii
        self._max_turns = max_turns
        self._max_chars = max_chars

    async def open(self, session: Session, text: str, *, reason: HandoffReason, note: str = "") -> str:
        """The ticket's id, once it is durable. Raises `DatabaseUnavailable`."""
        return await self._tickets.open(
            customer_id=session.customer_id,
            subject=f"Chat handed over: {reason.replace('_', ' ')}",
            body=self._summary(session, text, note),
            channel=Channel.CHAT,
            priority="high" if reason in (HandoffReason.SAFETY, HandoffReason.POLICY_RESTRICTION) else "normal",
            reason=str(reason),
        )

    async def add(self, ticket_id: str, text: str) -> None:
        """A further message of the customer, on the ticket once this returns. Raises `DatabaseUnavailable`."""
        await self._tickets.comment(ticket_id, self._pii.redact(f"Customer: {text}"))

    def _summary(self, session: Session, text: str, note: str) -> str:
        lines = [f"Session {session.session_id}"] + ([note] if note else [])
        past = [turn for turn in session.turns if turn.outcome is not None]
        for turn in past[-self._max_turns :]:
            lines += [f"Customer: {turn.text}", f"Rapport ({turn.outcome}): {turn.reply or '-'}"]
        lines.append(f"Customer: {text}")
        summary = self._pii.redact("\n".join(lines))
        # The end is what the colleague needs most.
        return summary if len(summary) <= self._max_chars else "…" + summary[1 - self._max_chars :]
