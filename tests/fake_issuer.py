"""A fake OpenID provider over a real socket, in the place of Auth0: it publishes keys, knows people and signs tokens.

    async with open_fake_issuer() as issuer, open_openid_provider(issuer.build_settings()) as provider:
        token = issuer.sign(sub="auth0|ann")
        await provider.verify(token)
        assert issuer.count("jwks") == 1

    issuer.answers["userinfo"] = response(500, b"")           # from now on; any script of tests/fakes.py
"""

import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import RSAAlgorithm

from server.auth.settings import SignInSettings
from tests.fakes import FakeUpstream, RecordedRequest, Step, open_fake_upstream, response

AUDIENCE, CLIENT_ID = "https://api.example.com", "native-app"
SUBJECT, EMAIL = "auth0|ann", "ann@example.com"

PATHS = {
    "discovery": "/.well-known/openid-configuration",
    "jwks": "/.well-known/jwks.json",
    "userinfo": "/userinfo",
    "token": "/oauth/token",
    "revoke": "/oauth/revoke",
}


@dataclass(slots=True)
class FakeIssuer:
    """`answers` has scripts for what is to answer otherwise than it should, by the names in PATHS.

    `people` are userinfo's answers by subject; `refresh_tokens` those that it honours, with their subjects. A token
    endpoint that is asked with one rotates it.
    """

    upstream: FakeUpstream
    key_ids: list[str] = field(default_factory=lambda: ["key-1"])
    answers: dict[str, Iterable[Step]] = field(default_factory=dict)
    people: dict[str, dict[str, Any]] = field(default_factory=dict)
    refresh_tokens: dict[str, str] = field(default_factory=dict)
    discovery: dict[str, Any] = field(default_factory=dict)
    """Members that are to differ."""
    extra_keys: list[Mapping[str, Any]] = field(default_factory=list)
    """Published before ours."""

    @property
    def issuer(self) -> str:
        return f"{self.upstream.url}/"

    def build_settings(self, **changes: Any) -> SignInSettings:
        return build_settings(self.issuer, **changes)

    def count(self, name: str) -> int:
        """How often an endpoint was asked."""
        return sum(request.path == PATHS[name] for request in self.upstream.requests)

    def find_requests(self, name: str) -> list[RecordedRequest]:
        return [request for request in self.upstream.requests if request.path == PATHS[name]]

    def build_claims(self, **changes: Any) -> dict[str, Any]:
        """Of a good token. A change to None leaves a claim out."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": SUBJECT,
            "aud": [AUDIENCE, f"{self.upstream.url}/userinfo"],
            "azp": CLIENT_ID,
            "iat": now,
            "exp": now + 86_400,
            "scope": "openid profile email",
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def sign(self, *, key_id: str | None = None, **changes: Any) -> str:
        """An access token, of whatever claims, signed with a key that need not be published."""
        name = key_id or self.key_ids[0]
        return self.sign_with(build_key(name), name, **changes)

    def sign_with(self, key: RSAPrivateKey, key_id: str, **changes: Any) -> str:
        return jwt.encode(self.build_claims(**changes), key, algorithm="RS256", headers={"kid": key_id})

    def respond(self, request: RecordedRequest) -> Iterable[Step]:
        path = request.path.partition("?")[0]
        name = next((name for name, place in PATHS.items() if place == path), "")
        return self.answers[name] if name in self.answers else self._answer(name, request)

    def _answer(self, name: str, request: RecordedRequest) -> Iterable[Step]:
        match name:
            case "discovery":
                return as_json(200, self._discover())
            case "jwks":
                return as_json(200, {"keys": [*self.extra_keys, *(build_jwk(key_id) for key_id in self.key_ids)]})
            case "userinfo":
                return self._show_user(request)
            case "token":
                return self._refresh(read_form(request))
            case "revoke":
                self.refresh_tokens.pop(read_form(request).get("token", ""), None)
                return response(200, b"")
        return response(404, b"")

    def _discover(self) -> dict[str, Any]:
        url = self.upstream.url
        document = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{url}/authorize",
            "token_endpoint": url + PATHS["token"],
            "jwks_uri": url + PATHS["jwks"],
            "userinfo_endpoint": url + PATHS["userinfo"],
            "revocation_endpoint": url + PATHS["revoke"],
            **self.discovery,
        }
        return {name: value for name, value in document.items() if value is not None}

    def _show_user(self, request: RecordedRequest) -> Iterable[Step]:
        text = request.headers.get("authorization", "").removeprefix("Bearer ")
        try:
            subject = jwt.decode(text, options={"verify_signature": False})["sub"]
        except jwt.InvalidTokenError:
            return as_json(401, {"error": "invalid_token"})
        person = {"sub": subject, "email": EMAIL, "email_verified": True, "name": "Ann"}
        return as_json(200, self.people.get(subject, person))

    def _refresh(self, form: Mapping[str, str]) -> Iterable[Step]:
        subject = self.refresh_tokens.pop(form.get("refresh_token", ""), None)
        if form.get("grant_type") != "refresh_token" or subject is None:
            return as_json(403, {"error": "invalid_grant", "error_description": "Unknown or invalid refresh token."})
        rotated = f"refresh-{len(self.upstream.requests)}"
        self.refresh_tokens[rotated] = subject
        token = self.sign(sub=subject, azp=form.get("client_id"))
        return as_json(200, {"access_token": token, "refresh_token": rotated, "token_type": "Bearer"})


@asynccontextmanager
async def open_fake_issuer() -> AsyncIterator[FakeIssuer]:
    fake = FakeIssuer(FakeUpstream(""))
    async with open_fake_upstream(fake.respond) as fake.upstream:
        yield fake


def build_settings(issuer: str, **changes: Any) -> SignInSettings:
    settings: dict[str, Any] = {
        "issuer": issuer,
        "is_local": False,
        "audience": AUDIENCE,
        "client_ids": frozenset({CLIENT_ID}),
        "callback_urls": ("http://127.0.0.1:8080/auth/auth0/callback",),
        "website_url": None,
        "asks_for_refresh_token": False,
        "server_client_id": None,
        "server_client_secret": None,
        "refresh_token_key": None,
        "login_max_age_days": 30.0,
        "refresh_grace_days": 7.0,
        "signup_credits_usd": Decimal("2.00"),
    }
    return SignInSettings(**(settings | changes))


def build_key(name: str, bits: int = 2048) -> RSAPrivateKey:
    """A key for each name, the same for the whole run: making one takes a tenth of a second."""
    return _build_key(name, bits)


@lru_cache
def _build_key(_name: str, bits: int) -> RSAPrivateKey:
    return generate_private_key(65537, bits)


def build_jwk(name: str, bits: int = 2048) -> dict[str, Any]:
    return {**RSAAlgorithm.to_jwk(build_key(name, bits).public_key(), as_dict=True), "kid": name, "use": "sig"}


def build_pem(name: str) -> bytes:
    """A public key as text, for those who sign with it as if it were a secret."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return build_key(name).public_key().public_bytes(serialization.Encoding.PEM, form)


def as_json(status: int, body: object) -> list[Step]:
    return response(status, json.dumps(body).encode())


def read_form(request: RecordedRequest) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
