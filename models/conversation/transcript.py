"""A conversation that its caller keeps: chat messages read as the turns they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from models.errors import FieldError, InvalidRequest
from models.llm.types import ChatMessage, Role
from models.sessions.types import Outcome, Turn
from models.workflows.replies import Wordings

#: Fixed wordings by which a past turn is recognised; any other reply counts as an answer.
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
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """What the customer says now, the finished turns before it (oldest first), and the caller's own instructions."""

    text: str
    turns: tuple[Turn, ...]
    instructions: str


class TranscriptReader:
    """Reads chat messages as turns; how a turn ended is known where we answered with fixed words."""

    def __init__(self, replies: Wordings, *, max_turns: int, max_message_chars: int, max_caller_chars: int) -> None:
        self._outcomes: Mapping[str, Outcome] = {replies.text(name): outcome for name, outcome in _ENDINGS.items()}
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
            Turn(
                turn_id=f"turn_{number}",
                client_message_id=None,
                text=said,
                at=now,
                outcome=self._outcomes.get(replied, Outcome.ANSWERED),
                reply=replied,
            )
            for number, ((_, said), (_, replied)) in enumerate(pairs)
        )


def _check_length(what: str, text: str, limit: int) -> None:
    if len(text) > limit:
        detail = f"{what} must have at most {limit} characters"
        raise InvalidRequest(detail).with_fields(FieldError("/messages", detail))
