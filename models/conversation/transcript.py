"""A conversation that its caller keeps: chat messages read as the turns they were."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby

from models.errors import FieldError, InvalidRequest
from models.llm.types import ChatMessage, Role
from models.sessions.types import Outcome, Turn
from models.workflows.replies import Wordings

#: Fixed wordings, filled in with anything, by which a past turn is recognised; any other reply counts as an answer.
_ENDINGS = {
    "no_answer": Outcome.NO_ANSWER,
    "out_of_scope": Outcome.NO_ANSWER,
    "tool_failure": Outcome.NO_ANSWER,
    "refused": Outcome.REFUSED,
    "unclear_request": Outcome.CLARIFIED,
    "identify_customer": Outcome.CLARIFIED,
    "customer_not_found": Outcome.CLARIFIED,
    "order_needed": Outcome.CLARIFIED,
    "account_field_needed": Outcome.CLARIFIED,
    "account_value_needed": Outcome.CLARIFIED,
    "order_needed_recent": Outcome.CLARIFIED,
    "order_not_found": Outcome.CLARIFIED,
    "cancel_prepared": Outcome.AWAITING_CONFIRMATION,
    "refund_prepared": Outcome.AWAITING_CONFIRMATION,
    "account_prepared": Outcome.AWAITING_CONFIRMATION,
    "ticket_prepared": Outcome.AWAITING_CONFIRMATION,
    "handed_off": Outcome.HANDED_OFF,
    "handed_off_waiting": Outcome.HANDED_OFF,
}
#: What may stand where a wording is filled in; bounded, because callers write the texts that are matched.
_FILLED_IN = {"order_id": r"[\w-]{1,64}", "ticket_id": r"(?P<ticket_id>[\w-]{1,64})"}
_ANYTHING = ".{1,500}?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """What the customer says now, the finished turns before it (oldest first), and the caller's own instructions."""

    text: str
    turns: tuple[Turn, ...]
    instructions: str


class TranscriptReader:
    """Reads chat messages as turns; how a turn ended, and with which ticket, is known where we used fixed words."""

    def __init__(self, replies: Wordings, *, max_turns: int, max_message_chars: int, max_caller_chars: int) -> None:
        self._endings = [(_pattern(replies.template(name)), outcome) for name, outcome in _ENDINGS.items()]
        self._max_turns = max_turns
        self._max_message_chars = max_message_chars
        self._max_caller_chars = max_caller_chars

    def read(self, messages: Sequence[ChatMessage], *, now: datetime) -> Transcript:
        """Consecutive messages of one side count as one, and only the latest turns are kept.

        Raises `InvalidRequest` when the last message is not the customer's, or a text is too long.
        """
        if not messages or messages[-1].role is not Role.USER:
            raise InvalidRequest("the last message must be the customer's")
        instructions = "\n".join(message.content for message in messages if message.role is Role.SYSTEM)
        _check_length("the system messages", instructions, self._max_caller_chars)
        spoken = [message for message in messages if message.role in (Role.USER, Role.ASSISTANT)]
        sides = [
            (role, "\n".join(message.content for message in group if message.content))
            for role, group in groupby(spoken, key=lambda message: message.role)
        ]
        *past, (_, text) = sides
        _check_length("the last message", text, self._max_message_chars)
        return Transcript(text=text, turns=self._turns(past, now), instructions=instructions)

    def _turns(self, sides: Sequence[tuple[Role, str]], now: datetime) -> tuple[Turn, ...]:
        # A greeting of ours before the customer's first word is no turn.
        spoken = sides[1:] if sides and sides[0][0] is Role.ASSISTANT else sides
        pairs = list(zip(spoken[::2], spoken[1::2], strict=False))[-self._max_turns :]
        for (_, said), (_, replied) in pairs:
            _check_length("an earlier user message", said, self._max_message_chars)
            _check_length("an earlier assistant message", replied, self._max_caller_chars)
        return tuple(
            self._ended(Turn(turn_id=f"turn_{number}", client_message_id=None, text=said, at=now), replied)
            for number, ((_, said), (_, replied)) in enumerate(pairs)
        )

    def _ended(self, turn: Turn, replied: str) -> Turn:
        for pattern, outcome in self._endings:
            if (found := pattern.fullmatch(replied)) is not None:
                return replace(turn, outcome=outcome, reply=replied, ticket_id=found.groupdict().get("ticket_id"))
        return replace(turn, outcome=Outcome.ANSWERED, reply=replied)


def _pattern(template: str) -> re.Pattern[str]:
    """What a wording looks like with anything filled in."""
    parts = (
        re.escape(literal) + ("" if field is None else _FILLED_IN.get(field, _ANYTHING))
        for literal, field, _, _ in string.Formatter().parse(template)
    )
    return re.compile("".join(parts))


def _check_length(what: str, text: str, limit: int) -> None:
    if len(text) > limit:
        detail = f"{what} must have at most {limit} characters"
        raise InvalidRequest(detail).with_fields(FieldError("/messages", detail))
