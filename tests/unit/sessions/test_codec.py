"""The stored form of sessions: nothing is lost, and what an older program stored can still be read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import orjson

from models.llm.types import Citation
from models.sessions.codec import JsonSessionCodec
from models.sessions.types import Outcome, Session, Turn

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
CITATION = Citation(passage_id="p1", document_id="d1", title="Seats", version="1", quote="Choose Add seat.")
TURN = Turn(
    turn_id="turn_1",
    client_message_id="m1",
    text="How?",
    at=NOW,
    outcome=Outcome.ANSWERED,
    reply="So.",
    citations=(CITATION,),
    prompt_tokens=7,
    cost_usd=0.002,
)
SESSION = Session(
    session_id="ses_1",
    customer_id=None,
    agent_type=None,
    owner="shop",
    created_at=NOW,
    updated_at=NOW,
    expires_at=NOW + timedelta(hours=1),
    turns=(TURN,),
)


def test_a_session_comes_back_as_it_was() -> None:
    assert JsonSessionCodec().decode(JsonSessionCodec().encode(SESSION)) == SESSION


def test_a_turn_stored_before_costs_were_known_has_an_unknown_cost() -> None:
    document = orjson.loads(JsonSessionCodec().encode(SESSION))
    del document["session"]["turns"][0]["cost_usd"]
    (turn,) = JsonSessionCodec().decode(orjson.dumps(document)).turns
    assert (turn.cost_usd, turn.prompt_tokens) == (None, 7)
