"""OpenAI's models in Azure: the v1 API, which takes the official client and needs no dated `api-version`.

https://learn.microsoft.com/azure/foundry/openai/api-version-lifecycle
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import httpx2
from openai import AsyncOpenAI, Omit

from models.embedding.protocol import Embedder
from models.errors import ConfigurationError
from models.llm.openai import OpenAILanguageModel, WireFormat, wire_format
from models.llm.prompt import GroundedPrompt
from models.settings import LanguageModelSettings


class AzureOpenAILanguageModel(OpenAILanguageModel):
    """The OpenAI engine at an Azure resource; the model's name is the name of a deployment there."""

    engine: ClassVar[str] = "azure_openai"

    def __init__(
        self,
        deployment: str,
        *,
        client: AsyncOpenAI,
        wire: WireFormat,
        headers: Mapping[str, str | Omit] | None = None,
        identity: Any = None,
        timeout_s: float = 30.0,
        temperature: float | None = None,
        prompt: GroundedPrompt | None = None,
    ) -> None:
        """`identity` is the `ManagedIdentity` that the client asks for tokens; it is closed with the engine."""
        super().__init__(
            deployment,
            client=client,
            wire=wire,
            headers=headers,
            timeout_s=timeout_s,
            temperature=temperature,
            prompt=prompt,
        )
        self._identity = identity

    @classmethod
    def from_settings(cls, settings: LanguageModelSettings, embedder: Embedder) -> Self:
        """Raises `ConfigurationError` naming the setting, or the package, that is missing."""
        if not settings.azure_endpoint:
            raise ConfigurationError("the azure_openai engine needs AZURE_OPENAI_ENDPOINT")
        if not settings.azure_deployment:
            raise ConfigurationError("the azure_openai engine needs RAPPORT_LANGUAGE_MODEL__AZURE_DEPLOYMENT")
        base_url = base_url_of(settings.azure_endpoint)
        wire = wire_format(settings.azure_api, of_openai=True)
        if settings.azure_auth == "managed_identity":
            identity = _managed_identity(settings.azure_client_id)
            client = AsyncOpenAI(api_key=identity.token, base_url=base_url, max_retries=0)
            return cls(
                settings.azure_deployment,
                client=client,
                wire=wire,
                identity=identity,
                timeout_s=settings.timeout_s,
                temperature=settings.temperature,
            )
        key = settings.azure_api_key.get_secret_value()
        if not key:
            raise ConfigurationError("the azure_openai engine needs AZURE_OPENAI_API_KEY, or a managed identity")
        return cls(
            settings.azure_deployment,
            client=AsyncOpenAI(api_key="in the header api-key", base_url=base_url, max_retries=0),
            wire=wire,
            headers={"api-key": key, "Authorization": Omit()},
            timeout_s=settings.timeout_s,
            temperature=settings.temperature,
        )

    async def close(self) -> None:
        """Close the connections to the resource and to the identity endpoint."""
        await super().close()
        if self._identity is not None:
            await self._identity.close()


def base_url_of(endpoint: str) -> str:
    """The address of the v1 API at a resource, given as the portal shows it or with the path already there.

    Raises `ConfigurationError` if it is not an address; plain http is for this machine only, since a key travels.
    """
    url = httpx2.URL(endpoint)
    if not url.host or url.scheme not in ("http", "https"):
        raise ConfigurationError("AZURE_OPENAI_ENDPOINT is not an address such as https://RESOURCE.openai.azure.com")
    if url.scheme == "http" and url.host not in ("127.0.0.1", "::1", "localhost"):
        raise ConfigurationError("AZURE_OPENAI_ENDPOINT must be https: a key travels with every request")
    root = str(url.copy_with(query=None, fragment=None)).rstrip("/")
    return (root if root.endswith("/openai/v1") else f"{root.removesuffix('/openai')}/openai/v1") + "/"


def _managed_identity(client_id: str) -> Any:
    try:
        library = importlib.import_module("models.llm.azure_identity")
    except ImportError as exc:
        raise ConfigurationError(
            "a managed identity needs libraries that are not installed; add them: pip install azure-identity aiohttp"
        ) from exc
    return library.ManagedIdentity(client_id)
