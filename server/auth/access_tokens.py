"""An access token of the issuer, checked by its signature and its claims. Pure.

Which claims there are: RFC 9068, and Auth0's own profile, which has `azp` where the RFC has `client_id`
(https://auth0.com/docs/secure/tokens/access-tokens/access-token-profiles).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from server.auth.settings import SignInSettings
from server.errors import NotAuthenticated

ALGORITHM = "RS256"
LEEWAY_SECONDS = 60
MAX_KEY_ID_CHARACTERS = 200
MAX_SUBJECT_CHARACTERS = 255
"""OpenID Connect Core 1.0, section 2."""
MAX_EMAIL_CHARACTERS = 320
MAX_NAME_CHARACTERS = 200

REFUSED = "the issuer's token does not hold: sign in again"
"""Said whatever is wrong with a token: who makes one up learns nothing from it."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Who somebody is, by the issuer's word."""

    subject: str
    email: str | None = field(repr=False)
    email_verified: bool
    name: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token of the issuer, verified: for our API, from one of our apps. Times in Unix seconds.

    `profile` is there if the token itself carries it (RFC 9068, 2.2.2).
    """

    text: str = field(repr=False)
    subject: str
    client_id: str | None
    issued_at: float
    expires_at: float
    profile: Profile | None


def read_key_id(text: str) -> str:
    """The key that a token says it is signed with; nothing is checked yet but that it could hold. Raises
    NotAuthenticated.
    """
    try:
        header = jwt.get_unverified_header(text)
    except (jwt.InvalidTokenError, ValueError) as error:
        raise NotAuthenticated(REFUSED) from error
    key_id = header.get("kid")
    if header.get("alg") != ALGORITHM or not isinstance(key_id, str) or len(key_id) > MAX_KEY_ID_CHARACTERS:
        raise NotAuthenticated(REFUSED)
    return key_id


def verify_access_token(settings: SignInSettings, key: RSAPublicKey, text: str) -> AccessToken:
    """Raises NotAuthenticated. The only algorithm is ours to choose, never the token's (RFC 8725, 3.1)."""
    claims = _decode(settings, key, text)
    subject = claims["sub"]
    if not _is_subject(subject):
        raise NotAuthenticated(REFUSED)
    return AccessToken(
        text=text,
        subject=subject,
        client_id=_read_client(settings, claims),
        issued_at=_read_time(claims["iat"]),
        expires_at=_read_time(claims["exp"]),
        profile=build_profile(subject, claims) if _carries_profile(claims) else None,
    )


def build_profile(subject: str, claims: Mapping[str, object]) -> Profile:
    """Of a token's claims, or of what userinfo says. An address is verified if that is `true`, no word for it."""
    return Profile(
        subject=subject,
        email=_read_email(claims.get("email")),
        email_verified=claims.get("email_verified") is True,
        name=_read_name(claims.get("name")),
    )


def _decode(settings: SignInSettings, key: RSAPublicKey, text: str) -> dict[str, Any]:
    try:
        return jwt.decode(
            text,
            key,
            algorithms=[ALGORITHM],
            issuer=settings.issuer,
            audience=settings.audience,
            leeway=LEEWAY_SECONDS,
            options={"require": ["sub", "iss", "aud", "iat", "exp"]},
        )
    except jwt.InvalidTokenError as error:
        raise NotAuthenticated(REFUSED) from error


def _read_time(claim: float) -> float:
    """PyJWT has seen that it is a number; it may still be one that no clock shows."""
    try:
        return float(claim)
    except OverflowError as error:
        raise NotAuthenticated(REFUSED) from error


def _is_subject(subject: object) -> bool:
    return isinstance(subject, str) and 0 < len(subject) <= MAX_SUBJECT_CHARACTERS and subject.isprintable()


def _read_client(settings: SignInSettings, claims: Mapping[str, object]) -> str | None:
    """Whom the token was issued to: one of our apps, or this server, which refreshes in their place.

    An API may have other apps than ours at the issuer; their tokens have our audience, and don't sign in here.
    """
    named = [claims[name] for name in ("azp", "client_id") if claims.get(name) is not None]
    ours = {*settings.client_ids, settings.server_client_id}
    if not all(isinstance(client, str) and client in ours for client in named):
        raise NotAuthenticated(REFUSED)
    return str(named[0]) if named else None


def _carries_profile(claims: Mapping[str, object]) -> bool:
    return isinstance(claims.get("email"), str) and isinstance(claims.get("email_verified"), bool)


def _read_email(claim: object) -> str | None:
    """What can be no address counts as none."""
    if not isinstance(claim, str):
        return None
    email = claim.strip()
    is_address = "@" in email and email.isprintable() and " " not in email and len(email) <= MAX_EMAIL_CHARACTERS
    return email if is_address else None


def _read_name(claim: object) -> str | None:
    """For people to read: what no screen shows is left out."""
    if not isinstance(claim, str):
        return None
    return "".join(letter for letter in claim if letter.isprintable()).strip()[:MAX_NAME_CHARACTERS] or None
