"""FCM for tests: the endpoint that gives access tokens, and HTTP v1's messages:send, both over TLS.

https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages/send for the messages,
https://developers.google.com/identity/protocols/oauth2/service-account#httprest for the tokens.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

import jwt
import msgspec
import trio

from tests import fakes
from tests.push_stand_in.books import Book, Push, Refusal
from tests.push_stand_in.fcm_rules import check_message
from tests.push_stand_in.keys import CLIENT_EMAIL, PRIVATE_KEY_ID, PROJECT_ID, build_server_tls, find_account_key
from tests.push_stand_in.steps import Accept, Cut, Held, Say, Script, Silence, Step, refuse_fcm

TOKEN_PATH = "/token"
SEND_PATH = f"/v1/projects/{PROJECT_ID}/messages:send"
SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@dataclass(slots=True)
class Fcm:
    """`unregistered` are tokens of apps that are gone. `token_answers` are given in place of the next access tokens."""

    url: str = ""
    book: Book = field(default_factory=Book)
    script: Script = field(default_factory=Script)
    unregistered: set[str] = field(default_factory=set)
    access_token_seconds: float = 3600.0
    token_answers: list[Say] = field(default_factory=list)
    assertions: list[Mapping[str, Any]] = field(default_factory=list)
    """The claims of those that were accepted."""
    read_time: Callable[[], float] = time.time
    _valid_until: dict[str, float] = field(default_factory=dict, repr=False)

    def revoke_access_tokens(self) -> None:
        self._valid_until.clear()

    def respond(self, request: fakes.RecordedRequest) -> Iterator[fakes.Step]:
        if (request.method, request.path) == ("POST", TOKEN_PATH):
            yield from _write(self.token_answers.pop(0) if self.token_answers else self._give_token(request.body))
        elif (request.method, request.path) == ("POST", SEND_PATH):
            yield from self._take(request)
        else:
            yield from _write(refuse_fcm(404, "NOT_FOUND"))

    def _take(self, request: fakes.RecordedRequest) -> Iterator[fakes.Step]:
        push = self._build_push(request)
        self.book.receive(push)
        is_acknowledged = is_answered = False
        try:
            for step in _unfold(self._decide(push, request)):
                if isinstance(step, Say):
                    yield from _write(step)
                    is_answered, is_acknowledged = True, step.status == 200
                else:
                    yield step
        finally:
            if is_acknowledged:
                self.book.acknowledge(push)
            elif not is_answered:
                self.book.lose(push)

    def _decide(self, push: Push, request: fakes.RecordedRequest) -> Step:
        if self._valid_until.get(push.provider_token, 0.0) < self.read_time():
            refusal = refuse_fcm(401, "UNAUTHENTICATED")
        elif problem := check_message(_read_json(request.body)):
            refusal = refuse_fcm(400, "INVALID_ARGUMENT", problem)
        elif push.token in self.unregistered:
            refusal = refuse_fcm(404, "NOT_FOUND", "UNREGISTERED")
        else:
            step = self.script.take(push)
            return _build_success() if isinstance(step, Accept) else step
        self.book.refuse(Refusal(push, refusal.status, refusal.body.decode()))
        return refusal

    def _give_token(self, body: bytes) -> Say:
        form = parse_qs(body.decode())
        claims = self._read_assertion(form.get("assertion", [""])[0])
        if claims is None or form.get("grant_type") != [GRANT_TYPE]:
            return Say(400, b'{"error":"invalid_grant","error_description":"Invalid JWT"}')
        self.assertions.append(claims)
        token = f"ya29.{uuid4().hex}"
        self._valid_until[token] = self.read_time() + self.access_token_seconds
        answer = {"access_token": token, "expires_in": int(self.access_token_seconds), "token_type": "Bearer"}
        return Say(200, msgspec.json.encode(answer))

    def _read_assertion(self, assertion: str) -> Mapping[str, Any] | None:
        """Google takes assertions of an hour at most."""
        key = find_account_key().public_key()
        try:
            head = jwt.get_unverified_header(assertion)
            claims: dict[str, Any] = jwt.decode(assertion, key, ["RS256"], audience=f"{self.url}{TOKEN_PATH}")
        except jwt.InvalidTokenError:
            return None
        is_good = head.get("kid") == PRIVATE_KEY_ID and claims.get("iss") == CLIENT_EMAIL
        is_good = is_good and SCOPE in str(claims.get("scope", "")).split()
        return claims if is_good and 0 < claims.get("exp", 0) - claims.get("iat", 0) <= 3600 else None

    def _build_push(self, request: fakes.RecordedRequest) -> Push:
        message = (_read_json(request.body) or {}).get("message") or {}
        android = message.get("android") or {}
        tag = (android.get("notification") or {}).get("tag") or android.get("collapse_key", "")
        access_token = request.headers.get("authorization", "").removeprefix("Bearer ")
        token, number = str(message.get("token", "")), len(self.book.received) + 1
        return Push(number, 0, token, "", tag, message, request.headers, "production", access_token)


@asynccontextmanager
async def open_fcm() -> AsyncIterator[Fcm]:
    fcm = Fcm()
    async with fakes.open_fake_upstream(fcm.respond, tls=build_server_tls("http/1.1")) as upstream:
        fcm.url = upstream.url
        yield fcm


def _unfold(step: Step) -> Iterator[Say | fakes.Step]:
    match step:
        case Say():
            yield step
        case Held(trio.Event() as until, then):
            yield fakes.WaitFor(until)
            yield from _unfold(_build_success() if isinstance(then, Accept) else then)
        case Held(float() as until, then):
            yield fakes.Pause(until)
            yield from _unfold(_build_success() if isinstance(then, Accept) else then)
        case Cut():
            yield fakes.Reset()
        case Silence():
            yield fakes.WaitForClose()
        case _:
            raise AssertionError(f"HTTP/1.1 has nothing like {step}")


def _build_success() -> Say:
    return Say(200, msgspec.json.encode({"name": f"projects/{PROJECT_ID}/messages/0:{uuid4().int}"}))


def _write(say: Say) -> list[fakes.Step]:
    return fakes.response(say.status, say.body, say.headers)


def _read_json(body: bytes) -> Any:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if isinstance(found, dict) else None
