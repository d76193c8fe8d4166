"""A conversation as a customer lives it: answers, follow-ups, actions, reports, and the way to a person."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from models.classification.types import Category, Intent
from models.conversation.agent import AgentConfig, ConversationAgent
from models.conversation.handoff import HandoffDesk, PersonWish
from models.enrichment.types import ContextRequest, EnrichedContext, SubscriptionDetails
from models.errors import (
    CacheUnavailable,
    Conflict,
    ContextEnrichmentError,
    DatabaseUnavailable,
    Forbidden,
    IdempotencyMismatch,
    InProgress,
    InvalidRequest,
    KnowledgeUnavailable,
    ModelUnavailable,
    UnknownAgentType,
)
from models.llm.types import Role
from models.resilience.deadline import Deadline
from models.safety.types import Decision
from models.sessions.lock import MemorySessionLock
from models.sessions.manager import SessionManager
from models.sessions.memory import MemorySessionStore
from models.sessions.types import HandoffReason, Outcome, Session, SessionStatus, Turn
from tests.fakes.contact_center import Tickets, labelled, order, passage
from tests.fakes.desk import CONFIG, REPLIES, Desk

START = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
SEATS = passage("Open Settings, then Users, and choose Add seat.", document_id="doc_seats", title="Adding seats")
EXPORT = passage("Exports are CSV files.", document_id="doc_export", title="Exports")


@dataclass
class Clock:
    now: datetime = START

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Context:
    """A context source that answers with one subscription."""

    error: Exception | None = None
    asked: list[ContextRequest] = field(default_factory=list)

    @property
    def agent_types(self) -> list[str]:
        return [request.agent_type for request in self.asked]

    async def enrich(self, customer_id: str, request: ContextRequest) -> EnrichedContext:
        self.asked.append(request)
        if self.error is not None:
            raise self.error
        return EnrichedContext(
            customer_id=customer_id,
            agent_type=request.agent_type,
            context_version="v9",
            enriched_at=START,
            outcomes=(),
            subscription_details=SubscriptionDetails(
                plan="Enterprise",
                billing_cycle="annual",
                seats_used=45,
                seats_total=50,
                renewal_at=START + timedelta(days=30),
                trial_ends_at=None,
                status="active",
                payment_overdue=False,
            ),
        )

    async def enrich_many(self, customer_ids: Sequence[str], request: ContextRequest) -> dict[str, EnrichedContext]:
        return {customer_id: await self.enrich(customer_id, request) for customer_id in customer_ids}


class Chat:
    """An agent over fakes, and one session with customer_1."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.desk.knowledge.passages = {"seat": SEATS, "export": EXPORT}
        self.clock = Clock()
        self.store = MemorySessionStore(clock=self.clock)
        self.sessions = SessionManager(self.store, MemorySessionLock(), ttl_s=3600, clock=self.clock)
        self.tickets = Tickets(self.desk.journal)
        self.context = Context()
        self.agent = ConversationAgent(
            self.sessions,
            self.desk.router,
            PersonWish(self.desk.embedder, CONFIG / "exemplars" / "handoff.yaml"),
            HandoffDesk(self.tickets, self.desk.pii),
            self.context,
            AgentConfig(replies=REPLIES),
            self.desk.metrics,
            agent_types=("general", "support"),
        )
        self.session_id = ""

    async def open(self, customer_id: str | None = "customer_1") -> Chat:
        await self.agent.load()
        self.session_id = (await self.agent.open(principal="web", customer_id=customer_id)).session_id
        return self

    async def say(self, text: str, *, client_message_id: str | None = None, timeout_s: float = 5) -> Turn:
        return await self.agent.turn(
            self.session_id,
            text,
            principal="web",
            client_message_id=client_message_id,
            request_id="req_1",
            deadline=Deadline.after(timeout_s),
        )

    async def session(self) -> Session:
        return await self.sessions.get(self.session_id, principal="web")


@pytest.fixture
async def chat() -> Chat:
    return await Chat().open()


@pytest.mark.parametrize("text", ["Hello", "Do you have a shop in Lisbon?", "I want to talk to a human being"])
async def test_a_reply_in_fixed_words_names_no_language_model(chat: Chat, text: str) -> None:
    assert (await chat.say(text)).engine == "template"


class TestQuestions:
    async def test_an_answer_quotes_its_article_and_is_kept_in_the_session(self, chat: Chat) -> None:
        turn = await chat.say("How do I add a seat?")
        assert (turn.outcome, turn.reply) == (Outcome.ANSWERED, SEATS.chunk.text)
        assert [(c.document_id, c.title, c.quote, c.version) for c in turn.citations] == [
            ("doc_seats", "Adding seats", SEATS.chunk.text, "3")
        ]
        assert (turn.prompt_tokens, turn.completion_tokens, turn.engine) == (7, 5, "quoting")
        assert {"understand", "context", "retrieve", "generate", "moderate_reply", "total"} == set(turn.timings_ms)
        assert (await chat.session()).turns == (turn,)

    async def test_a_follow_up_is_searched_with_the_question_it_leans_on(self, chat: Chat) -> None:
        await chat.say("How do I add a seat?")
        turn = await chat.say("And how do I remove it?")
        assert chat.desk.knowledge.queries[-1] == "How do I add a seat? And how do I remove it?"
        assert turn.outcome is Outcome.ANSWERED

    async def test_a_question_of_its_own_is_searched_alone(self, chat: Chat) -> None:
        await chat.say("How do I add a seat?")
        await chat.say("Which file format does an export have?")
        assert chat.desk.knowledge.queries[-1] == "Which file format does an export have?"

    async def test_the_model_gets_history_and_context_as_messages_and_passages_typed(self, chat: Chat) -> None:
        await chat.say("How do I add a seat?")
        await chat.say("Which file format does an export have?")
        request = chat.desk.language_model.requests[-1]
        assert [message.role for message in request.messages] == [
            Role.SYSTEM,
            Role.SYSTEM,
            Role.USER,
            Role.ASSISTANT,
            Role.USER,
        ]
        assert "<customer_context>" in request.messages[1].content
        assert [source.document_id for source in request.passages] == ["doc_export"]
        assert all(EXPORT.chunk.text not in message.content for message in request.messages)

    async def test_the_customers_own_subscription_can_be_quoted(self, chat: Chat) -> None:
        chat.desk.knowledge.passages = {}
        turn = await chat.say("When does our subscription renew?")
        assert turn.outcome is Outcome.ANSWERED
        assert "01 July 2026" in (turn.reply or "")
        assert (turn.citations[0].document_id, turn.citations[0].version) == ("account", "v9")

    async def test_without_an_agent_type_the_most_masked_view_is_taken(self, chat: Chat) -> None:
        await chat.say("How do I add a seat?")
        assert chat.context.agent_types == ["general"]

    async def test_no_personal_field_of_the_customer_is_asked_for(self, chat: Chat) -> None:
        session = await chat.agent.open(principal="web", customer_id="customer_1", agent_type="support")
        await chat.agent.turn(session.session_id, "How do I add a seat?", principal="web", deadline=Deadline.after(5))
        [request] = chat.context.asked
        assert (request.agent_type, request.masked) == ("support", True)

    async def test_a_session_names_a_known_agent_type_or_none(self, chat: Chat) -> None:
        opened = await chat.agent.open(principal="web", customer_id="customer_2", agent_type="support")
        with pytest.raises(UnknownAgentType, match="general, support"):
            await chat.agent.open(principal="web", customer_id="customer_2", agent_type="astronaut")
        assert await chat.agent.of_customer("customer_2", principal="web") == [opened]

    async def test_what_the_articles_do_not_hold_is_a_typed_no_answer_that_offers_a_person(self, chat: Chat) -> None:
        turn = await chat.say("Do you have a shop in Lisbon?")
        assert (turn.outcome, turn.reason) == (Outcome.NO_ANSWER, HandoffReason.MISSING_KNOWLEDGE)
        assert "person" in (turn.reply or "")
        accepted = await chat.say("Yes, please")
        assert (accepted.outcome, accepted.ticket_id) == (Outcome.HANDED_OFF, "tck_1")
        assert chat.tickets.opened[0]["reason"] == "missing_knowledge"

    async def test_a_blocked_reply_is_refused_and_not_kept(self, chat: Chat) -> None:
        chat.desk.gate.decisions = {"Open Settings": (Decision.BLOCK, ())}
        turn = await chat.say("How do I add a seat?")
        assert (turn.outcome, turn.reason) == (Outcome.REFUSED, HandoffReason.POLICY_RESTRICTION)
        assert "Open Settings" not in repr(await chat.session())

    async def test_a_greeting_is_not_a_question(self, chat: Chat) -> None:
        turn = await chat.say("Hello!")
        assert (turn.outcome, turn.reply) == (Outcome.CLARIFIED, REPLIES.text("greeting"))

    async def test_a_turn_says_what_it_cost_if_that_is_known(self, chat: Chat) -> None:
        assert (await chat.say("How do I add a seat?")).cost_usd == 0.002
        assert (await chat.say("Hello!")).cost_usd == 0.0
        chat.desk.language_model.error = ModelUnavailable("down")
        assert (await chat.say("How do I add another seat?")).cost_usd is None
        chat.desk.language_model.error.cost_usd = 0.004
        assert (await chat.say("How do I add one more seat?")).cost_usd == 0.004


class TestPerson:
    @pytest.mark.parametrize(
        "text", ["I want a human", "Can I speak to a real person please?", "agent", "I don't want to talk to a bot"]
    )
    async def test_the_wish_for_a_person_opens_a_ticket(self, chat: Chat, text: str) -> None:
        turn = await chat.say(text)
        assert (turn.outcome, turn.reason, turn.ticket_id) == (
            Outcome.HANDED_OFF,
            HandoffReason.CUSTOMER_REQUEST,
            "tck_1",
        )
        assert "tck_1" in (turn.reply or "")
        assert (await chat.session()).status is SessionStatus.HANDED_OFF

    @pytest.mark.parametrize(
        "text",
        [
            "How many people can share a seat?",
            "Do I have to talk to someone to add a seat?",
            "I need a person removed from a seat",
            "What does an agent seat cost?",
            "I don't want to speak to anyone, how do I add a seat?",
        ],
    )
    async def test_talk_about_people_is_no_such_wish(self, chat: Chat, text: str) -> None:
        assert (await chat.say(text)).outcome is Outcome.ANSWERED
        assert chat.tickets.opened == []

    async def test_the_ticket_tells_what_was_said_without_personal_data(self, chat: Chat) -> None:
        await chat.say("How do I add a seat for dana@example.com?")
        await chat.say("I want a human")
        ticket = chat.tickets.opened[0]
        assert "How do I add a seat for [EMAIL]?" in str(ticket["body"])
        assert SEATS.chunk.text in str(ticket["body"])
        assert "dana@example.com" not in repr(ticket)
        assert ticket["customer_id"] == "customer_1"

    async def test_after_the_handover_messages_wait_for_the_colleague_but_reports_do_not(self, chat: Chat) -> None:
        await chat.say("I want a human")
        waiting = await chat.say("How do I add a seat for dana@example.com?")
        report = await chat.say("and I can't breathe")
        assert (waiting.outcome, waiting.ticket_id) == (Outcome.HANDED_OFF, "tck_1")
        assert (report.reason, report.record_id) == (HandoffReason.SAFETY, "cmp_1")
        assert len(chat.tickets.opened) == 1
        assert chat.tickets.comments == [("tck_1", "Customer: How do I add a seat for [EMAIL]?")]

    async def test_a_message_that_the_colleague_cannot_see_is_not_promised(self, chat: Chat) -> None:
        await chat.say("I want a human")
        chat.tickets.error = DatabaseUnavailable("away")
        with pytest.raises(DatabaseUnavailable):
            await chat.say("How do I add a seat?")

    async def test_no_ticket_means_no_promise(self, chat: Chat) -> None:
        chat.tickets.error = DatabaseUnavailable("away")
        with pytest.raises(DatabaseUnavailable):
            await chat.say("I want a human")
        assert (await chat.session()).status is SessionStatus.OPEN


class TestWorkflows:
    async def test_a_report_is_recorded_before_it_is_answered(self, chat: Chat) -> None:
        turn = await chat.say("The lotion gave me hives, I am dana@example.com")
        assert (turn.outcome, turn.reason, turn.record_id) == (Outcome.HANDED_OFF, HandoffReason.SAFETY, "cmp_1")
        assert chat.desk.compliance.records[0]["text"] == "The lotion gave me hives, I am [EMAIL]"

    async def test_an_action_waits_for_confirmation_and_yes_brings_it_to_a_colleague(self, chat: Chat) -> None:
        chat.desk.classifier.labels = {"cancel": labelled(Category.SERVICE_ACTION, intent=Intent.CANCEL_ORDER)}
        chat.desk.orders.owned = {"customer_1": [order("ORD-10234")]}
        prepared = await chat.say("Please cancel order 10234")
        assert prepared.outcome is Outcome.AWAITING_CONFIRMATION
        assert prepared.action_id is not None
        confirmed = await chat.say("yes")
        assert confirmed.outcome is Outcome.HANDED_OFF
        assert prepared.action_id in str(chat.tickets.opened[0]["body"])

    async def test_a_missing_order_number_can_be_supplied_by_the_next_message(self, chat: Chat) -> None:
        chat.desk.classifier.labels = {"where is my": labelled(Category.SERVICE_ACTION, intent=Intent.TRACK_ORDER)}
        chat.desk.orders.owned = {"customer_1": [order("ORD-10234", status="shipped")]}
        asked = await chat.say("Where is my parcel?")
        answered = await chat.say("10234")
        assert (asked.outcome, answered.outcome) == (Outcome.CLARIFIED, Outcome.ANSWERED)
        assert "shipped" in (answered.reply or "")

    async def test_a_foreign_order_is_not_found(self, chat: Chat) -> None:
        chat.desk.classifier.labels = {"where is": labelled(Category.SERVICE_ACTION, intent=Intent.TRACK_ORDER)}
        chat.desk.orders.owned = {"customer_2": [order("ORD-20001", status="shipped", tracking_number="SECRET1")]}
        turn = await chat.say("Where is ORD-20001?")
        assert turn.outcome is Outcome.CLARIFIED
        assert "SECRET1" not in repr(await chat.session())


class TestDegraded:
    async def test_context_away(self, chat: Chat) -> None:
        chat.context.error = ContextEnrichmentError("away")
        turn = await chat.say("How do I add a seat?")
        assert (turn.outcome, turn.degraded) == (Outcome.ANSWERED, ("context",))

    async def test_knowledge_away(self, chat: Chat) -> None:
        chat.desk.knowledge.error = KnowledgeUnavailable("away")
        turn = await chat.say("How do I add a seat?")
        assert (turn.outcome, turn.reason) == (Outcome.NO_ANSWER, HandoffReason.TOOL_FAILURE)
        assert turn.degraded == ("knowledge",)

    async def test_with_moderation_away_questions_and_actions_are_handed_to_a_person(self, chat: Chat) -> None:
        chat.desk.classifier.labels = {"cancel": labelled(Category.SERVICE_ACTION, intent=Intent.CANCEL_ORDER)}
        chat.desk.orders.owned = {"customer_1": [order("ORD-10234")]}
        chat.desk.gate.available = False
        greeting = await chat.say("Hello!")
        assert (greeting.outcome, greeting.degraded) == (Outcome.CLARIFIED, ("moderation",))
        turn = await chat.say("Please cancel order 10234")
        assert (turn.outcome, turn.reason) == (Outcome.HANDED_OFF, HandoffReason.TOOL_FAILURE)
        assert (turn.action_id, turn.ticket_id, turn.degraded) == (None, "tck_1", ("moderation",))
        await chat.open()
        asked = await chat.say("How do I add a seat?")
        assert (asked.outcome, asked.ticket_id) == (Outcome.HANDED_OFF, "tck_2")
        assert chat.desk.language_model.requests == []

    async def test_a_turn_that_broke_off_is_finished_by_its_retry(self, chat: Chat) -> None:
        chat.desk.embedder.error = ModelUnavailable("away")
        with pytest.raises(ModelUnavailable):
            await chat.say("How do I add a seat?", client_message_id="m1")
        begun = (await chat.session()).turns[0]
        assert (begun.text, begun.outcome) == ("How do I add a seat?", None)
        chat.desk.embedder.error = None
        ended = await chat.say("How do I add a seat?", client_message_id="m1")
        assert (ended.turn_id, ended.outcome) == (begun.turn_id, Outcome.ANSWERED)
        assert (await chat.session()).turns == (ended,)

    async def test_a_reply_is_not_lost_with_the_store(self, chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
        saves = 0
        save = chat.store.save

        async def once(session: Session) -> None:
            nonlocal saves
            saves += 1
            if saves > 1:
                raise CacheUnavailable("away")
            await save(session)

        monkeypatch.setattr(chat.store, "save", once)
        turn = await chat.say("I can't breathe")
        assert (turn.record_id, turn.degraded) == ("cmp_1", ("session_store",))


class TestOneAtATime:
    async def test_two_turns_of_one_session_never_overlap(self, chat: Chat) -> None:
        chat.desk.compliance.gate = asyncio.Event()
        first = asyncio.create_task(chat.say("I can't breathe"))
        await chat.desk.compliance.started.wait()
        second = asyncio.create_task(chat.say("How do I add a seat?"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert chat.desk.knowledge.queries == []
        chat.desk.compliance.gate.set()
        turns = [await first, await second]
        assert list((await chat.session()).turns) == turns

    async def test_a_turn_gives_up_waiting_at_its_deadline(self, chat: Chat) -> None:
        chat.desk.compliance.gate = asyncio.Event()
        first = asyncio.create_task(chat.say("I can't breathe"))
        await chat.desk.compliance.started.wait()
        with pytest.raises(InProgress):
            await chat.say("How do I add a seat?", timeout_s=0.01)
        chat.desk.compliance.gate.set()
        await first

    async def test_the_same_message_again_returns_the_recorded_turn(self, chat: Chat) -> None:
        first = await chat.say("I can't breathe", client_message_id="m1")
        again = await chat.say("I can't breathe", client_message_id="m1")
        assert again == first
        assert len(chat.desk.compliance.records) == 1

    async def test_the_same_id_with_another_text_is_refused(self, chat: Chat) -> None:
        await chat.say("How do I add a seat?", client_message_id="m1")
        with pytest.raises(IdempotencyMismatch):
            await chat.say("Which file format does an export have?", client_message_id="m1")

    async def test_a_given_turn_id_is_kept(self, chat: Chat) -> None:
        turn = await chat.agent.turn(
            chat.session_id, "Hello", principal="web", deadline=Deadline.after(5), turn_id="turn_given"
        )
        assert turn.turn_id == "turn_given"

    async def test_strangers_and_ended_sessions_get_no_turn(self, chat: Chat) -> None:
        with pytest.raises(Forbidden):
            await chat.agent.turn(chat.session_id, "Hello", principal="other", deadline=Deadline.after(5))
        await chat.agent.end(chat.session_id, principal="web")
        with pytest.raises(Conflict):
            await chat.say("Hello")
        assert [s.status for s in await chat.agent.of_customer("customer_1", principal="web")] == [SessionStatus.ENDED]

    @pytest.mark.parametrize("text", ["", "  \n", "x" * 5001])
    async def test_empty_and_overlong_messages_are_refused(self, chat: Chat, text: str) -> None:
        with pytest.raises(InvalidRequest):
            await chat.say(text)
        assert (await chat.session()).turns == ()
