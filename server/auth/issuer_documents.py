"""What an issuer publishes of itself: where it is asked (discovery), and the keys that it signs with. Pure.

https://openid.net/specs/openid-connect-discovery-1_0.html and RFC 7517.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import RSAAlgorithm

from server.auth.settings import SignInSettings
from server.errors import IssuerUnavailable
from server.settings import is_loopback

MIN_KEY_BITS, MAX_KEY_BITS = 2048, 8192
"""RFC 7518, 3.3, asks for the smaller; a larger one than the other would cost milliseconds for each token."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Each may have a query, as RFC 6749, 3.1, allows. `revocation` is there whether it was published or not."""

    authorization: str
    token: str
    keys: str
    userinfo: str
    revocation: str


@dataclass(frozen=True, slots=True)
class Published:
    """`keys` by their ids: those that RS256 is verified with."""

    endpoints: Endpoints
    keys: Mapping[str, RSAPublicKey]


class _Discovery(msgspec.Struct):
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str
    revocation_endpoint: str | None = None


class _KeySet(msgspec.Struct):
    keys: list[msgspec.Raw]


class _Key(msgspec.Struct):
    kty: str
    kid: str
    n: str
    e: str
    use: str = "sig"
    alg: str = "RS256"


def discovery_url(issuer: str) -> str:
    return f"{issuer.rstrip('/')}/.well-known/openid-configuration"


def read_endpoints(settings: SignInSettings, body: bytes) -> Endpoints:
    """Raises IssuerUnavailable, also if the document is another issuer's: section 4.3 wants it to be exactly ours."""
    found = decode(body, _Discovery)
    if found.issuer != settings.issuer:
        raise IssuerUnavailable("the issuer's discovery document names another issuer: check AUTH0_DOMAIN")
    revocation = found.revocation_endpoint or f"{settings.issuer.rstrip('/')}/oauth/revoke"
    endpoints = Endpoints(
        found.authorization_endpoint, found.token_endpoint, found.jwks_uri, found.userinfo_endpoint, revocation
    )
    urls = (endpoints.authorization, endpoints.token, endpoints.keys, endpoints.userinfo, endpoints.revocation)
    if not all(_is_endpoint(url, may_be_plain=_may_be_plain(settings)) for url in urls):
        raise IssuerUnavailable("the issuer's discovery document has an endpoint that is no https URL")
    return endpoints


def read_keys(body: bytes) -> dict[str, RSAPublicKey]:
    """Keys of other kinds are no concern of ours, nor is a broken one. Raises IssuerUnavailable if none is left."""
    found = [_read_key(raw) for raw in decode(body, _KeySet).keys]
    keys = dict(pair for pair in found if pair is not None)
    if not keys:
        raise IssuerUnavailable("the issuer publishes no key for RS256")
    return keys


def decode(body: bytes, type_: type[T]) -> T:
    """JSON of the issuer. Raises IssuerUnavailable."""
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IssuerUnavailable("the issuer's answer is not what its protocol says") from error


def _read_key(raw: msgspec.Raw) -> tuple[str, RSAPublicKey] | None:
    try:
        found = msgspec.json.decode(raw, type=_Key)
        if (found.kty, found.use, found.alg) != ("RSA", "sig", "RS256"):
            return None
        key = RSAAlgorithm.from_jwk({"kty": "RSA", "n": found.n, "e": found.e})
    except (msgspec.DecodeError, jwt.InvalidKeyError, ValueError, TypeError):
        return None
    if not isinstance(key, RSAPublicKey) or not MIN_KEY_BITS <= key.key_size <= MAX_KEY_BITS:
        return None
    return found.kid, key


def _may_be_plain(settings: SignInSettings) -> bool:
    """Only where the issuer is on this machine: our own stand-in, or one that a developer runs."""
    return settings.is_local or (settings.issuer.startswith("http://") and is_loopback(settings.issuer))


def _is_endpoint(url: str, *, may_be_plain: bool) -> bool:
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port, or of brackets that do not match
        return False
    is_clean = url.isascii() and url.isprintable() and " " not in url and "@" not in parts.netloc and "#" not in url
    return has_host and is_clean and (parts.scheme == "https" or (may_be_plain and parts.scheme == "http"))
