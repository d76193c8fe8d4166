"""Embeddings, moderations and the list of models, through the official client unchanged."""

from __future__ import annotations

import base64
import struct

import openai
import pytest
from openai.types import ModerationTextInputParam

from models.errors import ModelUnavailable
from tests.fakes.ingress import World
from tests.unit.ingress.openai_world import openai_world

MODEL = "all-minilm-l6-v2"


@pytest.fixture
def world() -> World:
    return openai_world()


async def test_embeddings_come_as_numbers_and_as_base64_alike(world: World) -> None:
    async with world.openai() as client:
        default = await client.embeddings.create(model=MODEL, input=["one two", "eel"])
        numbers = await client.embeddings.create(model=MODEL, input=["one two", "eel"], encoding_format="float")
        raw = await client.embeddings.create(model=MODEL, input="eel", encoding_format="base64", dimensions=3)
    expected = (await world.embedder.embed(["one two", "eel"])).tolist()
    for reply in (default, numbers):
        assert [item.index for item in reply.data] == [0, 1]
        assert [
            [struct.unpack("<f", struct.pack("<f", x))[0] for x in item.embedding] for item in reply.data
        ] == expected
        assert (reply.model, reply.usage.prompt_tokens, reply.usage.total_tokens) == (MODEL, 3, 3)
    assert struct.unpack("<3f", base64.b64decode(str(raw.data[0].embedding))) == tuple(expected[1])


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"input": []}, "invalid_request", "input"),
        ({"input": ""}, "invalid_request", "input[0]"),
        ({"input": ["a", ""]}, "invalid_request", "input[1]"),
        ({"input": ["a"] * 2049}, "invalid_request", "input"),
        ({"input": [1, 2, 3]}, "unsupported_parameter", "input"),
        ({"input": [[1, 2], [3]]}, "unsupported_parameter", "input"),
        ({"input": 5}, "invalid_request", "input"),
        ({"input": "a", "dimensions": 2}, "unsupported_parameter", "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "invalid_request", "encoding_format"),
        ({"input": "a", "truncate": True}, "unknown_parameter", "truncate"),
        ({"input": ["a", "b " * 9]}, "context_length_exceeded", "input[1]"),
    ],
)
async def test_embeddings_refuse_what_they_cannot_do(
    world: World, body: dict[str, object], code: str, param: str
) -> None:
    async with world.client() as http:
        response = await http.post("/v1/embeddings", json={"model": MODEL} | body)
    assert response.status_code == 400
    assert (response.json()["error"]["code"], response.json()["error"]["param"]) == (code, param)


async def test_the_largest_request_is_answered(world: World) -> None:
    async with world.openai() as client:
        reply = await client.embeddings.create(model=MODEL, input=["some text"] * 2048)
    assert len(reply.data) == 2048


async def test_embeddings_name_an_unknown_model_and_an_absent_one(world: World) -> None:
    async with world.openai() as client:
        with pytest.raises(openai.NotFoundError, match=MODEL):
            await client.embeddings.create(model="scripted", input="a")
        world.embedder.fails = ModelUnavailable("hunter2")
        with pytest.raises(openai.InternalServerError) as raised:
            await client.embeddings.create(model=MODEL, input="a")
    assert (raised.value.status_code, raised.value.code) == (503, "model_unavailable")


async def test_moderation_flags_the_category_and_says_what_it_did_not_judge(world: World) -> None:
    async with world.openai() as client:
        reply = await client.moderations.create(input=["I will hurt you", "good morning"])
        single = await client.moderations.create(model="omni-moderation-latest", input="good morning")
        text: ModerationTextInputParam = {"type": "text", "text": "I will hurt you"}
        parts = await client.moderations.create(input=[text])
    assert [result.flagged for result in reply.results] == [True, False]
    assert [result.flagged for result in (*single.results, *parts.results)] == [False, True]
    assert reply.model == "rapport-moderation"
    first = reply.results[0]
    assert (first.categories.violence, first.categories.hate, first.categories.sexual_minors) == (True, False, False)
    assert (first.category_scores.violence, first.category_scores.harassment) == (0.9, 0.0)
    assert first.category_applied_input_types.violence == ["text"]
    assert first.category_applied_input_types.harassment == []


async def test_a_text_that_nobody_judged_is_never_reported_harmless(world: World) -> None:
    world.gate.available = False
    async with world.openai() as client:
        with pytest.raises(openai.InternalServerError) as raised:
            await client.moderations.create(input="good morning")
    assert (raised.value.status_code, raised.value.code) == (503, "safety_unavailable")


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"input": []}, 400, "input"),
        ({"input": ""}, 400, "input[0]"),
        ({"input": [{"type": "image_url", "image_url": {"url": "http://x"}}]}, 400, "input[0]"),
        ({"input": "a", "model": "gpt-4o"}, 404, "model"),
        ({}, 400, "input"),
    ],
)
async def test_moderation_refuses_what_it_cannot_judge(
    world: World, body: dict[str, object], status: int, param: str
) -> None:
    async with world.client() as http:
        response = await http.post("/v1/moderations", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)


async def test_models_are_the_assistant_the_engines_and_the_embedder(world: World) -> None:
    async with world.openai() as client:
        listed = await client.models.list()
        assert [model.id for model in listed.data] == ["rapport", "scripted", "extractive", MODEL]
        described = {model.id: str((model.model_extra or {})["description"]) for model in listed.data}
        assert "ask rapport" in described["extractive"]
        for model in listed.data:
            assert await client.models.retrieve(model.id) == model
        for unknown in ("gpt-4o", "a/b:c", "scripted:tokens=5"):
            with pytest.raises(openai.NotFoundError) as raised:
                await client.models.retrieve(unknown)
            assert raised.value.code == "model_not_found"


async def test_a_model_id_may_hold_slashes() -> None:
    world = openai_world()
    world.settings = world.settings.model_copy(
        update={"embedding": world.settings.embedding.model_copy(update={"model": "org/name"})}
    )
    world.__post_init__()
    async with world.openai() as client:
        assert (await client.models.retrieve("org/name")).id == "org/name"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_without_text_of_its_own_names_the_model_to_ask_instead(world: World, stream: bool) -> None:
    async with world.openai() as client:
        with pytest.raises(openai.BadRequestError, match="ask the model rapport") as raised:
            await client.chat.completions.create(
                model="extractive", messages=[{"role": "user", "content": "hello"}], stream=stream
            )
    assert (raised.value.code, raised.value.param) == ("unsupported_by_model", "model")
    assert world.language_model.requests == []
