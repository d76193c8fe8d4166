"""Whether the API may listen where it does: beyond loopback, or outside development, callers need keys."""

from __future__ import annotations

import ipaddress

from ray.serve.context import _get_global_client

from models.errors import ConfigurationError
from models.settings import Settings

PUBLIC_SALT = "rapport"


def check_exposure(settings: Settings, host: str) -> None:
    """Raises `ConfigurationError` when the API would be open to others without keys, or hash ids with a known salt."""
    exposed = not _is_loopback(host) or settings.environment != "development"
    if exposed and not settings.ingress.api_keys:
        raise ConfigurationError(
            "RAPPORT_INGRESS__API_KEYS: must be set when the API listens beyond loopback or outside development; "
            'for example {"a-long-random-key": {"name": "support", "agent_types": ["support"]}}'
        )
    if exposed and settings.hash_salt.get_secret_value() == PUBLIC_SALT:
        raise ConfigurationError("RAPPORT_HASH_SALT: must be a secret of your own beyond loopback or development")


def check_entrance(settings: Settings) -> None:
    """`check_exposure` for the address that Serve really listens on, asked by every HTTP entrance before it serves.

    Behind HAProxy every caller looks local, so the address of the entrance decides, not that of the caller.
    """
    client = _get_global_client()
    if client is None:
        raise ConfigurationError("an HTTP entrance needs a running Serve")
    check_exposure(settings, client.http_config.host or "0.0.0.0")  # noqa: S104  # Serve's own default


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
