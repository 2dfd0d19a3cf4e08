"""The app token: a JWT that says who calls and from which device. Pure.

HS256 over the bytes of the secret; claims as the shipped clients have them. A second secret is accepted while one is
being replaced.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol
from uuid import UUID, uuid4

import jwt
import msgspec

from server.errors import NotAuthenticated

ISSUER = "plantocode"
AUDIENCE = "plantocode-api"
SCOPES = "read write rpc"
SECONDS_PER_DAY = 86_400
REMEMBERED_TOKENS = 4096
MAX_TIME = 253_402_300_799
"""The end of the year 9999: later ones are no dates in Python."""


class Headers(Protocol):
    """A request's headers, found by name in any case."""

    def get(self, key: str, /) -> str | None: ...


@dataclass(frozen=True, slots=True)
class AppToken:
    """A token's claims, checked. `device_id` is lower case; `binding` is the hex SHA-256 of the device's id. Times are
    in Unix seconds; `auth_time` is when its user last signed in. `subject` is who that is to the issuer.
    """

    user_id: UUID
    token_id: UUID
    expires_at: float
    device_id: str | None
    binding: str | None
    scopes: frozenset[str]
    session_id: UUID | None = None
    auth_time: float = 0
    subject: str | None = None
    email: str = field(default="", repr=False)
    ip_binding: str | None = None

    @property
    def revocation_id(self) -> UUID:
        """What ends it: all tokens of one sign-in end together."""
        return self.session_id or self.token_id


class _Claims(msgspec.Struct):
    """As they stand in the token. A claim that is null is as good as absent."""

    sub: UUID
    jti: UUID
    iat: int | float
    exp: int | float
    device_id: str | None = None
    tbh: str | None = None
    scope: str | None = None
    session_id: UUID | None = None
    auth_time: int | float | None = None
    auth0_sub: str | None = None
    email: str | None = None
    ip_binding: str | None = None


def issue_token(  # noqa: PLR0913 - one for each thing that a token says
    secret: str,
    *,
    user_id: UUID,
    email: str,
    role: str,
    device_id: UUID | str | None,
    now: float,
    days: float,
    session_id: UUID | None = None,
    auth_time: float | None = None,
    subject: str | None = None,
) -> str:
    """A token bound to the device, if there is one. Times are in Unix seconds; `auth_time` None is now."""
    device = None if device_id is None else str(device_id).lower()
    claims: dict[str, Any] = {
        "sub": str(user_id),
        "iat": int(now),
        "exp": int(now + days * SECONDS_PER_DAY),
        "iss": ISSUER,
        "aud": AUDIENCE,
        "email": email,
        "role": role,
        "auth0_sub": subject,
        "jti": str(uuid4()),
        "device_id": device,
        "tbh": None if device is None else hash_binding(device),
        "scope": SCOPES,
        "session_id": None if session_id is None else str(session_id),
        "ip_binding": None,
        "auth_time": int(now if auth_time is None else auth_time),
    }
    return jwt.encode(claims, secret, algorithm="HS256")


def read_token(secrets: Sequence[str], text: str, *, grace_seconds: float = 0) -> AppToken:
    """The claims of a token signed with one of the secrets. Raises NotAuthenticated.

    Expiry has no leeway: a client that is told a time can rely on it. With a grace, a token counts for that much
    longer.
    """
    token = _read_signed(tuple(secrets), text)
    if token.expires_at + grace_seconds <= time.time():
        raise NotAuthenticated("Token expired")
    return token


@lru_cache(maxsize=REMEMBERED_TOKENS)
def _read_signed(secrets: tuple[str, ...], text: str) -> AppToken:
    """Remembered by its whole text: a client sends the same token with every request, and checking it costs 150 µs."""
    try:
        claims = msgspec.convert(_decode(secrets, text), _Claims)
        return AppToken(
            user_id=claims.sub,
            token_id=claims.jti,
            expires_at=_read_time(claims.exp),
            device_id=_lower(claims.device_id),
            binding=_lower(claims.tbh),
            scopes=frozenset((claims.scope or "").split()),
            session_id=claims.session_id,
            auth_time=_read_time(claims.iat if claims.auth_time is None else claims.auth_time),
            subject=_read_text(claims.auth0_sub) or None,
            email=_read_text(claims.email),
            ip_binding=claims.ip_binding,
        )
    except (ValueError, OverflowError) as error:
        raise NotAuthenticated("Invalid token") from error


def check_device(token: AppToken, headers: Headers) -> None:
    """Raise NotAuthenticated unless the request comes from the token's device.

    The desktop searches these very messages. It also calls some routes without `X-Token-Binding`; since the binding's
    value is the device's id, `X-Device-ID` proves the same.
    """
    device_id = headers.get("X-Device-ID")
    if token.device_id is not None:
        if device_id is None:
            raise NotAuthenticated("Missing X-Device-ID header for device-bound token")
        if device_id.lower() != token.device_id:
            raise NotAuthenticated("Device ID mismatch")
    if token.binding is not None:
        proof = headers.get("X-Token-Binding") or device_id
        if proof is None or hash_binding(proof) != token.binding:
            raise NotAuthenticated("Token binding validation failed")


def hash_binding(device_id: str) -> str:
    return hashlib.sha256(device_id.lower().encode()).hexdigest()


def _decode(secrets: Sequence[str], text: str) -> dict[str, Any]:
    """Everything but the expiry, which changes by itself; a clock ahead of ours is forgiven."""
    failure: Exception | None = None
    for secret in secrets:
        try:
            return jwt.decode(
                text,
                secret,
                algorithms=["HS256"],
                issuer=ISSUER,
                audience=AUDIENCE,
                options={
                    "require": ["sub", "exp", "iat", "iss", "aud", "jti"],
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
        except jwt.InvalidSignatureError as error:
            failure = error
        except jwt.InvalidTokenError as error:
            raise NotAuthenticated("Invalid token") from error
    raise NotAuthenticated("Invalid token") from failure


def _lower(claim: str | None) -> str | None:
    return None if claim is None else claim.lower()


def _read_time(claim: float) -> float:
    """Whole seconds. Raises ValueError or OverflowError for what is no date."""
    seconds = int(claim)
    if not 0 <= seconds <= MAX_TIME:
        raise ValueError("no date")
    return float(seconds)


def _read_text(claim: str | None) -> str:
    """Raises ValueError for what no column can hold: a NUL, or half a character."""
    if claim is not None and b"\x00" in claim.encode():
        raise ValueError("no text")
    return claim or ""
