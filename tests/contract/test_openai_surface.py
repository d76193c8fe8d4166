"""The OpenAI-compatible surface on a real server and real connections, where bytes travel and clients hang up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import openai
import pytest
import uvicorn
from openai import AsyncOpenAI

from models.settings import LanguageModelSettings, Settings
from tests.fakes.ingress import World

HELLO: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "hello big world"}]


@pytest.fixture
def world() -> World:
    return World(settings=Settings(language_model=LanguageModelSettings(engine="scripted")))


@pytest.fixture
async def client(world: World) -> AsyncIterator[AsyncOpenAI]:
    """The official client, with its own connections and its own retries."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(world.api, lifespan="off", log_config=None)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listening])
    port = listening.getsockname()[1]
    try:
        async with AsyncOpenAI(api_key="none", base_url=f"http://127.0.0.1:{port}/v1") as caller:
            yield caller
    finally:
        server.force_exit = True
        await server.shutdown(sockets=[listening])


async def test_the_first_piece_arrives_while_the_model_still_works(world: World, client: AsyncOpenAI) -> None:
    world.language_model.gate = asyncio.Event()
    stream = await client.chat.completions.create(model="scripted", messages=HELLO, stream=True)
    first = await anext(aiter(stream))
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "hello")
    world.language_model.gate.set()
    rest = [chunk.choices[0].delta.content async for chunk in stream]
    assert rest == [" big", " world", None]
    await _recorded(world, "200")


async def test_a_client_that_closes_its_stream_ends_the_models_work(world: World, client: AsyncOpenAI) -> None:
    world.language_model.gate = asyncio.Event()
    stream = await client.chat.completions.create(model="scripted", messages=HELLO, stream=True)
    await anext(aiter(stream))
    await stream.close()
    await world.language_model.given_up.wait()
    await _recorded(world, "499")


async def test_a_client_that_stops_waiting_ends_the_models_work(world: World, client: AsyncOpenAI) -> None:
    world.language_model.gate = asyncio.Event()
    call = asyncio.create_task(client.chat.completions.create(model="scripted", messages=HELLO))
    await world.language_model.started.acquire()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await world.language_model.given_up.wait()
    await _recorded(world, "499")


async def test_the_clients_own_retries_stop_where_repeating_is_no_use(world: World, client: AsyncOpenAI) -> None:
    world.language_model.fails = RuntimeError("a defect")
    with pytest.raises(openai.InternalServerError):
        await client.chat.completions.create(model="scripted", messages=HELLO)
    assert len(world.language_model.requests) == 1


async def _recorded(world: World, status: str) -> None:
    await world.metrics.request_recorded.wait()
    found = [labels["status"] for name, labels in world.metrics.counted if name == "http_requests_total"]
    assert found == [status]


async def test_a_prompt_of_ten_megabytes_is_refused_in_words(client: AsyncOpenAI) -> None:
    """Not by a cut connection, which a client would take for trouble on the way and repeat."""
    with pytest.raises(openai.APIStatusError) as raised:
        await client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "x" * 10_000_000}])
    assert (raised.value.status_code, raised.value.code) == (413, "body_too_large")
