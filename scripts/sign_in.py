"""`python -m scripts.sign_in [--url http://127.0.0.1:8080]`: signs in by browser, as the apps do. For development.

Prints, once somebody has signed in, what `scripts.token` prints: `userId`, `deviceId`, `token`, and the `headers` to
send. What to do meanwhile, and a first request, go to stderr.
"""

import argparse
import base64
import hashlib
import json
import secrets
import sys
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import httpx2
import trio

from scripts.environment import read_environment
from scripts.keeper import curl_command
from server.auth.settings import LOCAL_AUDIENCE, LOCAL_CLIENT_ID, LOCAL_ISSUER_PATH
from server.config import DEFAULT_SERVER_URL

PATIENCE_SECONDS = 600
POLL_SECONDS = 2
ANSWER_SECONDS = 30


class SignInFailed(Exception):
    """The message is meant for whoever typed the command."""


@dataclass(frozen=True, slots=True)
class Wish:
    """Where to sign in, and as what. `url` and `issuer` have no slash at their end."""

    url: str
    issuer: str
    client_id: str
    audience: str
    device_id: UUID


@dataclass(frozen=True, slots=True)
class Attempt:
    """What the app keeps to itself until the answer comes (https://www.rfc-editor.org/rfc/rfc7636). At `token_url` the
    issuer exchanges codes.
    """

    token_url: str
    pid: str
    csrf: str = field(repr=False)
    verifier: str = field(repr=False)


def main() -> None:
    wish = read_wish(sys.argv[1:])
    try:
        made = trio.run(sign_in, wish)
    except httpx2.TransportError as error:
        sys.exit(f"{wish.url} does not answer as a server should ({error}); start ./scripts/run first")
    except SignInFailed as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    print(json.dumps(made, indent=2))
    say(f"\nA first request, streamed:\n\n{curl_command(wish.url, made['headers'])}\n")


def read_wish(words: list[str]) -> Wish:
    url = read_environment().get("SERVER_URL") or DEFAULT_SERVER_URL
    parser = argparse.ArgumentParser(prog="python -m scripts.sign_in", description=__doc__)
    parser.add_argument("--url", default=url, help="the server; else the one that ./scripts/run started last")
    parser.add_argument("--issuer", help="who signs people in, if not the server itself")
    parser.add_argument("--client-id", default=LOCAL_CLIENT_ID)
    parser.add_argument("--audience", default=LOCAL_AUDIENCE)
    parser.add_argument("--device", type=UUID, default=uuid4(), help="a device id; a new one if not given")
    found = parser.parse_args(words)
    url = found.url.rstrip("/")
    issuer = (found.issuer or f"{url}{LOCAL_ISSUER_PATH}").rstrip("/")
    return Wish(url, issuer, found.client_id, found.audience, found.device)


async def sign_in(wish: Wish) -> dict[str, Any]:
    """Raises SignInFailed, or TransportError if nobody is there."""
    async with httpx2.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False) as client:
        attempt = await begin(client, wish)
        say(f"Open this in a browser:\n\n  {build_url(wish, attempt)}\n\nWaiting until you have signed in ...")
        code = await wait_for_code(client, wish, attempt)
        issued = await exchange(client, wish, attempt, code)
        return as_answer(wish, await finalize(client, wish, issued))


async def begin(client: httpx2.AsyncClient, wish: Wish) -> Attempt:
    """The issuer's discovery document says where it exchanges codes."""
    found = read(await client.get(f"{wish.issuer}/.well-known/openid-configuration"), wish.issuer)
    if not found.get("token_endpoint"):
        raise SignInFailed(f"{wish.issuer} is no OpenID provider")
    words = (str(uuid4()), secrets.token_urlsafe(16), secrets.token_urlsafe(32))
    return Attempt(str(found["token_endpoint"]), *words)


def build_url(wish: Wish, attempt: Attempt) -> str:
    digest = hashlib.sha256(attempt.verifier.encode()).digest()
    parameters = {
        "pid": attempt.pid,
        "csrf_tauri": attempt.csrf,
        "challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "challenge_method": "S256",
        "client_id": wish.client_id,
        "audience": wish.audience,
        "scope": "openid profile email",
        "redirect_uri": callback_url(wish),
    }
    return f"{wish.url}/auth/auth0/initiate-login?{urlencode(parameters)}"


def callback_url(wish: Wish) -> str:
    return f"{wish.url}/auth/auth0/callback"


async def wait_for_code(client: httpx2.AsyncClient, wish: Wish, attempt: Attempt) -> str:
    """Raises SignInFailed if the user turned back, or nobody came."""
    with trio.move_on_after(PATIENCE_SECONDS):
        while True:
            answer = await client.get(f"{wish.url}/auth0/poll-status", params={"pid": attempt.pid})
            if answer.status_code != 204:
                return read_code(read(answer, wish.url), attempt)
            await trio.sleep(POLL_SECONDS)
    raise SignInFailed(f"nobody has signed in for {PATIENCE_SECONDS // 60} minutes; try again")


def read_code(polled: dict[str, Any], attempt: Attempt) -> str:
    """An answer without our own word in it is to somebody else's question."""
    if not secrets.compare_digest(str(polled.get("tauriCsrfToken")).encode(), attempt.csrf.encode()):
        raise SignInFailed("the answer belongs to another sign-in; try again")
    return str(polled["authorizationCode"])


async def exchange(client: httpx2.AsyncClient, wish: Wish, attempt: Attempt, code: str) -> dict[str, Any]:
    """The issuer's tokens for its code: https://www.rfc-editor.org/rfc/rfc6749#section-4.1.3."""
    form = {
        "grant_type": "authorization_code",
        "client_id": wish.client_id,
        "code": code,
        "code_verifier": attempt.verifier,
        "redirect_uri": callback_url(wish),
    }
    return read(await client.post(attempt.token_url, data=form), wish.issuer)


async def finalize(client: httpx2.AsyncClient, wish: Wish, issued: dict[str, Any]) -> dict[str, Any]:
    body = {
        "auth0_id_token": issued.get("access_token"),
        "auth0_refresh_token": issued.get("refresh_token"),
        "device_id": str(wish.device_id),
    }
    return read(await client.post(f"{wish.url}/auth0/finalize-login", json=body), wish.url)


def read(answer: httpx2.Response, who: str) -> dict[str, Any]:
    """The answer's JSON. Raises SignInFailed, in the words of whoever refused."""
    try:
        found = dict(answer.json())
    except (ValueError, TypeError):
        found = {}
    if answer.status_code != 200:
        told = found.get("message") or found.get("error_description") or found.get("error") or ""
        raise SignInFailed(f"{who} answered {answer.status_code}: {told}".removesuffix(": "))
    return found


def as_answer(wish: Wish, session: dict[str, Any]) -> dict[str, Any]:
    device, token = str(wish.device_id), session["token"]
    headers = {"Authorization": f"Bearer {token}", "X-Device-ID": device, "X-Token-Binding": device}
    return {"userId": session["user"]["id"], "deviceId": device, "token": token, "headers": headers}


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
