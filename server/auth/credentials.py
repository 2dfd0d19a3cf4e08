"""What a request brings to say who calls, before anything is checked. Pure."""

import hashlib
import hmac
from dataclasses import dataclass, field
from string import hexdigits

from server.auth.tokens import Headers
from server.errors import NotAuthenticated

BEARER, API_KEY = "bearer", "apikey"
KEY_BYTES = 32
"""Of an API key: as many random bytes, written as hexadecimal digits. Whatever else is sent is refused unasked."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """An app token, or an API key; never to be shown."""

    text: str = field(repr=False)
    is_api_key: bool


def read_credentials(headers: Headers) -> Credentials:
    """`X-API-Key` first, then `Authorization: ApiKey …`, then `Authorization: Bearer …`, the scheme in any case.

    An API key may follow `Bearer` as well, since SDKs send theirs so. A wrong `X-API-Key` is not made good by a token
    beside it: who sends two callers' credentials is told about the first. Raises NotAuthenticated.
    """
    if key := (headers.get("X-API-Key") or "").strip():
        return _read_key(key)
    scheme, _, text = (headers.get("Authorization") or "").strip().partition(" ")
    if not scheme:
        raise NotAuthenticated("Missing credentials")
    text = text.strip()
    if scheme.lower() not in {BEARER, API_KEY} or not text:
        raise NotAuthenticated("Unsupported credentials: send Authorization: Bearer <token>, or X-API-Key: <key>")
    if scheme.lower() == API_KEY or _is_key(text):
        return _read_key(text)
    return Credentials(text, is_api_key=False)


def hash_api_key(secret: str, key: str) -> str:
    """What is stored of a key: HMAC-SHA256 in hex, under a secret that the database does not have."""
    return hmac.new(secret.encode(), key.encode(), hashlib.sha256).hexdigest()


def _read_key(text: str) -> Credentials:
    if not _is_key(text):
        raise NotAuthenticated(f"Invalid API key: a key has {2 * KEY_BYTES} hexadecimal digits")
    return Credentials(text, is_api_key=True)


def _is_key(text: str) -> bool:
    return len(text) == 2 * KEY_BYTES and all(character in hexdigits for character in text)
