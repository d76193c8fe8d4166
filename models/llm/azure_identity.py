"""Bearer tokens of a managed identity, by Microsoft's `azure-identity` library, which caches and renews them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.identity import CredentialUnavailableError
from azure.identity.aio import ManagedIdentityCredential, get_bearer_token_provider

from models.errors import ModelAccessDenied, ModelUnavailable

SCOPE = "https://cognitiveservices.azure.com/.default"


class ManagedIdentity:
    """Asks the platform this process runs on for tokens; `client_id` names one of several identities.

    Nothing is asked before the first `token`.
    """

    def __init__(self, client_id: str = "", *, scope: str = SCOPE) -> None:
        self._credential = ManagedIdentityCredential(client_id=client_id or None)
        self._provide: Callable[[], Awaitable[str]] = get_bearer_token_provider(self._credential, scope)

    async def token(self) -> str:
        """A token that is valid now.

        Raises `ModelAccessDenied` if there is no such identity here, `ModelUnavailable` if the platform is silent.
        """
        try:
            return await self._provide()
        except (CredentialUnavailableError, ClientAuthenticationError) as exc:
            raise ModelAccessDenied("the platform gives no token for the managed identity") from exc
        except AzureError as exc:
            raise ModelUnavailable("the platform's identity endpoint does not answer") from exc

    async def close(self) -> None:
        """Close the connections to the platform."""
        await self._credential.close()
