"""Azure OpenAI over its real wire format: address, key, and the token of a managed identity from a local endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from models.errors import ConfigurationError, ModelAccessDenied, ModelUnavailable
from models.llm.azure_openai import base_url_of
from models.llm.engines import build_engine
from models.llm.protocol import Engine
from models.resilience.deadline import Deadline
from models.settings import LanguageModelSettings
from tests.fakes.embedder import HashingEmbedder
from tests.fakes.identity_server import IdentityServer
from tests.fakes.language_model import asking
from tests.fakes.openai_server import OpenAIServer, text_chunks, text_events

HELLO = asking("Hi", passages=())


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    running = OpenAIServer()
    yield running
    running.close()
    assert running.unused == 0, "the engine made fewer calls than the test scripted"


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> Iterator[IdentityServer]:
    """This process as App Service would run it."""
    running = IdentityServer()
    for name in ("IDENTITY_SERVER_THUMBPRINT", "IMDS_ENDPOINT", "MSI_ENDPOINT", "MSI_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("IDENTITY_ENDPOINT", running.url)
    monkeypatch.setenv("IDENTITY_HEADER", running.header)
    yield running
    running.close()


def azure(server: OpenAIServer, **settings: Any) -> Engine:
    fields = {
        "azure_endpoint": server.endpoint,
        "azure_deployment": "our-gpt",
        "azure_api_key": "azure-key",
        **settings,
    }
    return build_engine("azure_openai", LanguageModelSettings.model_validate(fields), HashingEmbedder())


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_a_key_travels_in_azure_s_header_to_the_v1_address(server: OpenAIServer, api: str) -> None:
    server.streams(text_chunks("Here.") if api == "chat" else text_events("Here."))
    model = azure(server, azure_api=api)
    reply = await model.generate(HELLO, deadline=Deadline.after(30))
    await model.check_health()
    await model.close()
    assert (reply.text, reply.engine) == ("Here.", "azure_openai")
    paths = [call.path for call in server.calls]
    assert paths == [f"/openai/v1/{'chat/completions' if api == 'chat' else 'responses'}", "/openai/v1/models"]
    for call in server.calls:
        assert call.headers["api-key"] == "azure-key"
        assert "authorization" not in call.headers
    (sent,) = server.requests
    assert sent["model"] == "our-gpt"
    assert sent["max_completion_tokens" if api == "chat" else "max_output_tokens"] == 512
    assert "max_tokens" not in sent


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_a_managed_identity_s_token_is_asked_for_once_and_travels(
    server: OpenAIServer, identity: IdentityServer, api: str
) -> None:
    model = azure(server, azure_api=api, azure_api_key="", azure_auth="managed_identity", azure_client_id="client-7")
    assert identity.queries == []
    for _ in range(2):
        server.streams(text_chunks("Here.") if api == "chat" else text_events("Here."))
        assert (await model.generate(HELLO, deadline=Deadline.after(30))).text == "Here."
    await model.check_health()
    await model.close()
    for call in server.calls:
        assert call.headers["authorization"] == f"Bearer {identity.token}"
        assert "api-key" not in call.headers
    (query,) = identity.queries
    assert query["resource"] == ["https://cognitiveservices.azure.com"]
    assert query["client_id"] == ["client-7"]


async def test_a_process_without_an_identity_is_denied(server: OpenAIServer, identity: IdentityServer) -> None:
    identity.status = 400
    model = azure(server, azure_auth="managed_identity")
    with pytest.raises(ModelAccessDenied):
        await model.generate(HELLO, deadline=Deadline.after(30))
    with pytest.raises(ModelUnavailable):
        await model.check_health()
    await model.close()
    assert server.calls == []


async def test_a_filtered_prompt_chunk_without_choices_is_passed_over(server: OpenAIServer) -> None:
    first = {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": []}
    server.streams([first, *text_chunks("Here.")])
    model = azure(server)
    assert (await model.generate(HELLO, deadline=Deadline.after(30))).text == "Here."
    await model.close()


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://r.openai.azure.com",
        "https://r.openai.azure.com/",
        "https://r.openai.azure.com/openai",
        "https://r.openai.azure.com/openai/v1/",
        "https://r.openai.azure.com/openai/v1?api-version=preview",
    ],
)
def test_an_endpoint_may_be_given_as_the_portal_shows_it(endpoint: str) -> None:
    assert base_url_of(endpoint) == "https://r.openai.azure.com/openai/v1/"


@pytest.mark.parametrize("endpoint", ["r.openai.azure.com", "ftp://r.openai.azure.com", "http://r.openai.azure.com"])
def test_an_endpoint_that_is_no_safe_address_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match="AZURE_OPENAI_ENDPOINT"):
        base_url_of(endpoint)


def test_a_missing_library_is_named(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "models.llm.azure_identity", raising=False)
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(ConfigurationError, match="pip install"):
        azure(server, azure_auth="managed_identity")
