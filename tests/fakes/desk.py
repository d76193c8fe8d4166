"""A whole contact center out of fakes, ready to be bent by a test."""

from __future__ import annotations

from pathlib import Path

from models.safety.protocol import PIIDetector
from models.workflows.replies import SAFETY_REPLIES, Wordings
from models.workflows.router import MessageRouter, RouterConfig
from models.workflows.types import Channel, InboundMessage
from tests.fakes.contact_center import (
    Compliance,
    CountingMetrics,
    Customers,
    EmailDetector,
    KeywordKnowledge,
    Orders,
    QuotingLanguageModel,
    ScriptedClassifier,
    ScriptedGate,
)
from tests.fakes.embedder import HashingEmbedder

CONFIG = Path(__file__).parents[2] / "config"
REPLIES = Wordings.read(CONFIG / "replies.yaml")
SAFETY = Wordings.read(CONFIG / "safety_replies.yaml", SAFETY_REPLIES)


class Desk:
    """A `MessageRouter` over fakes; each fake is an attribute."""

    def __init__(self, pii: PIIDetector | None = None) -> None:
        self.journal: list[str] = []
        self.embedder = HashingEmbedder()
        self.classifier = ScriptedClassifier()
        self.gate = ScriptedGate(self.journal)
        self.pii = EmailDetector()
        self.knowledge = KeywordKnowledge()
        self.language_model = QuotingLanguageModel()
        self.orders = Orders()
        self.customers = Customers(known={"customer_1", "customer_2"})
        self.compliance = Compliance(self.journal)
        self.metrics = CountingMetrics()
        self.router = MessageRouter(
            self.embedder,
            self.classifier,
            self.gate,
            pii or self.pii,
            self.knowledge,
            self.language_model,
            self.orders,
            self.customers,
            self.compliance,
            RouterConfig(replies=REPLIES, safety_replies=SAFETY),
            self.metrics,
        )


def inbound(text: str, *, customer_id: str | None = "customer_1", channel: Channel = Channel.API) -> InboundMessage:
    return InboundMessage(text=text, channel=channel, customer_id=customer_id, request_id="req_1")
