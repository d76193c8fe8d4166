"""Who is calling, and for which agent types they may act."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from models.errors import Forbidden, Unauthorized
from models.settings import Credential


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The caller. `agent_types` `None` means any; `requests_per_minute` `None` means no limit."""

    id: str
    agent_types: frozenset[str] | None
    requests_per_minute: int | None

    def require(self, agent_type: str | None) -> None:
        """Raises `Forbidden` when the caller may not act for this agent type; acting for none is always allowed."""
        if agent_type is not None and self.agent_types is not None and agent_type not in self.agent_types:
            raise Forbidden("this credential does not cover the requested agent type")

    def require_any(self) -> None:
        """Raises `Forbidden` when the caller may act for no agent type at all: such a one changes nothing either."""
        if self.agent_types is not None and not self.agent_types:
            raise Forbidden("this credential covers no agent type, and so may not change customer data")


#: A caller on this machine while no key is configured.
ANONYMOUS = Principal(id="anonymous", agent_types=None, requests_per_minute=None)


class Authenticator:
    """Finds the credential of a bearer key.

    Keys are kept and looked up as SHA-256 digests only, so that neither a memory dump nor the time of a comparison
    tells anything about a key.
    """

    def __init__(self, credentials: Mapping[str, Credential]) -> None:
        self._principals = {
            hashlib.sha256(key.encode()).digest(): Principal(
                id=f"key:{credential.name}",
                agent_types=frozenset(credential.agent_types),
                requests_per_minute=credential.requests_per_minute,
            )
            for key, credential in credentials.items()
        }

    def authenticate(self, *, authorization: bytes | None, client_host: str, host: str) -> Principal:
        """The principal behind an `Authorization` header, or `ANONYMOUS` on loopback while no key is configured.

        Without configured keys a key that is sent anyway opens nothing and harms nothing: many clients cannot leave it
        out. `host` is the request's `Host`: a web page that resolves its own name to 127.0.0.1 sends that name, and is
        no local caller. Raises `Unauthorized`.
        """
        if self._principals and authorization is not None:
            scheme, _, key = authorization.partition(b" ")
            if scheme.lower() != b"bearer" or not key.strip():
                raise Unauthorized("send the key as 'Authorization: Bearer KEY'")
            principal = self._principals.get(hashlib.sha256(key.strip()).digest())
            if principal is None:
                raise Unauthorized("the key is not known")
            return principal
        if self._principals:
            raise Unauthorized("send a key as 'Authorization: Bearer KEY'")
        if not (_is_loopback(client_host) and _is_loopback(_without_port(host))):
            raise Unauthorized("without a configured key only callers on this machine are served")
        return ANONYMOUS


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


@lru_cache(maxsize=256)  # bounded, because a stranger chooses the Host header
def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
