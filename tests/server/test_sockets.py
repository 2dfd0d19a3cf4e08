"""The handshake of WebSockets over real sockets: who gets in, what the others are told, and what is logged of it."""

import json
import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trio

from server.auth.callers import Caller
from server.circumstances import circumstances
from server.sockets import check_handshake, is_key
from server.websocket import WebSocket
from server.websocket_frames import build_text
from tests.raw_websocket import CLOSE, TEXT, RawSocket, build_close, build_frame, open_raw
from tests.server.served import Served, open_served_sockets, token_headers

PATH = "/ws/test"


async def greet(websocket: WebSocket, caller: Caller) -> None:
    """Tells who is there, and then what it receives."""
    at_hand = circumstances()
    await websocket.send(build_text(f"{caller.user_id} {at_hand.request_id} {at_hand.address}".encode()))
    while True:
        match await websocket.receive():
            case "fail":
                raise ValueError("a fault of the program")
            case "end":
                return await websocket.close(1000)


@pytest.fixture
async def served(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    stores = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    settings = {"RATE_LIMIT_SOCKETS": "3", "CORS_ORIGINS": "https://app.example.com"}
    async with open_served_sockets(stores, tmp_path, {PATH: greet}, **settings) as served:
        yield served


async def open_socket(served: Served, headers: Mapping[str, str | None], path: str = PATH) -> RawSocket:
    return await open_raw(served.port, path, headers)


async def refuse(served: Served, headers: Mapping[str, str | None], path: str = PATH) -> tuple[int, Mapping[str, Any]]:
    """Status and envelope of a handshake that is refused."""
    raw = await open_socket(served, headers, path)
    async with raw.stream:
        body = await raw.read_rest()
    return raw.status, json.loads(body)


async def list_logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, object]]:
    with trio.fail_after(5):
        while not (lines := [found for found in caplog.records if found.name == "server.connection"]):
            await trio.lowlevel.checkpoint()
    return [(vars(line)["method"], vars(line)["path"], vars(line)["status"]) for line in lines]


async def test_whoever_is_known_gets_in_and_by_the_same_edge_as_a_request(served: Served) -> None:
    user = await served.make_user()
    raw = await open_socket(served, {**token_headers(user), "X-Request-ID": "mine"})
    async with raw.stream:
        assert (raw.status, raw.headers["x-request-id"]) == (101, "mine")
        assert await raw.read_frame() == (TEXT, f"{user.id} mine 127.0.0.1".encode())


async def make_key(served: Served, *scopes: str) -> Mapping[str, str]:
    headers = {**token_headers(await served.make_user()), "Content-Type": "application/json"}
    wish = json.dumps({"label": "test", "scopes": scopes}).encode()
    return {"X-API-Key": (await served.ask("POST", "/api/auth/api-keys", headers, wish)).json["key"]}


async def test_an_api_key_that_may_read_gets_in_too(served: Served) -> None:
    raw = await open_socket(served, await make_key(served, "read"))
    async with raw.stream:
        assert raw.status == 101


async def test_credentials_that_may_not_read_are_refused(served: Served) -> None:
    status, told = await refuse(served, await make_key(served, "write"))
    assert (status, told["error_type"]) == (403, "forbidden")


async def test_without_credentials_nobody_gets_in(served: Served) -> None:
    raw = await open_socket(served, {})
    async with raw.stream:
        body = await raw.read_rest()
    assert raw.status == 401
    assert b'"error_type":"authentication_error","errorType":"authentication_error"' in body
    assert raw.headers["content-type"] == "application/json"
    assert raw.headers["content-length"] == str(len(body))
    assert raw.headers["connection"] == "close"
    assert raw.headers["cache-control"] == "no-store"
    assert raw.headers["x-request-id"]


async def test_a_token_counts_with_its_device_alone(served: Served) -> None:
    user, device = await served.make_user(), str(uuid4())
    bound = token_headers(user, device_id=device)
    assert (await refuse(served, bound))[0] == 401
    assert (await refuse(served, {**bound, "X-Device-ID": str(uuid4())}))[0] == 401
    raw = await open_socket(served, {**bound, "X-Device-ID": device.upper()})
    async with raw.stream:
        assert raw.status == 101


@pytest.mark.parametrize("path", ["/nothing", "/ws", "/api/auth/userinfo", "/v1/models"])
async def test_where_no_socket_is_served_there_is_none(served: Served, path: str) -> None:
    status, told = await refuse(served, token_headers(await served.make_user()), path)
    assert status == 404
    assert ("error" in told) == path.startswith("/v1/")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-WebSocket-Version": None}, 426),
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"Sec-WebSocket-Key": None}, 400),
        ({"Sec-WebSocket-Key": "c2hvcnQ="}, 400),
    ],
)
async def test_a_handshake_that_is_none_is_told_what_is_missing(
    served: Served, headers: Mapping[str, str | None], status: int
) -> None:
    raw = await open_socket(served, {**token_headers(await served.make_user()), **headers})
    async with raw.stream:
        body = await raw.read_rest()
    assert (raw.status, b'"code":%d' % status in body) == (status, True)
    if status == 426:
        assert (raw.headers["upgrade"], raw.headers["sec-websocket-version"]) == ("websocket", "13")


async def test_who_comes_too_often_is_told_when_to_come_again(served: Served) -> None:
    headers = token_headers(await served.make_user())
    for _ in range(3):
        await (await open_socket(served, headers)).stream.aclose()
    raw = await open_socket(served, headers)
    async with raw.stream:
        assert raw.status == 429
        assert 1 <= int(raw.headers["retry-after"]) <= 65  # counted by twelfths
        assert raw.headers["ratelimit-limit"] == "3"


async def test_a_page_of_another_site_is_no_reason_to_refuse_a_token(served: Served) -> None:
    """No page can send one with a WebSocket."""
    raw = await open_socket(served, {**token_headers(await served.make_user()), "Origin": "https://evil.example"})
    async with raw.stream:
        assert raw.status == 101
        assert "access-control-allow-origin" not in raw.headers


async def test_an_end_is_logged_with_the_status_of_its_handshake(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    headers = token_headers(await served.make_user())
    caplog.set_level(logging.INFO)
    raw = await open_socket(served, headers, f"{PATH}?code=hunter2")
    async with raw.stream:
        await raw.read_frame()
        await raw.send(build_frame(TEXT, b"end"), build_close(1000))
        assert await raw.read_close() == 1000
    assert await list_logged(caplog) == [("GET", PATH, 101)]
    assert "hunter2" not in caplog.text


async def test_a_refusal_is_logged_with_its_status(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await refuse(served, {})
    assert await list_logged(caplog) == [("GET", PATH, 401)]


async def test_a_client_that_leaves_is_no_fault(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    headers = token_headers(await served.make_user())
    caplog.set_level(logging.INFO)
    await (await open_socket(served, headers)).stream.aclose()
    assert await list_logged(caplog) == [("GET", PATH, 101)]
    assert not [found for found in caplog.records if found.levelno >= logging.WARNING]


async def test_a_handler_that_fails_is_told_of_and_its_client_comes_again(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    headers = token_headers(await served.make_user())
    caplog.set_level(logging.INFO)
    raw = await open_socket(served, headers)
    async with raw.stream:
        await raw.read_frame()
        await raw.send(build_frame(TEXT, b"fail"))
        assert await raw.read_frame() == (CLOSE, (1011).to_bytes(2, "big"))
        await raw.send(build_close(1011))
        assert await raw.read_rest() == b""
    assert await list_logged(caplog) == [("GET", PATH, "broken")]
    assert "a WebSocket broke in our own code" in caplog.text


def test_a_key_is_sixteen_bytes() -> None:
    assert is_key("dGhlIHNhbXBsZSBub25jZQ==")
    assert not is_key("dGhlIHNhbXBsZSBub25j")
    assert not is_key("no base64 at all!")
    assert not is_key("")


def test_over_http2_there_is_no_key() -> None:
    check_handshake({"Sec-WebSocket-Version": "13"})
