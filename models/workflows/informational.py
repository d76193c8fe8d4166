"""A question for information: a cited answer, contact options, or a person."""

from __future__ import annotations

from dataclasses import replace

from models.embedding.protocol import Vectors
from models.llm.types import ChatMessage, Role
from models.resilience.deadline import Deadline
from models.workflows.answering import AnswerState, KnowledgeAnswerer
from models.workflows.replies import Wordings
from models.workflows.types import InboundMessage, NextStep, WorkflowResult

#: What a generative engine is told; passages and rules of quoting are the engine's own business.
INSTRUCTIONS = (
    "You answer customers of Medley, which sells practice software and health products. Use only the given passages; "
    "quote them exactly where it matters. Give no medical advice. If the passages do not answer, say so."
)


class InformationalWorkflow:
    """Answers only when the classifier is sure enough, and only with what an approved article says."""

    def __init__(self, answerer: KnowledgeAnswerer, replies: Wordings, *, min_confidence: float) -> None:
        self._answerer = answerer
        self._replies = replies
        self._min_confidence = min_confidence

    async def run(
        self, message: InboundMessage, so_far: WorkflowResult, *, vector: Vectors, deadline: Deadline
    ) -> WorkflowResult:
        """`so_far` carries the classification and the path that led here."""
        if so_far.classification.confidence < self._min_confidence or so_far.classification.abstained:
            return replace(
                so_far,
                decision_path=(*so_far.decision_path, "confidence_low", "human_review_suggested"),
                next_step=NextStep.HUMAN_REVIEW,
                reply=self._replies.text("human_review"),
            )
        answer = await self._answerer.answer(
            message.text,
            (
                ChatMessage(role=Role.SYSTEM, content=INSTRUCTIONS),
                ChatMessage(role=Role.USER, content=message.text),
            ),
            vector=vector,
            deadline=deadline,
            request_id=message.request_id,
        )
        path = (*so_far.decision_path, "confidence_sufficient", *answer.path)
        degraded = (*so_far.degraded, *answer.degraded)
        if answer.state is AnswerState.ANSWERED:
            return replace(
                so_far,
                decision_path=path,
                next_step=NextStep.ANSWERED,
                reply=answer.text,
                citations=answer.citations,
                degraded=degraded,
            )
        if answer.state is AnswerState.BLOCKED:
            return replace(
                so_far,
                decision_path=(*path, "human_review_suggested"),
                next_step=NextStep.HUMAN_REVIEW,
                reply=self._replies.text("human_review"),
                degraded=degraded,
            )
        return replace(
            so_far,
            decision_path=(*path, "contact_options_suggested"),
            next_step=NextStep.SUGGEST_CONTACT,
            reply=self._replies.text("contact_options"),
            degraded=degraded,
        )
