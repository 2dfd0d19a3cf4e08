"""A local OpenID provider for development: it signs in whoever says who they are, by the same protocol as Auth0."""

import hashlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jwt
import msgspec
import trio
from coredis.tokens import PureToken
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import RSAAlgorithm

from server.auth.local_requests import Authorization, GrantRefused, Person, check_client, is_verified_by
from server.auth.settings import SignInSettings
from server.errors import NotAuthenticated
from storage.redis import Redis, command

KEY_BITS = 2048
CODE_SECONDS = 60
ACCESS_SECONDS = 86_400
GRANT_SECONDS = 30 * 86_400
"""How long a grant can be refreshed after it was last; and how long what was used once is remembered for."""
SPENT, ENDED = b"spent", b"ended"
SIGNING_KEY = "local-issuer:key"


class Grant(msgspec.Struct, frozen=True):
    """What somebody has allowed an app, once. Its tokens end with it."""

    client_id: str
    subject: str
    email: str
    name: str
    scopes: tuple[str, ...]


class IssuedCode(msgspec.Struct, frozen=True):
    grant: Grant
    redirect_uri: str
    challenge: str
    nonce: str


@dataclass(frozen=True, slots=True)
class SigningKey:
    key_id: str
    private: RSAPrivateKey = field(repr=False)

    def sign(self, claims: Mapping[str, object]) -> str:
        return jwt.encode(dict(claims), self.private, algorithm="RS256", headers={"kid": self.key_id})


@dataclass(frozen=True, slots=True)
class LocalIssuer:
    """What it remembers (its key, codes, refresh tokens) is in Redis, so that any worker can answer. Every method that
    waits raises RedisUnavailable.
    """

    settings: SignInSettings
    redis: Redis

    async def list_keys(self) -> dict[str, object]:
        """The public half, as RFC 7517 has it."""
        key = await self._read_key()
        public = RSAAlgorithm.to_jwk(key.private.public_key(), as_dict=True)
        return {"keys": [{**public, "kid": key.key_id, "use": "sig", "alg": "RS256"}]}

    async def issue_code(self, wanted: Authorization, person: Person) -> str:
        """For one exchange, within a minute."""
        code = secrets.token_urlsafe(32)
        grant = Grant(wanted.client_id, person.subject, person.email, person.name, wanted.scopes)
        issued = IssuedCode(grant, wanted.redirect_uri, wanted.challenge, wanted.nonce)
        await command(self.redis.set(_code_key(code), msgspec.json.encode(issued), ex=CODE_SECONDS))
        return code

    async def issue_tokens(self, form: Mapping[str, str]) -> dict[str, object]:
        """What the token endpoint answers (RFC 6749, 5.1). Raises GrantRefused."""
        client_id = check_client(self.settings, form)
        match form.get("grant_type"):
            case "authorization_code":
                return await self._exchange(client_id, form)
            case "refresh_token":
                return await self._refresh(client_id, form.get("refresh_token", ""))
        raise GrantRefused("unsupported_grant_type", "grant_type must be authorization_code or refresh_token")

    async def find_user(self, access_token: str) -> dict[str, object]:
        """What userinfo answers: of what the scopes allow. Raises NotAuthenticated."""
        key = await self._read_key()
        try:
            claims = jwt.decode(
                access_token,
                key.private.public_key(),
                algorithms=["RS256"],
                issuer=self.settings.issuer,
                audience=self._userinfo_url,
                options={"require": ["sub", "exp", "grant"]},
            )
        except (jwt.InvalidTokenError, ValueError) as error:
            raise NotAuthenticated("the access token does not hold") from error
        grant = await self._find_grant(str(claims["grant"]))
        if grant is None:
            raise NotAuthenticated("the access token was revoked")
        return _describe(grant)

    async def revoke(self, form: Mapping[str, str]) -> None:
        """End a refresh token and all that came of the same grant. One that is not there is revoked already (RFC 7009,
        2.2). Raises GrantRefused if the app is none of ours.
        """
        client_id = check_client(self.settings, form)
        token = form.get("token", "")
        grant_id = _grant_id_of(token)
        grant = await self._find_grant(grant_id)
        is_ours = grant is not None and grant.client_id == client_id
        if is_ours and await command(self.redis.exists([_refresh_key(token)])) > 0:
            await self._end(grant_id)

    async def _exchange(self, client_id: str, form: Mapping[str, str]) -> dict[str, object]:
        """A code counts once, also if the rest does not fit. Who brings one again may have stolen it, or the one before
        may: what it gave ends (RFC 6749, 4.1.2).
        """
        code = form.get("code", "")
        grant_id = _hash(code)
        found = await self._spend(_code_key(code))
        if found == SPENT:
            await self._end(grant_id)
        if found is None or found == SPENT:
            raise GrantRefused("invalid_grant", "the code is unknown, over, or was used before")
        issued = msgspec.json.decode(found, type=IssuedCode)
        if (issued.grant.client_id, issued.redirect_uri) != (client_id, form.get("redirect_uri")):
            raise GrantRefused("invalid_grant", "the code is another app's, or was sent elsewhere")
        if not is_verified_by(issued.challenge, form.get("code_verifier", "")):
            raise GrantRefused("invalid_grant", "code_verifier does not fit the code_challenge")
        return await self._issue(grant_id, issued.grant, issued.nonce)

    async def _refresh(self, client_id: str, token: str) -> dict[str, object]:
        """A refresh token counts once, too: the next one comes with the answer (RFC 9700, 4.14.2)."""
        grant_id = _grant_id_of(token)
        grant = await self._find_grant(grant_id)
        if grant is None or grant.client_id != client_id:
            raise GrantRefused("invalid_grant", "the refresh token is unknown, over, or another app's")
        found = await self._spend(_refresh_key(token))
        if found == SPENT:
            await self._end(grant_id)
        if found is None or found == SPENT:
            raise GrantRefused("invalid_grant", "the refresh token is unknown, or was used before")
        return await self._issue(grant_id, grant)

    async def _issue(self, grant_id: str, grant: Grant, nonce: str = "") -> dict[str, object]:
        """Nothing, if the grant was ended meanwhile."""
        if not await self._keep(grant_id, grant):
            raise GrantRefused("invalid_grant", "what this belongs to has ended")
        now, key = int(time.time()), await self._read_key()
        about = {"iss": self.settings.issuer, "sub": grant.subject, "iat": now, "exp": now + ACCESS_SECONDS}
        scope, audiences = " ".join(grant.scopes), [self.settings.audience, self._userinfo_url]
        access = {"aud": audiences, "azp": grant.client_id, "scope": scope, "grant": grant_id}
        identity = {"aud": grant.client_id, **_describe(grant), **({"nonce": nonce} if nonce else {})}
        answer: dict[str, object] = {
            "access_token": key.sign({**about, **access, "jti": secrets.token_hex(16)}),
            "id_token": key.sign({**about, **identity}),
            "token_type": "Bearer",
            "expires_in": ACCESS_SECONDS,
            "scope": scope,
        }
        if "offline_access" in grant.scopes:
            answer["refresh_token"] = await self._issue_refresh_token(grant_id)
        return answer

    async def _issue_refresh_token(self, grant_id: str) -> str:
        token = f"{grant_id}.{secrets.token_urlsafe(32)}"
        await command(self.redis.set(_refresh_key(token), b"+", ex=GRANT_SECONDS))
        return token

    async def _spend(self, key: str) -> bytes | None:
        """The value, for whoever comes first; SPENT for all who come later; None if there is none."""
        found = await command(self.redis.set(key, SPENT, condition=PureToken.XX, get=True, ex=GRANT_SECONDS))
        return found if isinstance(found, bytes) else None

    async def _keep(self, grant_id: str, grant: Grant) -> bool:
        """For as long as a token of it can be of use. False if it has ended: that is never written over."""
        key = _grant_key(grant_id)
        await command(self.redis.set(key, msgspec.json.encode(grant), condition=PureToken.NX, ex=GRANT_SECONDS))
        await command(self.redis.expire(key, GRANT_SECONDS))
        return await self._find_grant(grant_id) is not None

    async def _end(self, grant_id: str) -> None:
        await command(self.redis.set(_grant_key(grant_id), ENDED, ex=GRANT_SECONDS))

    async def _find_grant(self, grant_id: str) -> Grant | None:
        found = await command(self.redis.get(_grant_key(grant_id)))
        return None if found is None or found == ENDED else msgspec.json.decode(found, type=Grant)

    async def _read_key(self) -> SigningKey:
        """Made by whoever needs it first; of two who make one at once, one wins."""
        text = await command(self.redis.get(SIGNING_KEY))
        if text is None:
            made = await trio.to_thread.run_sync(_make_key)
            await command(self.redis.set(SIGNING_KEY, made, condition=PureToken.NX))
            text = await command(self.redis.get(SIGNING_KEY)) or made
        return await trio.to_thread.run_sync(_load_key, text)

    @property
    def _userinfo_url(self) -> str:
        return f"{self.settings.issuer}userinfo"


def _describe(grant: Grant) -> dict[str, object]:
    """Nobody asks whether the address is theirs: here it counts as verified, and so do developers."""
    claims: dict[str, object] = {"sub": grant.subject}
    if "email" in grant.scopes:
        claims |= {"email": grant.email, "email_verified": True}
    if "profile" in grant.scopes and grant.name:
        claims["name"] = grant.name
    return claims


def _make_key() -> bytes:
    private = generate_private_key(65537, KEY_BITS)
    form = serialization.PrivateFormat.PKCS8
    return private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


@lru_cache(maxsize=1)
def _load_key(text: bytes) -> SigningKey:
    private: Any = serialization.load_pem_private_key(text, None)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public = private.public_key().public_bytes(serialization.Encoding.DER, form)
    return SigningKey(hashlib.sha256(public).hexdigest()[:16], private)


def _grant_id_of(refresh_token: str) -> str:
    return refresh_token.partition(".")[0][:64]


def _code_key(code: str) -> str:
    return f"local-issuer:code:{_hash(code)}"


def _refresh_key(token: str) -> str:
    return f"local-issuer:refresh:{_hash(token)}"


def _grant_key(grant_id: str) -> str:
    return f"local-issuer:grant:{grant_id}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
