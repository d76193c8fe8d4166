"""The model `rapport`: who it speaks to, for whom, and what comes with its words."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from models.errors import DatabaseUnavailable, DeadlineExceeded, ModelUnavailable, Overloaded
from models.llm.types import Role
from models.sessions.types import Outcome
from tests.fakes.ingress import World
from tests.unit.ingress.openai_world import HELLO, KEY, openai_world, support_desk

CHAT = "/v1/chat/completions"
ANNOTATION = {
    "type": "file_citation",
    "file_id": "doc_1",
    "filename": "Inviting colleagues",
    "index": 25,
    "quote": "Open Settings, then Team.",
    "version": "3",
}


@pytest.fixture
def world() -> World:
    return openai_world()


async def test_an_answer_carries_citations_and_what_became_of_the_turn(world: World) -> None:
    async with world.openai() as client:
        completion = await client.chat.completions.create(model="rapport", messages=HELLO, user="customer_123")
    message = completion.choices[0].message
    assert message.content == "Open Settings, then Team. Then choose Invite."
    assert message.annotations is not None
    assert [annotation.to_dict() for annotation in message.annotations] == [ANNOTATION]
    assert message.content[:25] == ANNOTATION["quote"]
    assert completion.model_extra is not None
    details = completion.model_extra["rapport"]
    assert (details["outcome"], details["ticket_id"], details["degraded"], details["engine"]) == (
        "answered",
        "tck_1",
        ["context"],
        "extractive",
    )
    assert completion.usage is not None
    assert completion.usage.total_tokens == 17
    (asked,) = world.conversation.completed
    assert (asked["customer_id"], asked["agent_type"], asked["principal"]) == ("customer_123", None, "anonymous")


async def test_a_stream_sends_sentences_and_ends_with_the_citations(world: World) -> None:
    async with world.openai() as client:
        stream = await client.chat.completions.create(
            model="rapport", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        *sentences, last, usage = [chunk async for chunk in stream]
    assert [chunk.choices[0].delta.content for chunk in sentences] == [
        "Open Settings, then Team. ",
        "Then choose Invite.",
    ]
    assert last.choices[0].finish_reason == "stop"
    assert last.choices[0].delta.model_extra == {"annotations": [ANNOTATION]}
    assert last.model_extra is not None
    assert last.model_extra["rapport"]["outcome"] == "answered"
    assert usage.usage is not None
    assert usage.usage.total_tokens == 17


async def test_nothing_is_sent_before_the_turn_is_decided(world: World) -> None:
    world.conversation.fails = DatabaseUnavailable("hunter2")
    async with world.openai() as client:
        with pytest.raises(openai.InternalServerError) as raised:
            await client.chat.completions.create(model="rapport", messages=HELLO, stream=True)
    assert (raised.value.status_code, raised.value.code) == (503, "database_unavailable")


async def test_a_withheld_reply_says_so(world: World) -> None:
    world.conversation.outcome = Outcome.REFUSED
    async with world.openai() as client:
        completion = await client.chat.completions.create(model="rapport", messages=HELLO)
    assert completion.choices[0].finish_reason == "content_filter"


async def test_history_and_instructions_arrive_as_messages(world: World) -> None:
    async with world.openai() as client:
        first = await client.chat.completions.create(model="rapport", messages=HELLO)
        again: Any = [
            {"role": "system", "content": "Be brief."},
            *HELLO,
            first.choices[0].message.to_dict(),
            {"role": "user", "content": "And then?"},
        ]
        await client.chat.completions.create(model="rapport", messages=again, temperature=0.7, max_tokens=100, seed=1)
    messages = world.conversation.completed[-1]["messages"]
    assert [(message.role, message.content) for message in messages] == [
        (Role.SYSTEM, "Be brief."),
        (Role.USER, "hello big world"),
        (Role.ASSISTANT, "Open Settings, then Team. Then choose Invite."),
        (Role.USER, "And then?"),
    ]


@pytest.mark.parametrize(
    ("covered", "named", "taken"),
    [
        (("support",), None, "support"),
        (("support", "sales"), None, None),
        ((), None, None),
        (("support", "sales"), "sales", "sales"),
    ],
)
async def test_the_credential_decides_whose_view_is_taken(
    covered: tuple[str, ...], named: str | None, taken: str | None
) -> None:
    world = openai_world(keys=support_desk(*covered))
    async with world.openai(key=KEY) as client:
        await client.chat.completions.create(
            model="rapport", messages=HELLO, user="customer_123", metadata={"agent_type": named} if named else {}
        )
    assert world.conversation.completed[0]["agent_type"] == taken
    assert world.conversation.completed[0]["principal"] == "key:desk"


async def test_a_view_outside_the_credential_is_403() -> None:
    world = openai_world(keys=support_desk("support"))
    async with world.openai(key=KEY) as client:
        with pytest.raises(openai.PermissionDeniedError) as raised:
            await client.chat.completions.create(model="rapport", messages=HELLO, metadata={"agent_type": "sales"})
    assert (raised.value.code, raised.value.type) == ("forbidden", "request_forbidden")
    assert world.conversation.completed == []


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"n": 2}, "unsupported_parameter", "n"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "unsupported_parameter", "tools"),
        ({"response_format": {"type": "json_object"}}, "unsupported_parameter", "response_format"),
        ({"stop": "x"}, "unsupported_parameter", "stop"),
        ({"logprobs": True}, "unsupported_parameter", "logprobs"),
        ({"user": "../etc"}, "invalid_request", "user"),
        ({"user": "customer_1\n"}, "invalid_request", "user"),
        ({"metadata": {"agent_type": "astrologer"}}, "unknown_agent_type", None),
        ({"messages": [*HELLO, {"role": "assistant", "content": "x"}]}, "invalid_request", "messages[1].role"),
        ({"messages": [{"role": "user", "content": ""}]}, "invalid_request", "messages[0].content"),
    ],
)
async def test_what_the_assistant_cannot_do_is_a_400_that_names_it(
    world: World, change: dict[str, Any], code: str, param: str | None
) -> None:
    async with world.client() as http:
        response = await http.post(
            "/v1/chat/completions", json={"model": "rapport", "messages": HELLO, "user": "customer_123"} | change
        )
    assert response.status_code == 400
    assert (response.json()["error"]["code"], response.json()["error"]["param"]) == (code, param)
    assert world.conversation.completed == []


async def test_a_turn_ends_even_when_nobody_waits_for_it(world: World) -> None:
    """A safety report that is on its way must not be lost with the connection."""
    world.conversation.gate = asyncio.Event()
    async with world.openai() as client:
        call = asyncio.create_task(client.chat.completions.create(model="rapport", messages=HELLO))
        await world.conversation.arrived.acquire()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        world.conversation.gate.set()
        await world.conversation.finished.wait()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_happens_once_for_each_key_and_is_answered_again(world: World, stream: bool) -> None:
    sent = {"model": "rapport", "messages": HELLO, "stream": stream}
    async with world.client() as http:
        first, again = [await http.post(CHAT, json=sent, headers={"Idempotency-Key": "k1"}) for _ in range(2)]
        other = await http.post(CHAT, json=sent, headers={"Idempotency-Key": "k2"})
        mismatch = await http.post(CHAT, json=sent | {"user": "customer_1"}, headers={"Idempotency-Key": "k1"})
    assert len(world.conversation.completed) == 2
    assert (again.status_code, again.content) == (200, first.content)
    assert [response.headers.get("Idempotent-Replayed") for response in (first, again, other)] == [None, "true", None]
    assert again.headers["content-type"] == first.headers["content-type"]
    assert (mismatch.status_code, mismatch.json()["error"]["code"]) == (400, "idempotency_mismatch")


async def test_the_same_key_is_told_to_wait_while_the_turn_runs(world: World) -> None:
    world.conversation.gate = asyncio.Event()
    sent: Any = {"json": {"model": "rapport", "messages": HELLO}, "headers": {"Idempotency-Key": "k1"}}
    async with world.client() as http:
        first = asyncio.create_task(http.post(CHAT, **sent))
        await world.conversation.arrived.acquire()
        second = await http.post(CHAT, **sent)
        world.conversation.gate.set()
        assert (await first).status_code == 200
    assert (second.status_code, second.headers["x-should-retry"]) == (409, "true")
    assert len(world.conversation.completed) == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "error", [DatabaseUnavailable("x"), DeadlineExceeded("x"), Overloaded("x").with_retry_after(1), RuntimeError("x")]
)
async def test_no_client_is_asked_to_repeat_a_turn_that_began(world: World, error: Exception, stream: bool) -> None:
    """OpenAI's client repeats failures on its own, and a turn may have had its effects."""
    world.conversation.fails = error
    async with world.client() as http:
        response = await http.post(CHAT, json={"model": "rapport", "messages": HELLO, "stream": stream})
    assert response.status_code >= 500
    assert response.headers["x-should-retry"] == "false"


async def test_what_failed_before_a_turn_began_may_be_repeated(world: World) -> None:
    world.language_model.fails = ModelUnavailable("x")
    async with world.client() as http:
        response = await http.post(CHAT, json={"model": "scripted", "messages": HELLO})
    assert response.headers["x-should-retry"] == "true"
