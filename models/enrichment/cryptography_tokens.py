"""Tokens that stand for a value and can be turned back by whoever holds the key."""

from __future__ import annotations

import base64
import binascii

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from models.errors import InvalidRequest

_PREFIX = "tok_"
_PURPOSE = b"rapport context tokens 1"


class Tokeniser:
    """AES-SIV (RFC 5297) under a 512-bit key that HKDF (RFC 5869) derives from the secret for this purpose alone.

    The same value always gives the same token, so tokens can be compared; a token that was altered is refused.
    """

    def __init__(self, secret: str) -> None:
        key = HKDF(algorithm=SHA256(), length=64, salt=None, info=_PURPOSE).derive(secret.encode())
        self._cipher = AESSIV(key)

    def tokenise(self, value: str) -> str:
        """`tok_` and URL-safe base64; `value` must not be empty."""
        sealed = self._cipher.encrypt(value.encode(), None)
        return _PREFIX + base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def detokenise(self, token: str) -> str:
        """The value. Raises `InvalidRequest` for anything that this secret did not make."""
        encoded = token.removeprefix(_PREFIX)
        if encoded == token:
            raise InvalidRequest("not a token")
        try:
            sealed = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
            return self._cipher.decrypt(sealed, None).decode()
        except (binascii.Error, ValueError, InvalidTag) as exc:
            raise InvalidRequest("not a token of ours") from exc
