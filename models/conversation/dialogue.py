"""Small moves of a conversation: greetings, yes and no, and questions that lean on the one before."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

from models.sessions.types import Outcome, Turn
from models.workflows.extraction import lone_number_reference, order_references


class Move(StrEnum):
    """A message that is nothing but a move; anything with content has none."""

    GREETING = "greeting"
    THANKS = "thanks"
    YES = "yes"
    NO = "no"


_CONFIRM = r"(?:i (?:can |do |hereby )?|you (?:can|may) )?confirm(?:ed)?(?: (?:it|this|that))?"

_MOVES = {
    Move.GREETING: r"(?:hi|hello|hey|good (?:morning|afternoon|evening|day)|greetings)(?: there| team| medley)?",
    Move.THANKS: r"(?:ok(?:ay)?,? )?(?:great,? |perfect,? )?(?:thanks?(?: you)?|cheers|much appreciated)"
    r"(?: (?:so much|very much|a lot|again|for (?:the|your) help))*",
    Move.YES: rf"(?:yes|yeah|yep|yup|sure|ok(?:ay)?|please do|do it|go ahead|(?:please )?{_CONFIRM}|correct|"
    rf"that'?s right|of course|absolutely)(?:[,.!]? (?:please|do|go ahead|thanks|thank you|do it|{_CONFIRM}|"
    r"that'?s (?:right|correct)))*",
    Move.NO: r"(?:no|nope|nah|don'?t|do not|never ?mind|not now|leave it|stop)"
    r"(?:,? (?:thanks|thank you|please|don'?t))*",
}
_PATTERNS = {move: re.compile(rf"\W*{pattern}\W*", re.IGNORECASE) for move, pattern in _MOVES.items()}

_LEANS = re.compile(
    r"^\W*(?:and|or|but|so|then|what about|how about|what if|why|also)\b"
    r"|\b(?:it|its|that|this|those|these|them|they|there|one|ones|same|instead)\b",
    re.IGNORECASE,
)
_SHORT_WORDS = 4
_LEANING_WORDS = 12


def move(text: str) -> Move | None:
    """The move that the whole text is, if it is one."""
    text = text.replace("’", "'").strip()
    return next((name for name, pattern in _PATTERNS.items() if pattern.fullmatch(text)), None)


def standalone(text: str, turns: Sequence[Turn]) -> str:
    """The text with what it leans on: the previous question, or the request whose details it supplies.

    `turns` are the finished turns before it, oldest first. A text that stands by itself is returned unchanged.
    """
    if not turns:
        return text
    previous, words = turns[-1], len(text.split())
    if previous.outcome is Outcome.CLARIFIED and move(previous.text) is None:
        supplies = order_references(text) or lone_number_reference(text) is not None
        # Order references stand first where they are looked for, so the new detail leads.
        return f"{_as_reference(text)}\n{previous.text}" if supplies or words <= _SHORT_WORDS else text
    if previous.outcome not in (Outcome.ANSWERED, Outcome.NO_ANSWER):
        return text
    leans = words <= _LEANING_WORDS and _LEANS.search(text) is not None
    return f"{previous.text.strip()} {text}" if leans or words < _SHORT_WORDS else text


def _as_reference(text: str) -> str:
    return lone_number_reference(text) or text
