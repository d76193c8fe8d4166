"""The message router and the conversation behind the ingress in tests, each bent by a test through its fields."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from models.classification.types import Category, Classification, Intent
from models.errors import Conflict, Forbidden, NotFound, UnknownAgentType
from models.llm.types import ChatMessage, Citation
from models.resilience.deadline import Deadline
from models.sessions.types import Outcome, Session, SessionStatus, Turn
from models.workflows.types import InboundMessage, NextStep, PreparedAction, WorkflowResult

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
CITATION = Citation(
    passage_id="doc_1#0",
    document_id="doc_1",
    title="Inviting colleagues",
    version="3",
    quote="Open Settings, then Team.",
)


@dataclass
class FakeRouter:
    """Answers every message as a service action on an order; `fails` is raised instead while it is set."""

    fails: BaseException | None = None
    seen: list[InboundMessage] = field(default_factory=list)
    gate: asyncio.Event | None = None
    arrived: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    done: asyncio.Event = field(default_factory=asyncio.Event)

    async def route(self, message: InboundMessage, *, deadline: Deadline) -> WorkflowResult:
        self.seen.append(message)
        self.arrived.release()
        if self.gate is not None:
            await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        self.done.set()
        return WorkflowResult(
            classification=Classification(
                category=Category.SERVICE_ACTION,
                confidence=0.91,
                reasoning="near to order questions",
                intent=Intent.TRACK_ORDER,
                intent_confidence=0.8,
            ),
            decision_path=("classified", "order checked"),
            next_step=NextStep.CONFIRM_ACTION,
            reply="Your order is on its way.",
            citations=(CITATION,),
            entities={"order_id": "ORD-1001", "owned": True},
            action=PreparedAction(
                action_id="act_1",
                intent=Intent.TRACK_ORDER,
                customer_id=message.customer_id,
                order_id="ORD-1001",
                summary="Send the tracking link",
                ready=True,
            ),
        )


@dataclass
class FakeConversation:
    """Sessions in memory; a turn waits for `gate` when there is one."""

    sessions: dict[str, Session] = field(default_factory=dict)
    gate: asyncio.Event | None = None
    fails: BaseException | None = None
    arrived: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    completed: list[dict[str, Any]] = field(default_factory=list)
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    outcome: Outcome = Outcome.ANSWERED

    async def open(
        self, *, customer_id: str | None, agent_type: str | None, principal: str, metadata: dict[str, str]
    ) -> Session:
        if agent_type == "astrologer":
            raise UnknownAgentType("there is no such agent type")
        session = Session(
            session_id=f"ses_{len(self.sessions) + 1:04d}",
            customer_id=customer_id,
            agent_type=agent_type,
            owner=principal,
            created_at=NOW,
            updated_at=NOW,
            expires_at=NOW + timedelta(days=1),
            metadata=metadata,
        )
        self.sessions[session.session_id] = session
        return session

    async def get(self, session_id: str, *, principal: str) -> Session:
        if session_id not in self.sessions:
            raise NotFound("there is no such session")
        session = self.sessions[session_id]
        if session.owner != principal:
            raise Forbidden("this session belongs to another credential")
        return session

    async def end(self, session_id: str, *, principal: str) -> Session:
        ended = replace(await self.get(session_id, principal=principal), status=SessionStatus.ENDED)
        self.sessions[session_id] = ended
        return ended

    async def of_customer(self, customer_id: str, *, principal: str) -> list[Session]:
        found = [s for s in self.sessions.values() if s.customer_id == customer_id and s.owner == principal]
        return found[::-1]

    async def turn(
        self,
        session_id: str,
        text: str,
        *,
        principal: str,
        client_message_id: str | None,
        request_id: str,
        deadline: Deadline,
        turn_id: str | None = None,
    ) -> Turn:
        session = await self.get(session_id, principal=principal)
        if session.status is SessionStatus.ENDED:
            raise Conflict("this session has ended")
        number = len(session.turns) + 1
        turn = Turn(turn_id=turn_id or f"turn_{number}", client_message_id=client_message_id, text=text, at=NOW)
        self.sessions[session_id] = replace(session, turns=(*session.turns, turn))
        self.arrived.release()
        if self.gate is not None:
            await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        done = replace(
            turn,
            outcome=Outcome.ANSWERED,
            reply=CITATION.quote,
            citations=(CITATION,),
            prompt_tokens=12,
            completion_tokens=5,
            timings_ms={"total": 1.5},
        )
        session = self.sessions[session_id]
        turns = tuple(done if each.turn_id == done.turn_id else each for each in session.turns)
        self.sessions[session_id] = replace(session, turns=turns)
        return done

    async def complete(
        self,
        messages: Sequence[ChatMessage],
        *,
        customer_id: str | None,
        agent_type: str | None,
        principal: str,
        request_id: str,
        deadline: Deadline,
    ) -> Turn:
        if agent_type == "astrologer":
            raise UnknownAgentType("there is no such agent type")
        self.completed.append(
            {"messages": messages, "customer_id": customer_id, "agent_type": agent_type, "principal": principal}
        )
        self.arrived.release()
        if self.gate is not None:
            await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        self.finished.set()
        return Turn(
            turn_id="turn_1",
            client_message_id=None,
            text=messages[-1].content,
            at=NOW,
            outcome=self.outcome,
            reply=f"{CITATION.quote} Then choose Invite.",
            citations=(CITATION,),
            engine="extractive",
            degraded=("context",),
            ticket_id="tck_1",
            prompt_tokens=12,
            completion_tokens=5,
        )
