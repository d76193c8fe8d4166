"""One message in, one decision out: triage, then the workflow of its category."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from models.classification.protocol import Classifier
from models.classification.types import Category, Classification
from models.embedding.protocol import Embedder, Vectors
from models.errors import Internal, RapportError
from models.ids import NewId, new_id
from models.knowledge.protocol import KnowledgeSearch
from models.llm.protocol import LanguageModel
from models.resilience.deadline import Deadline
from models.safety.protocol import PIIDetector, SafetyGate
from models.safety.types import Decision, Harm, Purpose, Verdict
from models.telemetry import Metrics, NoMetrics
from models.workflows.answering import KnowledgeAnswerer
from models.workflows.informational import InformationalWorkflow
from models.workflows.protocol import ComplianceSystem, CustomerDirectory, OrderSystem
from models.workflows.replies import Wordings
from models.workflows.safety_compliance import SafetyComplianceWorkflow
from models.workflows.service_action import ServiceActionWorkflow
from models.workflows.severity import Assessment, assess
from models.workflows.types import InboundMessage, NextStep, Severity, WorkflowResult

logger = logging.getLogger(__name__)

#: How often a severity rule that overrules the classifier is right; a rule has no probability of its own.
RULE_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterConfig:
    """What may be tuned without code; `min_confidence` is row C3's bar, `min_score` a cosine."""

    replies: Wordings
    safety_replies: Wordings
    min_confidence: float = 0.5
    min_score: float = 0.45
    limit: int = 5
    max_tokens: int = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Triage:
    """What is known of a message before any workflow runs.

    `vector` has shape (1, dimension), `None` when the embedder is away. `customer_known` is `None` when no customer was
    named or the directory is away. `escalated` says that the safety policy wants a person to see the message, which it
    also does with every message that could not be moderated.
    """

    so_far: WorkflowResult
    assessment: Assessment
    vector: Vectors | None
    customer_known: bool | None
    escalated: bool

    @property
    def classification(self) -> Classification:
        return self.so_far.classification

    @property
    def moderated(self) -> bool:
        return "moderation" not in self.so_far.degraded

    @property
    def is_safety(self) -> bool:
        """Whether a compliance record is due: a classified report, unless it is only a guess without any sign."""
        if self.classification.category is not Category.SAFETY_COMPLIANCE or self.assessment.unaffected:
            return False
        return bool(self.assessment.signals) or not self.classification.abstained


_TRIAGE_SHARE = 0.7
#: Moderation answers with the words for a crisis from this severity; a lesser hint of self-harm goes to a person, whom
#: the policy may call earlier, without telling a customer who leaves us that they are in danger.
CRISIS_FROM = 4


class MessageRouter:
    """Embeds a message once, and hands its vector to classification, moderation and search.

    Losing knowledge, language model, moderation, orders or the customer directory degrades the result and is named in
    it. A message that could not be moderated is neither answered nor acted on: a safety report is recorded, all else
    goes to a person. Losing the compliance register raises, because a report must never look recorded when it is not.
    """

    def __init__(
        self,
        embedder: Embedder,
        classifier: Classifier,
        safety_gate: SafetyGate,
        pii: PIIDetector,
        knowledge: KnowledgeSearch,
        language_model: LanguageModel,
        orders: OrderSystem,
        customers: CustomerDirectory,
        compliance: ComplianceSystem,
        config: RouterConfig,
        metrics: Metrics | None = None,
        *,
        timer: Callable[[], float] = time.perf_counter,
        ids: NewId = new_id,
    ) -> None:
        self._embedder = embedder
        self._classifier = classifier
        self._safety_gate = safety_gate
        self._customers = customers
        self._config = config
        self._metrics = metrics or NoMetrics()
        self._timer = timer
        self.answerer = KnowledgeAnswerer(
            knowledge,
            language_model,
            safety_gate,
            limit=config.limit,
            min_score=config.min_score,
            max_tokens=config.max_tokens,
            timer=timer,
        )
        self.informational = InformationalWorkflow(self.answerer, config.replies, min_confidence=config.min_confidence)
        self.service_action = ServiceActionWorkflow(orders, config.replies, ids=ids)
        self.safety_compliance = SafetyComplianceWorkflow(compliance, pii, config.safety_replies)

    async def route(self, message: InboundMessage, *, deadline: Deadline) -> WorkflowResult:
        """Raises `DatabaseUnavailable` (a report could not be recorded), and as `triage`."""
        started = self._timer()
        self._metrics.count("classification_requests_total", channel=str(message.channel))
        # Some of the time is kept for recording: a report must not be lost to a slow classifier.
        triage = await self.triage(message, deadline=deadline.child(deadline.remaining_s() * _TRIAGE_SHARE))
        classification = triage.classification
        self._metrics.count("classification_by_category", category=str(classification.category))
        self._metrics.observe("classification_confidence", classification.confidence)
        try:
            return await self._run(message, triage, deadline)
        finally:
            self._metrics.observe("classification_latency_seconds", self._timer() - started)

    async def triage(self, message: InboundMessage, *, deadline: Deadline) -> Triage:
        """Classify, moderate and look the customer up, side by side.

        When the models fail, for whatever reason, messages whose own words report harm are sorted by these alone. All
        others raise `ModelUnavailable`, `Overloaded`, `DeadlineExceeded`, or `Internal` for a defect.
        """
        assessment = assess(message.text)
        try:
            vector = await self._embedder.embed([message.text], deadline=deadline)
            async with asyncio.TaskGroup() as group:
                classifying = group.create_task(self._classify(message.text, vector, deadline))
                moderating = group.create_task(self._moderate(message.text, vector, deadline))
                looking_up = group.create_task(self._look_up(message.customer_id, deadline))
        except Exception as failure:  # a report must survive any defect of the models
            named = _first_named(failure)
            if assessment.reported:
                error = type(named or failure).__name__
                logger.warning("a report was sorted by its words alone", extra={"error": error})
                return _by_words_alone(message, assessment)
            if named is None:
                raise Internal("a message could not be sorted") from failure
            raise named from None
        known, customer_path = looking_up.result()
        verdict = moderating.result()
        self_harm = next((f for f in verdict.findings if f.harm is Harm.SELF_HARM and f.severity > 0), None)
        escalated = not verdict.available or verdict.decision is not Decision.ALLOW
        path = [f"received:{message.channel}", *customer_path]
        path.append(f"moderated:{verdict.decision}" if verdict.available else "moderation_unavailable")
        classification = classifying.result()
        path.append(f"classified:{classification.category}")
        if classification.abstained:
            path.append("classifier_abstained")
        crisis = (
            self_harm is not None
            and self_harm.severity >= CRISIS_FROM
            and not assessment.unaffected
            and _worst(verdict) == self_harm.severity
        )
        if escalated and crisis:
            signals = assessment.signals or ("self_harm",)
            assessment = Assessment(severity=Severity.URGENT, signals=signals, reported=True, self_harm=True)
        if assessment.reported and classification.category is not Category.SAFETY_COMPLIANCE:
            classification = _overruled(classification, assessment)
            path.append("safety_signal_overrules")
        degraded = [] if verdict.available else ["moderation"]
        if message.customer_id is not None and known is None:
            degraded.append("customers")
        return Triage(
            so_far=WorkflowResult(
                classification=classification,
                decision_path=tuple(path),
                next_step=NextStep.HUMAN_REVIEW,
                entities={} if known is None else {"customer_known": known},
                degraded=tuple(degraded),
            ),
            assessment=assessment,
            vector=vector,
            customer_known=known,
            escalated=escalated,
        )

    async def _run(self, message: InboundMessage, triage: Triage, deadline: Deadline) -> WorkflowResult:
        so_far, classification = triage.so_far, triage.classification
        if triage.is_safety:
            return await self.safety_compliance.run(message, so_far, assessment=triage.assessment)
        unsure = classification.abstained or classification.confidence < self._config.min_confidence
        if not triage.moderated:
            return self._to_human(so_far, "unmoderated")
        if triage.escalated or triage.vector is None or classification.category is Category.SAFETY_COMPLIANCE:
            return self._to_human(so_far, "policy_escalated" if triage.escalated else "confidence_low")
        if classification.category is Category.SERVICE_ACTION:
            if unsure:
                return self._to_human(so_far, "confidence_low")
            return await self.service_action.run(
                message, so_far, customer_known=triage.customer_known, deadline=deadline
            )
        return await self.informational.run(message, so_far, vector=triage.vector, deadline=deadline)

    def _to_human(self, so_far: WorkflowResult, why: str) -> WorkflowResult:
        return replace(
            so_far,
            decision_path=(*so_far.decision_path, why, "human_review_suggested"),
            next_step=NextStep.HUMAN_REVIEW,
            reply=self._config.replies.text("human_review"),
        )

    async def _classify(self, text: str, vector: Vectors, deadline: Deadline) -> Classification:
        return (await self._classifier.classify([text], vectors=vector, deadline=deadline))[0]

    async def _moderate(self, text: str, vector: Vectors, deadline: Deadline) -> Verdict:
        try:
            verdicts = await self._safety_gate.check(
                [text], purpose=Purpose.CUSTOMER_MESSAGE, vectors=vector, deadline=deadline
            )
        except Exception as exc:  # whatever it is, nobody looked at the message
            logger.warning("a message could not be moderated", extra={"error": type(exc).__name__})
            return Verdict(decision=Decision.ESCALATE, reasons=("unavailable",), available=False)
        return verdicts[0]

    async def _look_up(self, customer_id: str | None, deadline: Deadline) -> tuple[bool | None, tuple[str, ...]]:
        if customer_id is None:
            return None, ("customer_anonymous",)
        try:
            async with deadline.enforce("customer look-up"):
                known = await self._customers.exists(customer_id)
        except RapportError as exc:
            logger.warning("a customer could not be looked up", extra={"error": exc.code})
            return None, ("customer_directory_unavailable",)
        return known, ("customer_known" if known else "customer_unknown",)


def _overruled(classification: Classification, assessment: Assessment) -> Classification:
    """The label a reported safety signal leads to, whatever the classifier thought."""
    named = ", ".join(signal.replace("_", " ") for signal in assessment.signals)
    return replace(
        classification,
        category=Category.SAFETY_COMPLIANCE,
        confidence=RULE_CONFIDENCE,
        reasoning=f"The message reports a safety signal ({named}), which decides whatever the examples say.",
        abstained=False,
        intent=None,
        intent_confidence=0.0,
    )


def _by_words_alone(message: InboundMessage, assessment: Assessment) -> Triage:
    """The triage of a message that reports harm in plain words while the models are away."""
    guess = Classification(category=Category.INFORMATIONAL, confidence=0.0, reasoning="", engine="rules")
    return Triage(
        so_far=WorkflowResult(
            classification=_overruled(guess, assessment),
            decision_path=(f"received:{message.channel}", "models_unavailable", "safety_signal_overrules"),
            next_step=NextStep.HUMAN_REVIEW,
            degraded=("classification",),
        ),
        assessment=assessment,
        vector=None,
        customer_known=None,
        escalated=True,
    )


def _worst(verdict: Verdict) -> int:
    return max((finding.severity for finding in verdict.findings), default=0)


def _first_named(failure: Exception) -> RapportError | None:
    """The failure itself, or the first in its group, however deep, that has a name of ours."""
    if isinstance(failure, ExceptionGroup):
        return next((named for each in failure.exceptions if (named := _first_named(each)) is not None), None)
    return failure if isinstance(failure, RapportError) else None
