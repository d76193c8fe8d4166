"""How relevant each section of a context is to what was asked."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from models.embedding.protocol import Embedder, Vectors
from models.resilience.deadline import Deadline
from models.telemetry import Transition

logger = logging.getLogger(__name__)

#: float32, of unit length.
Vector = NDArray[np.float32]

#: What people ask when they need a section. A section is as near to a message as the nearest of its questions.
QUESTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "customer_intelligence": (
            "Who is this customer?",
            "What plan is this customer on and how much do they pay?",
            "How long have they been a customer?",
            "Who is our contact person there?",
        ),
        "subscription_details": (
            "How many seats do we have, and can we add more?",
            "When does my subscription renew?",
            "How do I change or cancel my plan?",
            "Why was I charged? I have a question about my invoice or payment.",
            "When does my free trial end?",
        ),
        "support_history": (
            "What is the status of my support ticket?",
            "I contacted you before about this problem and got no answer.",
            "What did we talk about in earlier conversations?",
            "Was the customer satisfied with our support?",
        ),
        "engagement_metrics": (
            "When did they last log in?",
            "How often does the team use the product?",
            "Which features are used the most?",
            "How many active users are there this month?",
        ),
        "account_health": (
            "Is there a problem with this account?",
            "Are there warnings or critical issues on the account?",
            "Is the account healthy?",
            "What are the risks and opportunities of this account?",
        ),
        "sales_pipeline": (
            "What happened to the offer you made us?",
            "Please send me the quote for the upgrade.",
            "At which stage is the deal, and when does it close?",
            "How much are the open sales opportunities worth?",
        ),
        "feature_usage": (
            "Which features have they never used?",
            "Which features did they start or stop using?",
            "Is the use of features growing or falling?",
        ),
        "security_context": (
            "Someone logged in to my account and it was not me.",
            "Was our account hacked or our password stolen?",
            "Have there been suspicious logins or security events?",
            "I have a problem with two-factor authentication.",
        ),
        "company_enrichment": (
            "How big is the company, and how many employees does it have?",
            "What does the company do, and in which country is it?",
            "What is the company's annual revenue?",
            "Which technologies does the company use?",
        ),
        "company_funding": (
            "How much money has the company raised from investors?",
            "Which investors took part in the last funding round?",
            "Is the company listed on the stock market?",
        ),
        "company_news": (
            "What is in the news about the company?",
            "I read an article about the company.",
            "Has the company announced anything or been acquired?",
        ),
        "product_status": (
            "Is the system down?",
            "The app does not load, I only get errors.",
            "Is there an outage or a known incident?",
            "Everything is very slow today.",
        ),
        "current_activity": (
            "Is the customer online right now?",
            "What is the customer doing in the product at this moment?",
            "Who is using the product right now?",
        ),
        "agent_performance": (
            "How many support agents are available?",
            "How fast do our agents resolve conversations?",
            "How well does our support team perform?",
        ),
        "churn_prediction": (
            "Will this customer cancel?",
            "How high is the risk that the customer leaves?",
            "We are thinking of cancelling and moving to a competitor.",
        ),
        "next_best_action": (
            "What should I do next for this customer?",
            "What should I offer or recommend to this customer?",
            "Which action would help this account most?",
        ),
    }
)

#: What was asked decides; where that leaves a choice, what matters most to the agent type and to the business wins, and
#: then what is fresh. The three can never make up for a difference in similarity of more than a third.
SIMILARITY, AGENT, TIER, FRESHNESS = 0.75, 0.1, 0.1, 0.05


class RelevanceScorer:
    """Scores sections from 0 to 1 by the message, the asking agent, their tier and their freshness.

    The questions are embedded once, with the first message; a message is embedded within `share` of its read's time,
    at most `at_most_s`, and `remembered` of them are kept by a hash. Without an answer in that time, or without a
    message, the others decide alone.
    """

    def __init__(
        self, embedder: Embedder, *, share: float = 0.8, at_most_s: float = 0.25, remembered: int = 1024
    ) -> None:
        self._embedder = embedder
        self._share = share
        self._at_most_s = at_most_s
        self._messages: Any = LRUCache(remembered)
        self._loading: asyncio.Task[Vectors] | None = None
        self._questions: Vectors | None = None
        self._state = Transition("embedder of relevance", logger)

    async def vector(self, message: str, deadline: Deadline) -> Vector | None:
        """What `scores` needs of the message, or `None` when it cannot be had in time; never raises for that."""
        if not message.strip():
            return None
        key = hashlib.blake2b(message.encode(errors="replace"), digest_size=16).digest()
        if (kept := self._messages.get(key)) is not None:
            found: Vector = kept
            return found
        budget = deadline.child(min(self._at_most_s, self._share * deadline.remaining_s()))
        try:
            async with budget.enforce("the embedding of a message"):
                await self._load_questions()
                vector: Vector = (await self._embedder.embed([message], deadline=budget))[0]
        except Exception as error:  # whatever it was, a read does not fail for want of an order
            self._state.down(error)
            return None
        self._state.up()
        self._messages[key] = vector
        return vector

    def scores(
        self,
        sections: Collection[str],
        vector: Vector | None,
        *,
        tiers: Mapping[str, int],
        freshness: Mapping[str, float],
        importance: Mapping[str, float] | None = None,
    ) -> dict[str, float]:
        """By section, the most relevant first.

        All by section: `tiers`, `freshness` (1 just read, 0 at the end of its time), and `importance` to the agent type
        (`AgentView.importance`). What they do not name counts as tier 1, fresh, and of no importance.
        """
        near = self._similarities(vector)
        scores = {}
        for name in sections:
            parts = [(TIER, 1 / (1 + tiers.get(name, 1))), (FRESHNESS, freshness.get(name, 1.0))]
            if near is not None:
                parts.append((SIMILARITY, near.get(name, 0.0)))
            if importance is not None:
                parts.append((AGENT, importance.get(name, 0.0)))
            score = sum(weight * value for weight, value in parts) / sum(weight for weight, _ in parts)
            scores[name] = min(1.0, max(0.0, score))
        return dict(sorted(scores.items(), key=lambda item: -item[1]))

    def _similarities(self, vector: Vector | None) -> dict[str, float] | None:
        if vector is None or self._questions is None:
            return None
        cosines = self._questions @ vector
        ends = np.cumsum([len(questions) for questions in QUESTIONS.values()])[:-1]
        return {
            name: max(0.0, float(part.max())) for name, part in zip(QUESTIONS, np.split(cosines, ends), strict=True)
        }

    async def _load_questions(self) -> None:
        """Shared by all who wait, and not given up when they do."""
        if self._questions is None:
            if self._loading is None:
                texts = [question for questions in QUESTIONS.values() for question in questions]
                self._loading = asyncio.create_task(self._embed_all(texts))
                self._loading.add_done_callback(lambda task: task.cancelled() or task.exception())  # all may have left
            await asyncio.shield(self._loading)

    async def _embed_all(self, texts: Sequence[str]) -> Vectors:
        try:
            self._questions = await self._embedder.embed(texts)
            return self._questions
        finally:
            self._loading = None  # after a failure the next message tries again
