"""What a customer gets for each kind of message, in fair weather and when something is away."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import numpy as np
import pytest

from models.classification.types import Category, Intent
from models.errors import (
    DatabaseUnavailable,
    Internal,
    KnowledgeUnavailable,
    ModelRefused,
    ModelUnavailable,
    Overloaded,
    SafetyUnavailable,
)
from models.llm.types import LanguageModelReply, LanguageModelRequest
from models.resilience.deadline import Deadline
from models.safety.types import Decision, Finding, Harm
from models.workflows.types import NextStep, Severity, WorkflowResult
from tests.fakes.contact_center import EmailDetector, labelled, order, passage
from tests.fakes.desk import REPLIES, SAFETY, Desk, inbound

SEATS = passage("Open Settings, then Users, and choose Add seat.", document_id="doc_seats", title="Adding seats")
SELF_HARM = (Decision.ESCALATE, (Finding(harm=Harm.SELF_HARM, severity=6, probability=0.97),))
THREAT = (Decision.ESCALATE, (Finding(harm=Harm.VIOLENCE, severity=6, probability=0.97),))


async def routed(desk: Desk, text: str, *, customer_id: str | None = "customer_1") -> WorkflowResult:
    return await desk.router.route(inbound(text, customer_id=customer_id), deadline=Deadline.after(5))


def serving(intent: Intent | None, *, confidence: float = 0.9) -> Desk:
    desk = Desk()
    desk.classifier.labels = {"": labelled(Category.SERVICE_ACTION, intent=intent, confidence=confidence)}
    desk.orders.owned = {
        "customer_1": [order("ORD-10234"), order("ORD-10235", status="delivered", tracking_number="TRK9")],
        "customer_2": [order("ORD-20001", status="shipped", tracking_number="SECRET1")],
    }
    return desk


class TestInformational:
    async def test_an_article_is_quoted_verbatim(self) -> None:
        desk = Desk()
        desk.knowledge.passages = {"seat": SEATS}
        result = await routed(desk, "How do I add a seat?")
        assert result.next_step is NextStep.ANSWERED
        assert result.reply == SEATS.chunk.text
        assert [(c.document_id, c.quote, c.version) for c in result.citations] == [("doc_seats", SEATS.chunk.text, "3")]
        assert result.degraded == ()

    async def test_the_message_is_embedded_once_for_all_who_need_its_vector(self) -> None:
        desk = Desk()
        desk.knowledge.passages = {"seat": SEATS}
        await routed(desk, "How do I add a seat?")
        assert desk.embedder.calls == [("How do I add a seat?",)]
        vector, searched = desk.classifier.vectors[0], desk.knowledge.vectors[0]
        assert vector is not None
        assert searched is not None
        assert desk.gate.vectors[0] is vector
        assert np.array_equal(searched, vector[0])

    async def test_low_confidence_goes_to_a_human_without_a_search(self) -> None:
        desk = Desk()
        desk.classifier.labels = {"": labelled(Category.INFORMATIONAL, confidence=0.49)}
        result = await routed(desk, "hmm, the thing?")
        assert result.next_step is NextStep.HUMAN_REVIEW
        assert desk.knowledge.queries == []

    async def test_without_a_match_contact_options_are_suggested(self) -> None:
        result = await routed(Desk(), "Do you have a shop in Lisbon?")
        assert result.next_step is NextStep.SUGGEST_CONTACT
        assert result.citations == ()

    async def test_a_refusing_model_leads_to_contact_options(self) -> None:
        desk = Desk()
        desk.knowledge.passages = {"seat": SEATS}
        desk.language_model.error = ModelRefused("nothing answers")
        result = await routed(desk, "How heavy is a seat?")
        assert (result.next_step, result.degraded) == (NextStep.SUGGEST_CONTACT, ())

    @pytest.mark.parametrize("quote", ["We give refunds for ever.", "  "])
    async def test_an_invented_quote_never_reaches_a_customer(self, quote: str) -> None:
        desk = Desk()
        desk.knowledge.passages = {"seat": SEATS}
        desk.language_model.quote = quote
        result = await routed(desk, "How do I add a seat?")
        assert result.next_step is NextStep.SUGGEST_CONTACT
        assert result.reply == REPLIES.text("contact_options")

    async def test_a_reply_that_moderation_blocks_is_withheld(self) -> None:
        desk = Desk()
        desk.knowledge.passages = {"seat": SEATS}
        desk.gate.decisions = {"Open Settings": (Decision.BLOCK, ())}
        result = await routed(desk, "How do I add a seat?")
        assert result.next_step is NextStep.HUMAN_REVIEW
        assert "Open Settings" not in (result.reply or "")
        assert result.citations == ()


class TestServiceAction:
    async def test_a_cancellation_is_prepared_and_not_executed(self) -> None:
        result = await routed(serving(Intent.CANCEL_ORDER), "Please cancel order #10234")
        assert result.next_step is NextStep.CONFIRM_ACTION
        assert result.action is not None
        assert (result.action.order_id, result.action.ready) == ("ORD-10234", True)
        assert result.entities["order_reference"] == "ORD-10234"
        assert result.entities["order_found"] is True
        assert result.decision_path[-2:] == ("order_verified", "action_prepared")

    @pytest.mark.parametrize("intent", [Intent.CANCEL_ORDER, Intent.UPDATE_ACCOUNT, None])
    @pytest.mark.parametrize("text", ["Cancel my plan please", "cancel our subscription", "Terminate my contract."])
    async def test_ending_a_subscription_asks_for_no_order(self, text: str, intent: Intent | None) -> None:
        result = await routed(serving(intent), text)
        assert result.next_step is NextStep.CONFIRM_ACTION
        assert result.reply == REPLIES.text("subscription_end_prepared")
        assert result.action is not None
        assert (result.action.intent, result.action.order_id) == (Intent.UPDATE_ACCOUNT, None)
        assert (result.action.summary, result.action.ready) == ("End the subscription", True)
        assert result.entities["account_field"] == "subscription"

    async def test_an_order_is_cancelled_as_one_whatever_plan_is_named_beside_it(self) -> None:
        result = await routed(serving(Intent.CANCEL_ORDER), "Cancel my plan and order #10234")
        assert result.action is not None
        assert (result.action.intent, result.action.order_id) == (Intent.CANCEL_ORDER, "ORD-10234")

    async def test_a_foreign_order_is_answered_exactly_like_an_unknown_one(self) -> None:
        foreign = await routed(serving(Intent.TRACK_ORDER), "Where is ORD-20001?")
        unknown = await routed(serving(Intent.TRACK_ORDER), "Where is ORD-99999?")
        assert foreign.next_step is NextStep.PROVIDE_DETAILS
        assert (foreign.reply or "").replace("ORD-20001", "X") == (unknown.reply or "").replace("ORD-99999", "X")
        assert "SECRET1" not in repr(foreign)
        assert "shipped" not in repr(foreign)
        assert foreign.decision_path == unknown.decision_path

    async def test_tracking_reads_the_status_and_proposes_nothing(self) -> None:
        result = await routed(serving(Intent.TRACK_ORDER), "Where is my order 10235?")
        assert (result.next_step, result.action) == (NextStep.ANSWERED, None)
        assert "delivered" in (result.reply or "")
        assert "TRK9" in (result.reply or "")

    async def test_a_delivered_order_cannot_be_cancelled(self) -> None:
        result = await routed(serving(Intent.CANCEL_ORDER), "Cancel ORD-10235")
        assert result.action is None
        assert "cannot be cancelled" in (result.reply or "")

    async def test_without_a_reference_the_customers_own_orders_are_offered(self) -> None:
        result = await routed(serving(Intent.REFUND), "I want my money back")
        assert result.next_step is NextStep.PROVIDE_DETAILS
        assert "ORD-10234" in (result.reply or "")
        assert "ORD-20001" not in (result.reply or "")
        assert result.action is not None
        assert result.action.missing == ("order_id",)

    async def test_an_anonymous_caller_is_asked_who_they_are_and_told_nothing(self) -> None:
        result = await routed(serving(Intent.TRACK_ORDER), "Where is ORD-10235?", customer_id=None)
        assert (result.next_step, result.action) == (NextStep.IDENTIFY_CUSTOMER, None)
        assert "delivered" not in repr(result.reply)

    async def test_an_unknown_customer_is_noted_and_still_classified(self) -> None:
        result = await routed(serving(Intent.TRACK_ORDER), "Where is ORD-10235?", customer_id="customer_404")
        assert result.classification.category is Category.SERVICE_ACTION
        assert "customer_unknown" in result.decision_path
        assert result.entities["customer_known"] is False
        assert result.next_step is NextStep.IDENTIFY_CUSTOMER

    async def test_account_changes_need_a_field_and_a_value(self) -> None:
        desk = serving(Intent.UPDATE_ACCOUNT)
        vague = await routed(desk, "please change my account")
        halfway = await routed(desk, "please change my e-mail")
        ready = await routed(desk, "please change my e-mail to dana@example.com")
        assert [r.next_step for r in (vague, halfway, ready)] == [
            NextStep.PROVIDE_DETAILS,
            NextStep.PROVIDE_DETAILS,
            NextStep.CONFIRM_ACTION,
        ]
        assert "dana@example.com" not in repr(ready.action)

    async def test_an_unclear_intent_is_asked_about(self) -> None:
        result = await routed(serving(None), "do the thing")
        assert (result.next_step, result.action) == (NextStep.PROVIDE_DETAILS, None)

    async def test_an_order_system_that_is_away_prepares_nothing_and_says_so(self) -> None:
        desk = serving(Intent.REFUND)
        desk.orders.error = DatabaseUnavailable("away")
        result = await routed(desk, "Refund ORD-10234")
        assert (result.next_step, result.action, result.degraded) == (NextStep.HUMAN_REVIEW, None, ("orders",))

    async def test_an_unsure_label_prepares_nothing(self) -> None:
        result = await routed(serving(Intent.REFUND, confidence=0.3), "refund ORD-10234 maybe")
        assert (result.next_step, result.action) == (NextStep.HUMAN_REVIEW, None)


class TestSafety:
    async def test_the_record_is_committed_before_there_is_a_reply(self) -> None:
        desk = Desk()
        desk.classifier.labels = {"": labelled(Category.SAFETY_COMPLIANCE)}
        desk.compliance.gate = asyncio.Event()
        routing = asyncio.create_task(routed(desk, "The lotion gave me hives"))
        await desk.compliance.started.wait()
        assert not routing.done()
        desk.compliance.gate.set()
        result = await routing
        assert desk.journal[-1] == "recorded"
        assert result.reply == SAFETY.text("high", record_id="cmp_1")
        assert result.entities["compliance_record_id"] == "cmp_1"

    async def test_the_record_holds_severity_deadline_queue_and_no_personal_data(self) -> None:
        desk = Desk()
        desk.classifier.labels = {"": labelled(Category.SAFETY_COMPLIANCE)}
        result = await routed(desk, "I can't breathe, write to dana@example.com")
        assert result.severity is Severity.URGENT
        assert result.next_step is NextStep.PHARMACIST_15_MIN
        record = desk.compliance.records[0]
        assert record["text"] == "I can't breathe, write to [EMAIL]"
        assert (record["due_in"], record["queue"]) == (timedelta(minutes=15), "pharmacist")
        assert (record["customer_id"], record["request_id"]) == ("customer_1", "req_1")

    @pytest.mark.parametrize("error", [DatabaseUnavailable("down"), OSError("down"), Internal("defect")])
    async def test_no_record_means_no_reply(self, error: Exception) -> None:
        desk = Desk()
        desk.classifier.labels = {"": labelled(Category.SAFETY_COMPLIANCE)}
        desk.compliance.error = error
        with pytest.raises(DatabaseUnavailable):
            await routed(desk, "The lotion gave me hives")

    async def test_a_caller_who_hangs_up_does_not_undo_the_record(self) -> None:
        desk = Desk()
        desk.compliance.gate = asyncio.Event()
        routing = asyncio.create_task(routed(desk, "I can't breathe"))
        await desk.compliance.started.wait()
        routing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await routing
        desk.compliance.gate.set()
        await desk.compliance.committed.wait()
        assert len(desk.compliance.records) == 1

    @pytest.mark.parametrize("category", [Category.INFORMATIONAL, Category.SERVICE_ACTION])
    async def test_a_reported_reaction_overrules_the_label(self, category: Category) -> None:
        desk = Desk()
        desk.classifier.labels = {"": labelled(category, intent=None)}
        result = await routed(desk, "Refund please, the cream gave me a rash")
        assert result.classification.category is Category.SAFETY_COMPLIANCE
        assert result.severity is Severity.HIGH
        assert "safety_signal_overrules" in result.decision_path
        assert len(desk.compliance.records) == 1

    async def test_self_harm_seen_by_moderation_overrules_the_label(self) -> None:
        desk = Desk()
        desk.gate.decisions = {"no way out": SELF_HARM}
        result = await routed(desk, "I see no way out for me")
        assert result.severity is Severity.URGENT
        assert result.reply == SAFETY.text("self_harm", record_id="cmp_1")

    async def test_a_mere_hint_of_self_harm_reaches_a_person_without_the_words_for_a_crisis(self) -> None:
        desk = Desk()
        hint = (Decision.ESCALATE, (Finding(harm=Harm.SELF_HARM, severity=3, probability=0.2),))
        desk.gate.decisions = {"cancel": hint}
        result = await routed(desk, "please cancel it all")
        assert (result.next_step, result.reply) == (NextStep.HUMAN_REVIEW, REPLIES.text("human_review"))
        assert desk.compliance.records == []

    async def test_other_harm_goes_to_a_person_and_is_not_answered(self) -> None:
        desk = Desk()
        desk.gate.decisions = {"seat": THREAT}
        desk.knowledge.passages = {"seat": SEATS}
        result = await routed(desk, "How do I add a seat, you idiots, I will find you")
        assert (result.next_step, result.citations) == (NextStep.HUMAN_REVIEW, ())
        assert desk.compliance.records == []

    async def test_a_guess_without_any_sign_makes_no_record(self) -> None:
        desk = Desk()
        desk.classifier.labels = {"": labelled(Category.SAFETY_COMPLIANCE, confidence=0.3, abstained=True)}
        result = await routed(desk, "tell me a joke")
        assert result.next_step is NextStep.HUMAN_REVIEW
        assert desk.compliance.records == []

    async def test_an_unknown_customers_report_is_recorded(self) -> None:
        desk = Desk()
        result = await routed(desk, "I can't breathe", customer_id="customer_404")
        assert result.entities["customer_known"] is False
        assert desk.compliance.records[0]["customer_id"] == "customer_404"

    async def test_failing_redaction_costs_the_text_and_not_the_report(self) -> None:
        pii = EmailDetector()
        pii.error = RuntimeError("broken pattern")
        desk = Desk(pii)
        result = await routed(desk, "I can't breathe, I am dana@example.com")
        assert "dana" not in str(desk.compliance.records[0]["text"])
        assert result.degraded == ("pii",)

    async def test_a_report_in_plain_words_is_recorded_even_without_models(self) -> None:
        desk = Desk()
        desk.embedder.error = ModelUnavailable("away")
        result = await routed(desk, "My baby can't breathe")
        assert len(desk.compliance.records) == 1
        assert (result.severity, result.degraded) == (Severity.URGENT, ("classification",))

    @pytest.mark.parametrize("part", ["embedder", "classifier"])
    @pytest.mark.parametrize("error", [Overloaded("full"), Internal("defect"), RuntimeError("defect")])
    async def test_a_report_in_plain_words_survives_any_failure_of_models(self, part: str, error: Exception) -> None:
        desk = Desk()
        getattr(desk, part).error = error
        result = await routed(desk, "The cream gave me a rash")
        assert result.entities["compliance_record_id"] == "cmp_1"
        assert result.degraded == ("classification",)


class TestDegraded:
    async def test_without_an_embedder_other_messages_are_refused_honestly(self) -> None:
        desk = Desk()
        desk.embedder.error = ModelUnavailable("away")
        with pytest.raises(ModelUnavailable):
            await routed(desk, "How do I add a seat?")

    @pytest.mark.parametrize("part", ["embedder", "classifier"])
    @pytest.mark.parametrize(
        ("error", "seen"),
        [(Overloaded("full"), Overloaded), (Internal("defect"), Internal), (RuntimeError("defect"), Internal)],
    )
    async def test_a_failure_of_the_models_keeps_its_own_name(
        self, part: str, error: Exception, seen: type[Exception]
    ) -> None:
        desk = Desk()
        getattr(desk, part).error = error
        with pytest.raises(seen):
            await routed(desk, "How do I add a seat?")

    @pytest.mark.parametrize("error", [KnowledgeUnavailable("away"), Overloaded("full")])
    async def test_knowledge_away(self, error: Exception) -> None:
        desk = Desk()
        desk.knowledge.error = error
        result = await routed(desk, "How do I add a seat?")
        assert (result.next_step, result.degraded) == (NextStep.SUGGEST_CONTACT, ("knowledge",))
        assert "knowledge_unavailable" in result.decision_path

    @pytest.mark.parametrize("error", [ModelUnavailable("away"), Overloaded("full")])
    async def test_language_model_away(self, error: Exception) -> None:
        desk = Desk()
        desk.knowledge.passages = {"seat": SEATS}
        desk.language_model.error = error
        result = await routed(desk, "How do I add a seat?")
        assert (result.next_step, result.degraded) == (NextStep.SUGGEST_CONTACT, ("language_model",))

    @pytest.mark.parametrize("error", [None, SafetyUnavailable("away"), Overloaded("full"), RuntimeError("defect")])
    async def test_with_moderation_away_messages_go_to_people(self, error: Exception | None) -> None:
        desk = Desk()
        desk.knowledge.passages = {"seat": SEATS}
        desk.gate.available = False
        desk.gate.error = error
        result = await routed(desk, "How do I add a seat?")
        assert (result.next_step, result.degraded) == (NextStep.HUMAN_REVIEW, ("moderation",))
        assert "moderation_unavailable" in result.decision_path
        assert desk.language_model.requests == []

    async def test_with_moderation_away_no_action_is_prepared(self) -> None:
        desk = serving(Intent.REFUND)
        desk.gate.available = False
        result = await routed(desk, "Refund ORD-10234")
        assert (result.next_step, result.action, result.degraded) == (NextStep.HUMAN_REVIEW, None, ("moderation",))

    async def test_with_moderation_away_a_report_is_recorded(self) -> None:
        desk = Desk()
        desk.classifier.labels = {"": labelled(Category.SAFETY_COMPLIANCE)}
        desk.gate.available = False
        result = await routed(desk, "The lotion gave me hives")
        assert (result.entities["compliance_record_id"], result.degraded) == ("cmp_1", ("moderation",))

    async def test_a_reply_is_withheld_when_moderation_breaks_after_the_message(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        desk = Desk()
        desk.knowledge.passages = {"seat": SEATS}
        generate = desk.language_model.generate

        async def then_overloaded(request: LanguageModelRequest, *, deadline: Deadline) -> LanguageModelReply:
            desk.gate.error = Overloaded("full")
            return await generate(request, deadline=deadline)

        monkeypatch.setattr(desk.language_model, "generate", then_overloaded)
        result = await routed(desk, "How do I add a seat?")
        assert (result.next_step, result.degraded) == (NextStep.HUMAN_REVIEW, ("moderation",))
        assert SEATS.chunk.text not in (result.reply or "")

    async def test_customer_directory_away(self) -> None:
        desk = serving(Intent.TRACK_ORDER)
        desk.customers.error = DatabaseUnavailable("away")
        result = await routed(desk, "Where is ORD-10235?")
        assert (result.next_step, result.degraded) == (NextStep.ANSWERED, ("customers",))
        assert "customer_known" not in result.entities


async def test_every_routed_message_is_counted() -> None:
    desk = Desk()
    await routed(desk, "How do I add a seat?")
    await routed(desk, "I can't breathe")
    assert desk.metrics.counts["classification_requests_total"] == 2
    assert desk.metrics.counts["classification_by_category"] == 2
    assert len(desk.metrics.observed["classification_latency_seconds"]) == 2
    assert desk.metrics.observed["classification_confidence"][0] == pytest.approx(0.9)
