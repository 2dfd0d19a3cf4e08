"""Errors over a real socket: every one in the envelope of the path's dialect, and none that tells too much."""

import json
import logging
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import hypercorn.trio
import pytest
import trio
from hypercorn.config import Config as HypercornConfig
from quart_trio import QuartTrio

import storage.redis
from proxy.provider import load_providers
from server.app import create_app
from server.asgi import open_services
from server.auth.tokens import issue_token
from server.config import read_config
from storage.accounts import Accounts
from storage.errors import RedisUnavailable
from tests.end_to_end.cloche import NO_LIMITS, SIGN_IN

SECRET = "only-for-tests-0123456789abcdef-0123456789"
SHIPPED, OPENAI = "/api/llm/chat/completions", "/v1/chat/completions"
MAX_BODY_BYTES = 20_000
CHAT = {"model": "openai/gpt-4.1-mini", "messages": [{"role": "user", "content": "Hello"}]}


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Server:
    """A served app, and the headers of a caller without credit."""

    app: QuartTrio
    port: int
    caller: Mapping[str, str]

    async def ask(
        self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request on a connection of its own. `body` is JSON unless it is bytes."""
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: cloche", f"Content-Length: {len(data)}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in (self.caller if headers is None else headers).items()]
        return await self.send("\r\n".join([*lines, "", ""]).encode() + data)

    async def send(self, data: bytes) -> Answer:
        with trio.fail_after(10):
            async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                await stream.send_all(data)
                return read_answer(b"".join([piece async for piece in stream]))


def read_answer(data: bytes) -> Answer:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    pairs = [line.split(": ", 1) for line in lines]
    return Answer(int(first.split()[1]), {name.lower(): value for name, value in pairs}, body)


@pytest.fixture
async def server(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Server]:
    environment = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "JWT_SECRET": SECRET,
        "JOURNAL_FOLDER": str(tmp_path),
        "MAX_BODY_BYTES": str(MAX_BODY_BYTES),
        "OPENAI_BASE_URL": "http://127.0.0.1:9",
        "OPENAI_API_KEY": "sk-upstream",
        **SIGN_IN,
        **NO_LIMITS,
    }
    config = read_config(environment, load_providers())
    async with open_services(config) as (services, _), trio.open_nursery() as nursery:
        user = await Accounts(services.database).make_user("ann@example.com")
        token = issue_token(
            SECRET, user_id=user.id, email=user.email, role="user", device_id=None, now=time.time(), days=1
        )
        app = create_app(services)
        options = HypercornConfig()
        options.bind = ["127.0.0.1:0"]
        options.errorlog = None
        (bind,) = await nursery.start(partial(hypercorn.trio.serve, app, options))
        yield Server(app, int(bind.rpartition(":")[2]), {"Authorization": f"Bearer {token}"})
        nursery.cancel_scope.cancel()


def assert_envelope(answer: Answer, status: int, error_type: str) -> str:
    """The shipped clients' envelope; returns its message."""
    body = answer.json
    assert (answer.status, body["code"], body["error_type"], body["errorType"]) == (
        status,
        status,
        error_type,
        error_type,
    )
    return str(body["message"])


def assert_openai(answer: Answer, status: int, type_: str, code: str) -> str:
    """OpenAI's error object; returns its message."""
    error = answer.json["error"]
    assert (answer.status, error["type"], error["code"], error["param"]) == (status, type_, code, None)
    return str(error["message"])


# What the framework finds


@pytest.mark.parametrize("path", ["/", "/api/nothing", "/api/llm/chat", "/v1", "/%00", "/api/%ff", "/v1x/models"])
async def test_an_unknown_path_is_told_in_the_envelope(server: Server, path: str) -> None:
    assert assert_envelope(await server.ask("GET", path), 404, "not_found").startswith("Not found: ")


async def test_an_unknown_path_of_v1_is_told_as_openai_would(server: Server) -> None:
    assert_openai(await server.ask("POST", "/v1/nothing", {}), 404, "not_found_error", "not_found")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_a_wrong_method_says_which_is_right(server: Server, method: str) -> None:
    answer = await server.ask(method, SHIPPED)
    assert_envelope(answer, 405, "method_not_allowed")
    assert "POST" in answer.headers["allow"]
    assert_openai(await server.ask(method, OPENAI), 405, "invalid_request_error", "method_not_allowed")


async def test_a_slash_at_the_end_changes_nothing(server: Server) -> None:
    assert_envelope(await server.ask("POST", SHIPPED + "/", b"{"), 400, "validation_error")


# Callers


async def test_without_credentials_nobody_is_served(server: Server) -> None:
    message = assert_envelope(await server.ask("POST", SHIPPED, CHAT, headers={}), 401, "authentication_error")
    assert message == "Authentication error: Missing credentials"
    openai = await server.ask("POST", OPENAI, CHAT, headers={})
    assert assert_openai(openai, 401, "authentication_error", "authentication_error") == message


async def test_a_401_has_the_member_that_older_clients_search(server: Server) -> None:
    body = (await server.ask("POST", SHIPPED, CHAT, headers={})).json
    assert body["error"] == body["message"]


async def test_who_has_no_credentials_is_refused_before_the_body_is_read(server: Server) -> None:
    head = f"POST {SHIPPED} HTTP/1.1\r\nHost: cloche\r\nContent-Length: {MAX_BODY_BYTES}\r\nConnection: close\r\n\r\n"
    assert_envelope(await server.send(head.encode()), 401, "authentication_error")


@pytest.mark.parametrize("token", ["x", "a.b.c", "a.b.c\x7f", "ü.b.c"])
async def test_a_token_that_is_none_is_refused(server: Server, token: str) -> None:
    answer = await server.ask("GET", "/v1/models", headers={"Authorization": f"Bearer {token}"})
    assert answer.status in {400, 401}
    if answer.status == 401:
        assert_openai(answer, 401, "authentication_error", "authentication_error")


@pytest.mark.parametrize("path", [SHIPPED, OPENAI])
async def test_while_redis_is_away_nobody_is_signed_out(
    server: Server, path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(storage.redis, "COMMAND_SECONDS", 0)
    for _ in range(3):
        answer = await server.ask("POST", path, CHAT)
        assert (answer.status, answer.headers["retry-after"]) == (503, "2")
        assert b"database_error" in answer.body
    assert (await server.ask("GET", "/auth/auth0/callback?state=s&code=c")).status == 503
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [vars(record)["reason"] for record in told] == ["Redis did not answer in time"]


async def test_a_refusal_that_no_outage_explains_is_told(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> str:
        raise RedisUnavailable("it refused this command alone")

    server.app.add_url_rule("/refused", "refused", fail)
    assert (await server.ask("GET", "/refused")).status == 503
    assert "it refused this command alone" in caplog.text


# Bodies


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"\xff", "body"),
        (b"[" * 10_000, "body"),
        (b'{"model":"a","messages":[],"x":' + b"[" * 9_000 + b"]" * 9_000 + b"}", "body"),
        ({**CHAT, "messages": []}, "messages"),
        ({**CHAT, "max_tokens": 0}, "max_tokens"),
        ({**CHAT, "messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0]"),
    ],
)
async def test_a_body_that_is_no_request_is_a_400_that_names_the_place(
    server: Server, body: object, place: str
) -> None:
    assert place in assert_envelope(await server.ask("POST", SHIPPED, body), 400, "validation_error")
    message = assert_openai(await server.ask("POST", OPENAI, body), 400, "invalid_request_error", "validation_error")
    assert place in message


async def test_a_body_above_the_limit_is_a_413(server: Server) -> None:
    assert_envelope(await server.ask("POST", SHIPPED, b"x" * (MAX_BODY_BYTES + 1)), 413, "payload_too_large")
    answer = await server.ask("POST", OPENAI, b"x" * (MAX_BODY_BYTES + 1))
    assert_openai(answer, 413, "invalid_request_error", "payload_too_large")


async def test_a_body_that_says_nothing_of_its_length_is_bounded_too(server: Server) -> None:
    lines = [f"POST {SHIPPED} HTTP/1.1", "Host: cloche", "Transfer-Encoding: chunked", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in server.caller.items()]
    chunks = (b"3e8\r\n" + b"x" * 1000 + b"\r\n") * (MAX_BODY_BYTES // 1000 + 1) + b"0\r\n\r\n"
    answer = await server.send("\r\n".join([*lines, "", ""]).encode() + chunks)
    assert_envelope(answer, 413, "payload_too_large")


async def test_a_body_at_the_limit_is_read(server: Server) -> None:
    body = json.dumps(CHAT).encode().ljust(MAX_BODY_BYTES)
    assert_envelope(await server.ask("POST", SHIPPED, body), 402, "credit_insufficient")


# Requests


@pytest.mark.parametrize("model", ["openai/nothing", "", "a\x00b", "x" * 5000, "🙂", "' OR 1=1 --"])
async def test_a_model_that_is_not_offered_is_a_404(server: Server, model: str) -> None:
    message = assert_envelope(await server.ask("POST", SHIPPED, {**CHAT, "model": model}), 404, "not_found")
    assert len(message) < 500


async def test_without_credit_there_is_a_402_and_no_stream(server: Server) -> None:
    for stream in (True, False):
        answer = await server.ask("POST", SHIPPED, {**CHAT, "stream": stream})
        assert assert_envelope(answer, 402, "credit_insufficient").startswith("Insufficient credits: ")


async def test_nesting_to_any_depth_is_no_fault_of_ours(server: Server) -> None:
    """What has just been read is written again further down the stack, where there is less room."""
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"a": 0}}}
    body = json.dumps({**CHAT, "response_format": wanted}).encode()
    for depth in (*range(1, 100, 9), *range(900, 1000, 5)):
        nested = b"[" * depth + b"]" * depth
        answer = await server.ask("POST", SHIPPED, body.replace(b'{"a": 0}', b'{"a":' + nested + b"}"))
        assert answer.status == (402 if depth < 60 else 400), depth


@pytest.mark.parametrize("key", ["x" * 201, "a\x00b"])
async def test_an_idempotency_key_that_cannot_be_stored_is_refused(server: Server, key: str) -> None:
    answer = await server.ask("POST", SHIPPED, CHAT, headers={**server.caller, "Idempotency-Key": key})
    assert answer.status == 400


async def test_an_idempotency_key_may_be_in_any_alphabet(server: Server) -> None:
    answer = await server.ask("POST", SHIPPED, CHAT, headers={**server.caller, "Idempotency-Key": "clé-ü"})
    assert_envelope(answer, 402, "credit_insufficient")


async def test_somebody_who_does_not_exist_is_a_401(server: Server) -> None:
    token = issue_token(
        SECRET, user_id=uuid4(), email="x@y.z", role="admin", device_id=None, now=time.time(), days=1
    )
    answer = await server.ask("POST", SHIPPED, CHAT, headers={"Authorization": f"Bearer {token}"})
    assert_envelope(answer, 401, "authentication_error")


# Faults of ours


async def test_a_fault_is_logged_with_its_traceback_and_told_without_its_inside(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> str:
        raise ValueError("SELECT secret FROM inside")

    server.app.add_url_rule("/fault", "fault", fail)
    answer = await server.ask("GET", "/fault")
    message = assert_envelope(answer, 500, "internal_error")
    assert "inside" not in message.replace("our side", "")
    assert "ValueError: SELECT secret FROM inside" in caplog.text


async def test_an_error_is_no_page_of_the_framework(server: Server) -> None:
    answers = [await server.ask(method, path) for method in ("GET", "POST") for path in ("/x", SHIPPED, "/v1/x")]
    assert all(b"<" not in answer.body for answer in answers)
