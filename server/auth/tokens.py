"""The app token: a JWT that says who calls and from which device. Pure.

HS256 over the bytes of the secret; claims as the shipped clients have them. A second secret is accepted while one is
being replaced.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol
from uuid import UUID, uuid4

import jwt

from server.errors import NotAuthenticated

ISSUER = "plantocode"
AUDIENCE = "plantocode-api"
SCOPES = "read write rpc"
SECONDS_PER_DAY = 86_400
REMEMBERED_TOKENS = 4096


class Headers(Protocol):
    """A request's headers, found by name in any case."""

    def get(self, key: str, /) -> str | None: ...


@dataclass(frozen=True, slots=True)
class AppToken:
    """A token's claims, checked. `device_id` is lower case; `binding` is the hex SHA-256 of the device's id."""

    user_id: UUID
    token_id: UUID
    expires_at: float
    device_id: str | None
    binding: str | None
    scopes: frozenset[str]


def issue_token(
    secret: str, *, user_id: UUID, email: str, role: str, device_id: UUID | None, now: float, days: float
) -> str:
    """A token bound to the device, if there is one."""
    device = None if device_id is None else str(device_id)
    claims: dict[str, Any] = {
        "sub": str(user_id),
        "iat": int(now),
        "exp": int(now + days * SECONDS_PER_DAY),
        "iss": ISSUER,
        "aud": AUDIENCE,
        "email": email,
        "role": role,
        "auth0_sub": None,
        "jti": str(uuid4()),
        "device_id": device,
        "tbh": None if device is None else hash_binding(device),
        "scope": SCOPES,
        "session_id": None,
        "ip_binding": None,
    }
    return jwt.encode(claims, secret, algorithm="HS256")


def read_token(secrets: Sequence[str], text: str) -> AppToken:
    """The claims of a token signed with one of the secrets. Raises NotAuthenticated.

    Expiry has no leeway: a client that is told a time can rely on it.
    """
    token = _read_signed(tuple(secrets), text)
    if token.expires_at <= time.time():
        raise NotAuthenticated("Token expired")
    return token


@lru_cache(maxsize=REMEMBERED_TOKENS)
def _read_signed(secrets: tuple[str, ...], text: str) -> AppToken:
    """Remembered by its whole text: a client sends the same token with every request, and checking it costs 150 µs."""
    claims = _decode(secrets, text)
    try:
        return AppToken(
            user_id=UUID(claims["sub"]),
            token_id=UUID(claims["jti"]),
            expires_at=float(int(claims["exp"])),
            device_id=_lower(claims.get("device_id")),
            binding=_lower(claims.get("tbh")),
            scopes=frozenset(str(claims.get("scope") or "").split()),
        )
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
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


def _lower(claim: object) -> str | None:
    return None if claim is None else str(claim).lower()
