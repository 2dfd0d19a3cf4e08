"""The caller of a request: found from its credentials, or refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from server.auth.tokens import AppToken, Headers, check_device, read_token
from server.errors import NotAllowed, NotAuthenticated
from storage.tokens import Tokens

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. Identity and role are those of the user's row, not of the token, which may be older than a change."""

    user_id: UUID
    email: str
    role: str
    device_id: str | None
    token_id: UUID


@dataclass(frozen=True, slots=True)
class Callers:
    """Finds callers. `secrets` are those that app tokens may be signed with, the current one first."""

    tokens: Tokens
    secrets: Sequence[str]

    async def find(self, method: str, headers: Headers) -> Caller:
        """Raises NotAuthenticated or NotAllowed for the caller's faults, RedisUnavailable or DatabaseUnavailable for
        ours.
        """
        token = read_token(self.secrets, read_bearer(headers))
        check_device(token, headers)
        check_scopes(token, method)
        user = await self.tokens.find_user(token.user_id, token.token_id)
        if user is None:
            raise NotAuthenticated("Token revoked or user unknown")
        return Caller(user.id, user.email, user.role, token.device_id, token.token_id)


def read_bearer(headers: Headers) -> str:
    """The token of `Authorization: Bearer …`, the scheme in any case."""
    scheme, _, text = (headers.get("Authorization") or "").partition(" ")
    if not scheme:
        raise NotAuthenticated("Missing credentials")
    if scheme.lower() != "bearer" or not text.strip():
        raise NotAuthenticated("Unsupported credentials: send Authorization: Bearer <token>")
    return text.strip()


def check_scopes(token: AppToken, method: str) -> None:
    needed = {"read"} if method in SAFE_METHODS else {"read", "write"}
    if not needed <= token.scopes:
        raise NotAllowed(f"the token lacks the scope {' '.join(sorted(needed - token.scopes))}")
