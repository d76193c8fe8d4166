"""How a turn ends: what a workflow or an answer means for the conversation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from models.llm.types import Citation, Usage
from models.sessions.types import HandoffReason, Outcome, Turn
from models.workflows.answering import Answer, AnswerState
from models.workflows.replies import Wordings
from models.workflows.types import NextStep, WorkflowResult

#: The engine of replies that are fixed words of ours, which no language model wrote.
TEMPLATE = "template"

_AFTER_ACTION = {
    NextStep.ANSWERED: (Outcome.ANSWERED, None),
    NextStep.CONFIRM_ACTION: (Outcome.AWAITING_CONFIRMATION, None),
    NextStep.PROVIDE_DETAILS: (Outcome.CLARIFIED, None),
    NextStep.IDENTIFY_CUSTOMER: (Outcome.CLARIFIED, None),
    NextStep.HUMAN_REVIEW: (Outcome.NO_ANSWER, HandoffReason.TOOL_FAILURE),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """How a turn ends; everything the finished `Turn` adds to the accepted one."""

    outcome: Outcome
    reply: str
    reason: HandoffReason | None = None
    citations: tuple[Citation, ...] = ()
    engine: str = TEMPLATE
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = 0.0
    degraded: tuple[str, ...] = ()
    ticket_id: str | None = None
    record_id: str | None = None
    action_id: str | None = None
    timings_ms: Mapping[str, float] = field(default_factory=dict)


def after_report(result: WorkflowResult) -> Conclusion:
    """A recorded safety report is with a pharmacist or with compliance; the session itself goes on."""
    return Conclusion(
        outcome=Outcome.HANDED_OFF,
        reply=result.reply or "",
        reason=HandoffReason.SAFETY,
        record_id=str(result.entities["compliance_record_id"]),
        degraded=result.degraded,
    )


def after_action(result: WorkflowResult) -> Conclusion:
    """A service request waits for a confirmation or for details, or could not be checked."""
    outcome, reason = _AFTER_ACTION[result.next_step]
    return Conclusion(
        outcome=outcome,
        reply=result.reply or "",
        reason=reason,
        degraded=result.degraded,
        action_id=result.action.action_id if result.action is not None and result.action.ready else None,
    )


def after_answer(answer: Answer, replies: Wordings, *, out_of_scope: bool) -> Conclusion:
    """An answer as it is, or fixed words that say why there is none and offer a person."""
    outcome, wording, reason = _ending(answer, out_of_scope=out_of_scope)
    return Conclusion(
        outcome=outcome,
        reply=answer.text if answer.text is not None else replies.text(wording),
        reason=reason,
        citations=answer.citations,
        engine=TEMPLATE if answer.text is None else answer.engine,
        usage=answer.usage,
        cost_usd=answer.cost_usd,
        degraded=answer.degraded,
        timings_ms=answer.timings_ms,
    )


def _ending(answer: Answer, *, out_of_scope: bool) -> tuple[Outcome, str, HandoffReason | None]:
    """Outcome, wording and reason for an answer; the wording is used only when the answer has no text."""
    if answer.state is AnswerState.ANSWERED:
        return Outcome.ANSWERED, "", None
    if answer.state is AnswerState.BLOCKED:
        return Outcome.REFUSED, "refused", HandoffReason.POLICY_RESTRICTION
    if answer.state is AnswerState.UNAVAILABLE:
        return Outcome.NO_ANSWER, "tool_failure", HandoffReason.TOOL_FAILURE
    wording = "out_of_scope" if out_of_scope and answer.state is AnswerState.NO_MATCH else "no_answer"
    return Outcome.NO_ANSWER, wording, HandoffReason.MISSING_KNOWLEDGE


def finished(turn: Turn, conclusion: Conclusion) -> Turn:
    """The accepted turn with its ending."""
    return replace(
        turn,
        outcome=conclusion.outcome,
        reply=conclusion.reply,
        reason=conclusion.reason,
        citations=conclusion.citations,
        engine=conclusion.engine,
        degraded=conclusion.degraded,
        ticket_id=conclusion.ticket_id,
        record_id=conclusion.record_id,
        action_id=conclusion.action_id,
        prompt_tokens=conclusion.usage.prompt_tokens,
        completion_tokens=conclusion.usage.completion_tokens,
        cost_usd=conclusion.cost_usd,
        timings_ms=conclusion.timings_ms,
    )
