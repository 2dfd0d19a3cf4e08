"""The shipped app, as it signs in: what the desktop and the phone send, word for word, and a server to send it to."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx2

from tests.end_to_end.cloche import Cloche, Stores, open_cloche
from tests.fake_issuer import AUDIENCE, CLIENT_ID, FakeIssuer, open_fake_issuer

CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
ISSUER_CODE = "a-code-of-the-issuer"
REFRESH_TOKEN_KEY = "5e" * 32


@dataclass(slots=True)
class ShippedApp:
    """One installation. `issuer` is the fake that stands where Auth0 is."""

    client: httpx2.AsyncClient
    issuer: FakeIssuer
    cloche: Cloche
    device_id: str = field(default_factory=lambda: str(uuid4()))
    pid: str = field(default_factory=lambda: str(uuid4()))
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    token: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """What both apps send with every call."""
        return {
            "Authorization": f"Bearer {self.token}",
            "X-Device-ID": self.device_id,
            "X-Token-Binding": self.device_id,
        }

    @property
    def login_query(self) -> dict[str, str]:
        return {
            "pid": self.pid,
            "csrf_tauri": self.csrf,
            "challenge": CHALLENGE,
            "challenge_method": "S256",
            "client_id": CLIENT_ID,
            "audience": AUDIENCE,
            "scope": "openid profile email",
            "redirect_uri": f"{self.cloche.url}/auth/auth0/callback",
        }

    def on_another_device(self) -> "ShippedApp":
        return ShippedApp(self.client, self.issuer, self.cloche)

    def sign(self, **claims: Any) -> str:
        """A token of the issuer, unlike any other."""
        return self.issuer.sign(jti=str(uuid4()), **claims)

    async def begin(self, **changes: str) -> httpx2.Response:
        """The browser, sent by the app."""
        return await self.client.get("/auth/auth0/initiate-login", params={**self.login_query, **changes})

    async def begin_and_find_state(self) -> str:
        return find_state(await self.begin())

    async def come_back(self, state: str, **parameters: str) -> httpx2.Response:
        """The browser, sent by the issuer: with a code, if it is not told otherwise."""
        query = {**(parameters or {"code": ISSUER_CODE}), "state": state}
        return await self.client.get("/auth/auth0/callback", params=query)

    async def poll(self) -> httpx2.Response:
        return await self.client.get("/auth0/poll-status", params={"pid": self.pid})

    async def finalize(self, issuer_token: str | None = None, **members: Any) -> httpx2.Response:
        body = {
            "auth0_id_token": self.sign() if issuer_token is None else issuer_token,
            "auth0_refresh_token": None,
            "device_id": self.device_id,
            **members,
        }
        return await self.client.post("/auth0/finalize-login", json=body)

    async def sign_in(self, issuer_token: str | None = None, **members: Any) -> dict[str, Any]:
        """Keeps the token. Returns what the server said."""
        answer = await self.finalize(issuer_token, **members)
        assert answer.status_code == 200, answer.text
        session: dict[str, Any] = answer.json()
        self.token = session["token"]
        return session

    async def ask_who(self, **headers: str) -> httpx2.Response:
        return await self.client.get("/api/auth/userinfo", headers={**self.headers, **headers})

    async def refresh(self) -> httpx2.Response:
        """As the phone does it: nothing in the body, which is called JSON."""
        headers = {**self.headers, "Content-Type": "application/json"}
        return await self.client.post("/api/auth0/refresh-app-token", headers=headers)

    async def sign_out(self) -> httpx2.Response:
        """As the desktop does it: without `X-Token-Binding`."""
        headers = {name: text for name, text in self.headers.items() if name != "X-Token-Binding"}
        return await self.client.post("/api/auth/logout", headers=headers)

    async def delete_account(self) -> httpx2.Response:
        return await self.client.delete("/api/auth/account", headers=self.headers)


@asynccontextmanager
async def open_shipped_app(stores: Stores, **settings: str) -> AsyncIterator[ShippedApp]:
    """An app that is signed out, a server, and an issuer."""
    async with open_fake_issuer() as issuer:
        environment = {
            "AUTH0_ISSUER_URL": issuer.issuer,
            "AUTH0_API_AUDIENCE": AUDIENCE,
            "AUTH0_NATIVE_CLIENT_ID": CLIENT_ID,
            **settings,
        }
        async with (
            open_cloche(stores, settings=environment) as cloche,
            httpx2.AsyncClient(base_url=cloche.url, timeout=20, trust_env=False) as client,
        ):
            yield ShippedApp(client, issuer, cloche)


KEEPS_REFRESH_TOKENS = {
    "AUTH0_SERVER_CLIENT_ID": CLIENT_ID,
    "REFRESH_TOKEN_ENCRYPTION_KEY": REFRESH_TOKEN_KEY,
}


def find_state(answer: httpx2.Response) -> str:
    assert answer.status_code == 302, answer.text
    (state,) = parse_qs(urlsplit(answer.headers["location"]).query)["state"]
    return state
