"""One attempt to sign in, in the manner of either shipped app: what it makes, sends and checks."""

import base64
import hashlib
import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import httpx2

from tests.end_to_end.cloche import SIGN_IN

DEVELOPMENT = {
    "ENVIRONMENT": "development",
    **dict.fromkeys(SIGN_IN.keys() - {"SERVER_URL"}, ""),
    "REFRESH_TOKEN_ENCRYPTION_KEY": "5e" * 32,
}
"""Settings of a server that signs people in by itself, as ./scripts/run starts it."""

LETTERS_AND_DIGITS = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class Issuer:
    """What an app is built with, and its server is told. At `token_url` the app exchanges its codes, by itself."""

    url: str
    token_url: str
    client_id: str
    audience: str

    @property
    def settings(self) -> dict[str, str]:
        """Of a server that signs people in with it."""
        return {
            "AUTH0_ISSUER_URL": self.url,
            "AUTH0_API_AUDIENCE": self.audience,
            "AUTH0_NATIVE_CLIENT_ID": self.client_id,
        }


async def discover(url: str, client_id: str, audience: str) -> Issuer:
    """As any OpenID client finds an issuer."""
    async with httpx2.AsyncClient(trust_env=False) as client:
        found = (await client.get(f"{url.rstrip('/')}/.well-known/openid-configuration")).json()
    assert found["issuer"] == url
    return Issuer(url, found["token_endpoint"], client_id, audience)


@dataclass(frozen=True, slots=True)
class Attempt:
    """At the server of `url`. `headers` go with every call to it."""

    url: str
    issuer: Issuer
    pid: str
    verifier: str
    csrf: str
    device_id: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def callback_url(self) -> str:
        return f"{self.url}/auth/auth0/callback"

    def sign_in_url(self, **changes: str) -> str:
        """What the app opens in the browser."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        parameters = {
            "pid": self.pid,
            "csrf_tauri": self.csrf,
            "challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "challenge_method": "S256",
            "client_id": self.issuer.client_id,
            "audience": self.issuer.audience,
            "scope": "openid profile email",
            "redirect_uri": self.callback_url,
        }
        return f"{self.url}/auth/auth0/initiate-login?{urlencode(parameters | changes)}"

    async def poll(self, client: httpx2.AsyncClient) -> httpx2.Response:
        return await client.get(f"{self.url}/auth0/poll-status", params={"pid": self.pid}, headers=dict(self.headers))

    def read_code(self, polled: httpx2.Response) -> str:
        """As the apps do: they look at the length of either, and whether it is the answer to this very attempt."""
        assert polled.status_code == 200, polled.text
        answer = polled.json()
        assert set(answer) == {"status", "authorizationCode", "tauriCsrfToken"}
        assert answer["status"] == "ready"
        assert answer["tauriCsrfToken"] == self.csrf
        code = answer["authorizationCode"]
        assert len(code) >= 10
        return str(code)

    async def exchange(
        self, client: httpx2.AsyncClient, code: str, *, verifier: str | None = None
    ) -> httpx2.Response:
        form = {
            "grant_type": "authorization_code",
            "client_id": self.issuer.client_id,
            "code": code,
            "code_verifier": verifier or self.verifier,
            "redirect_uri": self.callback_url,
        }
        return await client.post(self.issuer.token_url, data=form)

    async def finalize(self, client: httpx2.AsyncClient, tokens: Mapping[str, Any]) -> httpx2.Response:
        body = {
            "auth0_id_token": tokens["access_token"],
            "auth0_refresh_token": tokens.get("refresh_token"),
            "device_id": self.device_id,
        }
        return await client.post(f"{self.url}/auth0/finalize-login", json=body, headers=dict(self.headers))

    def sign(self, session: Mapping[str, Any]) -> dict[str, str]:
        """The headers of a call, once it has signed in."""
        device = self.device_id.lower()
        own = {"Authorization": f"Bearer {session['token']}", "X-Device-ID": device, "X-Token-Binding": device}
        return {**self.headers, **own}


Maker = Callable[[str, Issuer], Attempt]


def begin_on_desktop(url: str, issuer: Issuer) -> Attempt:
    return Attempt(
        url=url,
        issuer=issuer,
        pid=str(uuid4()),
        verifier=secrets.token_urlsafe(32),
        csrf=secrets.token_urlsafe(16),
        device_id=str(uuid4()),
    )


def begin_on_phone(url: str, issuer: Issuer) -> Attempt:
    """A polling id in capitals, words of letters and digits, and the same headers on every call, needed or not."""
    device = str(uuid4())
    headers = {
        "X-Device-ID": device,
        "X-Token-Binding": device,
        "X-Client-Type": "mobile",
        "Content-Type": "application/json",
    }
    return Attempt(
        url=url,
        issuer=issuer,
        pid=str(uuid4()).upper(),
        verifier=make_word(43),
        csrf=make_word(32),
        device_id=device,
        headers=headers,
    )


def make_word(length: int) -> str:
    return "".join(secrets.choice(LETTERS_AND_DIGITS) for _ in range(length))


def check_session(session: Mapping[str, Any]) -> None:
    """What the apps decode, or the sign-in fails."""
    assert set(session) == {"user", "token", "tokenType", "expiresIn"}
    assert set(session["user"]) == {"id", "email", "name", "role"}
    assert str(UUID(session["user"]["id"])) == session["user"]["id"]
    assert session["tokenType"] == "Bearer"
    assert isinstance(session["expiresIn"], int)
    assert session["token"].count(".") == 2
