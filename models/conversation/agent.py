"""The turn loop: one customer message in, one recorded and moderated reply out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from models.classification.types import Category
from models.conversation import prompt
from models.conversation.conclusion import Conclusion, after_action, after_answer, after_report, finished
from models.conversation.dialogue import Move, move, standalone
from models.conversation.handoff import HandoffDesk, PersonWish
from models.conversation.transcript import TranscriptReader
from models.enrichment.protocol import ContextSource
from models.enrichment.types import ContextRequest, EnrichedContext
from models.errors import (
    CacheUnavailable,
    Conflict,
    FieldError,
    IdempotencyMismatch,
    InvalidRequest,
    NotFound,
    RapportError,
    UnknownAgentType,
)
from models.ids import NewId, new_id
from models.llm.types import ChatMessage
from models.resilience.deadline import Deadline
from models.sessions.manager import SessionManager
from models.sessions.types import HandoffReason, Outcome, Session, SessionStatus, Turn
from models.telemetry import Metrics, NoMetrics
from models.workflows.replies import Wordings
from models.workflows.router import MessageRouter, Triage
from models.workflows.types import Channel, InboundMessage

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """`default_agent_type` is whose view of the customer is taken when the session names none: the most masked one."""

    replies: Wordings
    default_agent_type: str = "general"
    context_timeout_s: float = 1.0
    end_timeout_s: float = 10.0
    max_history_turns: int = 6
    max_message_chars: int = 5000
    #: Of what a caller of `complete` adds that no customer wrote.
    max_caller_chars: int = 20_000


class ConversationAgent:
    """Answers turns, one at a time per session, each exactly once per `client_message_id`.

    Order of rank in a turn: safety reports, a wish for a person, small moves, messages the policy escalates, service
    actions, questions. Losing context, knowledge, moderation or the language model degrades the turn and is named in
    it; a message that could not be moderated goes to a person. Losing the compliance register or the ticket system
    raises, because neither may be pretended. `agent_types` are those a session may name.
    """

    def __init__(
        self,
        sessions: SessionManager,
        router: MessageRouter,
        person_wish: PersonWish,
        desk: HandoffDesk,
        context: ContextSource | None,
        config: AgentConfig,
        metrics: Metrics | None = None,
        *,
        agent_types: Collection[str],
        timer: Callable[[], float] = time.perf_counter,
        ids: NewId = new_id,
    ) -> None:
        self._sessions = sessions
        self._router = router
        self._person_wish = person_wish
        self._desk = desk
        self._context = context
        self._config = config
        self._replies = config.replies
        self._metrics = metrics or NoMetrics()
        self._agent_types = tuple(agent_types)
        self._reader = TranscriptReader(
            config.replies,
            max_turns=config.max_history_turns,
            max_message_chars=config.max_message_chars,
            max_caller_chars=config.max_caller_chars,
        )
        self._timer = timer
        self._ids = ids

    async def load(self) -> None:
        """Embed the exemplars once. Raises `ModelUnavailable`."""
        await self._person_wish.load()

    async def open(
        self,
        *,
        principal: str,
        customer_id: str | None = None,
        agent_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Session:
        """A new session. Raises `UnknownAgentType`, `CacheUnavailable`."""
        self._check_agent_type(agent_type, "/agent_type")
        return await self._sessions.open(
            principal=principal, customer_id=customer_id, agent_type=agent_type, metadata=metadata
        )

    async def get(self, session_id: str, *, principal: str) -> Session:
        """Raises `NotFound`, `Forbidden`, `CacheUnavailable`."""
        return await self._sessions.get(session_id, principal=principal)

    async def end(self, session_id: str, *, principal: str) -> Session:
        """The ended session, once a running turn is done; safe to repeat. Raises as `get`, and `InProgress`."""
        deadline = Deadline.after(self._config.end_timeout_s)
        return await self._sessions.end(session_id, principal=principal, deadline=deadline)

    async def of_customer(self, customer_id: str, *, principal: str) -> list[Session]:
        """The principal's live sessions with that customer, newest first. Raises `CacheUnavailable`."""
        return await self._sessions.of_customer(customer_id, principal=principal)

    async def turn(
        self,
        session_id: str,
        text: str,
        *,
        principal: str,
        client_message_id: str | None = None,
        request_id: str = "",
        deadline: Deadline,
        turn_id: str | None = None,
    ) -> Turn:
        """The finished turn, stored in the session; the turn is in the session from its first moment.

        The same `client_message_id` with the same text returns the recorded turn, or finishes one that broke off.
        Raises `InvalidRequest`, `IdempotencyMismatch`, `NotFound`, `Forbidden`, `Conflict` (session ended),
        `InProgress`, `CacheUnavailable`, `DatabaseUnavailable`, `ModelUnavailable`, `DeadlineExceeded`.
        """
        if not text.strip() or len(text) > self._config.max_message_chars:
            raise InvalidRequest(f"text must have 1 to {self._config.max_message_chars} characters")
        async with self._sessions.hold(session_id, principal=principal, deadline=deadline) as session:
            earlier = _earlier(session, client_message_id, text)
            if earlier is not None and earlier.outcome is not None:
                return earlier
            if session.status is SessionStatus.ENDED:
                raise Conflict("this session has ended")
            accepted = earlier or Turn(
                turn_id=turn_id or self._ids("turn"),
                client_message_id=client_message_id,
                text=text,
                at=self._sessions.now(),
            )
            session = await self._sessions.save(_with(session, accepted))
            return await self._record(session, await self._run(session, accepted, request_id, deadline))

    async def complete(
        self,
        messages: Sequence[ChatMessage],
        *,
        principal: str,
        customer_id: str | None = None,
        agent_type: str | None = None,
        request_id: str = "",
        deadline: Deadline,
    ) -> Turn:
        """One finished turn of a conversation that its caller keeps: decided as any other, stored in no session.

        The last message is the customer's, those before it are the history, and system messages are the caller's
        instructions, which rank below ours. A ticket opened on the way names the request instead of a session; a
        later message that brings back our words about the ticket is added to it.
        Raises `InvalidRequest`, `UnknownAgentType`, `DatabaseUnavailable`, `ModelUnavailable`, `DeadlineExceeded`.
        """
        self._check_agent_type(agent_type, "/metadata/agent_type")
        now = self._sessions.now()
        transcript = self._reader.read(messages, now=now)
        if not transcript.text.strip():
            raise InvalidRequest("the last message must not be blank")
        passing = Session(
            session_id=request_id,
            customer_id=customer_id,
            agent_type=agent_type,
            owner=principal,
            created_at=now,
            updated_at=now,
            expires_at=now,
            status=SessionStatus.HANDED_OFF if any(past.ticket_id for past in transcript.turns) else SessionStatus.OPEN,
            turns=transcript.turns,
        )
        turn = Turn(turn_id=self._ids("turn"), client_message_id=None, text=transcript.text, at=now)
        return await self._run(passing, turn, request_id, deadline, transcript.instructions)

    def _check_agent_type(self, agent_type: str | None, pointer: str) -> None:
        if agent_type is not None and agent_type not in self._agent_types:
            known = f"is not one of: {', '.join(self._agent_types)}"
            raise UnknownAgentType(f"agent_type {known}").with_fields(FieldError(pointer, known))

    async def _run(
        self, session: Session, turn: Turn, request_id: str, deadline: Deadline, instructions: str = ""
    ) -> Turn:
        started = self._timer()
        conclusion = await self._conclude(session, turn, request_id, deadline, instructions)
        timings = {**conclusion.timings_ms, "total": _ms(self._timer() - started)}
        self._metrics.count("conversation_turns_total", outcome=str(conclusion.outcome))
        return finished(turn, replace(conclusion, timings_ms=timings))

    async def _record(self, session: Session, turn: Turn) -> Turn:
        handed_off = turn.outcome is Outcome.HANDED_OFF and turn.ticket_id is not None
        status = SessionStatus.HANDED_OFF if handed_off else session.status
        try:
            await self._sessions.save(replace(_with(session, turn), status=status))
        except CacheUnavailable:
            # What was recorded elsewhere stands, and the customer should hear of it even if our memory of it is lost.
            logger.warning("a finished turn could not be stored", extra={"turn_id": turn.turn_id})
            return replace(turn, degraded=(*turn.degraded, "session_store"))
        return turn

    async def _conclude(
        self, session: Session, turn: Turn, request_id: str, deadline: Deadline, instructions: str
    ) -> Conclusion:
        history = [past for past in session.turns if past.outcome is not None and past.turn_id != turn.turn_id]
        text = standalone(turn.text, history)
        message = InboundMessage(
            text=text, channel=Channel.CHAT, customer_id=session.customer_id, request_id=request_id
        )
        reading = asyncio.create_task(self._read_context(session, deadline))
        try:
            started = self._timer()
            triage = await self._router.triage(message, deadline=deadline)
            timings = {"understand": _ms(self._timer() - started)}
            conclusion = await self._decide(session, turn, message, history, triage, reading, deadline, instructions)
        finally:
            reading.cancel()
        degraded = tuple(dict.fromkeys((*triage.so_far.degraded, *conclusion.degraded)))
        return replace(conclusion, degraded=degraded, timings_ms={**timings, **conclusion.timings_ms})

    async def _decide(
        self,
        session: Session,
        turn: Turn,
        message: InboundMessage,
        history: list[Turn],
        triage: Triage,
        reading: asyncio.Task[_Reading],
        deadline: Deadline,
        instructions: str,
    ) -> Conclusion:
        if triage.is_safety:
            own_words = replace(message, text=turn.text)
            result = await self._router.safety_compliance.run(own_words, triage.so_far, assessment=triage.assessment)
            return after_report(result)
        if session.status is SessionStatus.HANDED_OFF:
            return await self._wait(session, turn, history)
        leans_on_history = message.text != turn.text
        if self._person_wish.found(turn.text, None if leans_on_history else triage.vector):
            return await self._hand_off(session, turn, HandoffReason.CUSTOMER_REQUEST)
        # A greeting or a yes is known word for word, so it needs no moderation.
        if (small := move(turn.text)) is not None:
            return await self._answer_move(session, turn, small, history)
        if triage.escalated:
            reason = HandoffReason.POLICY_RESTRICTION if triage.moderated else HandoffReason.TOOL_FAILURE
            return await self._hand_off(session, turn, reason)
        if triage.classification.category is Category.SERVICE_ACTION and not triage.classification.abstained:
            result = await self._router.service_action.run(
                message, triage.so_far, customer_known=triage.customer_known, deadline=deadline
            )
            return after_action(result)
        return await self._answer(message, history, triage, await reading, deadline, instructions)

    async def _answer(
        self,
        message: InboundMessage,
        history: list[Turn],
        triage: Triage,
        reading: _Reading,
        deadline: Deadline,
        instructions: str,
    ) -> Conclusion:
        answer = await self._router.answerer.answer(
            message.text,
            prompt.messages(
                message.text,
                history=history,
                context=reading.context,
                now=self._sessions.now(),
                instructions=instructions,
                max_turns=self._config.max_history_turns,
            ),
            vector=triage.vector,
            deadline=deadline,
            request_id=message.request_id,
            own_passages=prompt.account_passages(message.text, reading.context),
        )
        conclusion = after_answer(answer, self._replies, out_of_scope=triage.classification.abstained)
        return replace(
            conclusion,
            degraded=(*reading.degraded, *conclusion.degraded),
            timings_ms={"context": reading.latency_ms, **conclusion.timings_ms},
        )

    async def _answer_move(self, session: Session, turn: Turn, small: Move, history: list[Turn]) -> Conclusion:
        before = history[-1] if history else None
        if small is Move.YES and before is not None and before.outcome is Outcome.AWAITING_CONFIRMATION:
            # The action of a conversation that its caller keeps has no id that we could know.
            action = "an action" if before.action_id is None else f"action {before.action_id}"
            note = f"The customer confirmed {action}: {before.reply}"
            return await self._hand_off(session, turn, HandoffReason.UNSUPPORTED_REQUEST, note=note)
        if small is Move.YES and before is not None and before.outcome in (Outcome.NO_ANSWER, Outcome.REFUSED):
            return await self._hand_off(session, turn, before.reason or HandoffReason.MISSING_KNOWLEDGE)
        wording = {Move.GREETING: "greeting", Move.THANKS: "thanks", Move.NO: "declined", Move.YES: "unclear_request"}
        return Conclusion(outcome=Outcome.CLARIFIED, reply=self._replies.text(wording[small]))

    async def _hand_off(self, session: Session, turn: Turn, reason: HandoffReason, note: str = "") -> Conclusion:
        ticket_id = await self._desk.open(session, turn.text, reason=reason, note=note)
        return Conclusion(
            outcome=Outcome.HANDED_OFF,
            reply=self._replies.text("handed_off", ticket_id=ticket_id),
            reason=reason,
            ticket_id=ticket_id,
        )

    async def _wait(self, session: Session, turn: Turn, history: list[Turn]) -> Conclusion:
        handed_off = next((past for past in reversed(history) if past.ticket_id is not None), None)
        if handed_off is None or handed_off.ticket_id is None:
            return await self._hand_off(session, turn, HandoffReason.CUSTOMER_REQUEST)
        try:
            await self._desk.add(handed_off.ticket_id, turn.text)
        except NotFound:
            # In a conversation that its caller keeps, the ticket's id is the caller's word.
            return await self._hand_off(session, turn, HandoffReason.CUSTOMER_REQUEST)
        return Conclusion(
            outcome=Outcome.HANDED_OFF,
            reply=self._replies.text("handed_off_waiting", ticket_id=handed_off.ticket_id),
            reason=handed_off.reason,
            ticket_id=handed_off.ticket_id,
        )

    async def _read_context(self, session: Session, deadline: Deadline) -> _Reading:
        """Customer context if it comes in time; a missing one never stops a turn."""
        if self._context is None or session.customer_id is None:
            return _Reading()
        started = self._timer()
        budget = deadline.child(self._config.context_timeout_s)
        context: EnrichedContext | None = None
        degraded: tuple[str, ...] = ()
        try:
            async with budget.enforce("customer context"):
                agent_type = session.agent_type or self._config.default_agent_type
                # Masked, because nothing that is said to a customer needs a personal field of theirs.
                request = ContextRequest(deadline=budget, agent_type=agent_type, masked=True)
                context = await self._context.enrich(session.customer_id, request)
            if not context.complete:
                degraded = ("context_partial",)
        except RapportError as exc:
            logger.warning("a turn goes on without customer context", extra={"error": exc.code})
            degraded = ("context",)
        return _Reading(context=context, degraded=degraded, latency_ms=_ms(self._timer() - started))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """What enrichment gave for one turn."""

    context: EnrichedContext | None = None
    degraded: tuple[str, ...] = ()
    latency_ms: float = 0.0


def _earlier(session: Session, client_message_id: str | None, text: str) -> Turn | None:
    if client_message_id is None:
        return None
    earlier = next((turn for turn in session.turns if turn.client_message_id == client_message_id), None)
    if earlier is not None and earlier.text != text:
        raise IdempotencyMismatch("this client_message_id was used with another text")
    return earlier


def _with(session: Session, turn: Turn) -> Session:
    """The session with the turn in its place, or at the end when it is new."""
    if any(past.turn_id == turn.turn_id for past in session.turns):
        turns = tuple(turn if past.turn_id == turn.turn_id else past for past in session.turns)
    else:
        turns = (*session.turns, turn)
    return replace(session, turns=turns)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
