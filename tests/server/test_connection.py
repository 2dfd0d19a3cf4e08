"""What holds for every request, over a real socket: the headers of its answer, its address, its line in the log."""

import json
import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from quart import Response

from server.circumstances import circumstances
from server.connection import Edge
from server.guard import access
from server.logs import JsonLines
from tests.server.served import Served, open_served, token_headers

CHAT = "/v1/chat/completions"
ALWAYS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
    "vary": "Origin",
    "access-control-allow-origin": "https://app.example.com",
    "access-control-allow-credentials": "true",
}
ORIGIN = {"Origin": "https://app.example.com"}
ASKS = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}


@pytest.fixture
def stores(database_url: str, redis_url: str) -> Mapping[str, str]:
    return {"DATABASE_URL": database_url, "REDIS_URL": redis_url}


@pytest.fixture
async def served(stores: Mapping[str, str], tmp_path: Path) -> AsyncIterator[Served]:
    async with open_served(stores, tmp_path) as served:
        add_routes(served)
        yield served


def add_routes(served: Served) -> None:
    @access(is_public=True)
    async def fail() -> str:
        raise ValueError

    @access(is_public=True)
    async def keep() -> Response:
        return Response("", headers={"Cache-Control": "max-age=60", "Vary": "Accept", "X-Frame-Options": "SAMEORIGIN"})

    @access(is_public=True)
    async def tell() -> Mapping[str, Any]:
        at_hand = circumstances()
        return {"id": at_hand.request_id, "address": at_hand.address, "agent": at_hand.user_agent}

    @access(is_public=True)
    async def forget() -> Response:
        return Response(status=204)

    views: dict[str, Any] = {"fail": fail, "keep": keep, "tell": tell, "forget": forget}
    for name, view in views.items():
        served.app.add_url_rule(f"/{name}", name, view)


# Headers


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/health", b"", 200),
        ("HEAD", "/health", b"", 200),
        ("OPTIONS", "/health", b"", 200),
        ("DELETE", "/health", b"", 405),
        ("GET", "/nothing", b"", 404),
        ("GET", "/%00", b"", 404),
        ("GET", "/api/nothing", b"", 401),
        ("POST", CHAT, b"{}", 401),
        ("POST", "/auth0/finalize-login", b"{", 400),
        ("POST", "/auth0/finalize-login", b"x" * (1024 * 1024 + 1), 413),
        ("GET", "/fail", b"", 500),
    ],
)
async def test_every_answer_carries_them(served: Served, method: str, path: str, body: bytes, status: int) -> None:
    answer = await served.ask(method, path, {**ORIGIN, "X-Request-ID": "mine"}, body)
    assert (answer.status, answer.headers["x-request-id"]) == (status, "mine")
    assert {name: answer.headers.get(name) for name in ALWAYS} == ALWAYS
    assert "strict-transport-security" not in answer.headers
    assert "X-Request-ID" in answer.headers["access-control-expose-headers"]


async def test_a_refusal_for_too_many_carries_them_too(stores: Mapping[str, str], tmp_path: Path) -> None:
    async with open_served(stores, tmp_path, RATE_LIMIT_MAX_REQUESTS="1") as served:
        await served.ask("GET", "/nothing", ORIGIN)
        answer = await served.ask("GET", "/nothing", ORIGIN)
    assert answer.status == 429
    assert {name: answer.headers.get(name) for name in ALWAYS} == ALWAYS
    assert answer.json["errorType"] == "rate_limit_error"


async def test_what_a_route_has_set_is_left_alone(served: Served) -> None:
    head = b"GET /keep HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with await trio.open_tcp_stream("127.0.0.1", served.port) as stream:
        await stream.send_all(head)
        lines = b"".join([piece async for piece in stream]).lower().split(b"\r\n")
    assert [line for line in lines if line.startswith((b"cache-control", b"x-frame-options", b"vary"))] == [
        b"cache-control: max-age=60",
        b"vary: accept",
        b"x-frame-options: sameorigin",
        b"vary: origin",
    ]


async def test_an_origin_that_is_not_on_the_list_is_served_and_cannot_read(
    stores: Mapping[str, str], tmp_path: Path
) -> None:
    async with open_served(stores, tmp_path, CORS_ORIGINS="https://app.example.com") as served:
        allowed = await served.ask("GET", "/health", ORIGIN)
        strange = await served.ask("GET", "/health", {"Origin": "https://evil.example"})
    assert allowed.headers["access-control-allow-origin"] == ORIGIN["Origin"]
    assert (strange.status, strange.headers["vary"]) == (200, "Origin")
    assert "access-control-allow-origin" not in strange.headers


async def test_a_request_without_an_id_gets_one_of_its_own(served: Served) -> None:
    ids = {(await served.ask("GET", "/health", {"X-Request-ID": id_})).headers["x-request-id"] for id_ in ("", "a b")}
    assert {len(id_) for id_ in ids} == {32}
    assert len(ids) == 2


# Preflight


@pytest.mark.parametrize("path", [CHAT, "/api/auth/userinfo", "/nothing", "/api-key/x"])
async def test_a_preflight_needs_no_credentials_and_draws_on_nothing(
    stores: Mapping[str, str], tmp_path: Path, path: str
) -> None:
    async with open_served(stores, tmp_path, RATE_LIMIT_MAX_REQUESTS="1") as served:
        for _ in range(3):
            answer = await served.ask("OPTIONS", path, {**ORIGIN, **ASKS})
            assert (answer.status, answer.body) == (204, b"")
            assert answer.headers["access-control-allow-origin"] == ORIGIN["Origin"]
            assert answer.headers["access-control-allow-methods"] == "POST"
            assert answer.headers["access-control-allow-headers"] == "authorization"
            assert answer.headers["x-request-id"]
        assert (await served.ask("GET", "/nothing")).status == 404


@pytest.mark.parametrize("line", [f"OPTIONS {CHAT} HTTP/1.1", "GET /forget HTTP/1.1"])
async def test_the_connection_of_an_answer_without_a_body_is_used_again(served: Served, line: str) -> None:
    """Browsers do."""
    lines = [*(f"{name}: {value}" for name, value in {**ORIGIN, **ASKS}.items()), "", ""]
    first = "\r\n".join([line, "Host: x", *lines])
    answer = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with await trio.open_tcp_stream("127.0.0.1", served.port) as stream:
        await stream.send_all(first.encode())
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 204")
        await stream.send_all(answer)
        assert b"HTTP/1.1 200" in b"".join([piece async for piece in stream])


# Proxies


async def test_without_proxies_nobody_chooses_an_address(served: Served) -> None:
    chosen = {"X-Forwarded-For": "1.2.3.4", "X-Real-IP": "1.2.3.4", "X-Forwarded-Proto": "https", "User-Agent": "me"}
    answer = await served.ask("GET", "/tell", {**chosen, "X-Request-ID": "mine"})
    assert answer.json == {"id": "mine", "address": "127.0.0.1", "agent": "me"}
    assert "strict-transport-security" not in answer.headers


async def test_behind_a_proxy_each_address_has_a_budget_of_its_own_and_lies_have_none(
    stores: Mapping[str, str], tmp_path: Path
) -> None:
    async def ask(forwarded_for: str) -> int:
        return (await proxied.ask("GET", "/nothing", {"X-Forwarded-For": forwarded_for})).status

    async with open_served(stores, tmp_path, TRUSTED_PROXIES="127.0.0.1", RATE_LIMIT_MAX_REQUESTS="1") as proxied:
        assert [await ask("198.51.100.1"), await ask("198.51.100.2"), await ask("2001:db8::1")] == [404] * 3
        assert [await ask("6.6.6.6, 198.51.100.1"), await ask("198.51.100.3,198.51.100.2")] == [429] * 2
        assert [await ask("2001:db8::2"), await ask("::ffff:198.51.100.1")] == [429] * 2


async def test_who_came_to_the_proxy_over_tls_is_told_to_stay_there(
    stores: Mapping[str, str], tmp_path: Path
) -> None:
    async with open_served(stores, tmp_path, TRUSTED_PROXIES="127.0.0.0/8") as served:
        answer = await served.ask("GET", "/health", {"X-Forwarded-Proto": "https"})
    assert answer.headers["strict-transport-security"] == "max-age=31536000"


# Paths


@pytest.mark.parametrize("path", ["/api/v1/auth/userinfo", "/api-key/auth/userinfo", "/api-key/v1/auth/userinfo/"])
async def test_other_names_of_a_path_are_the_path(served: Served, path: str) -> None:
    user = await served.make_user()
    assert (await served.ask("GET", path)).status == 401
    answer = await served.ask("GET", path, token_headers(user))
    assert (answer.status, answer.json["id"]) == (200, str(user.id))


@pytest.mark.parametrize("target", ["http://x/api/v1/auth/userinfo", "https://a:hunter2@[/api/auth/userinfo"])
async def test_what_a_proxy_is_sent_is_the_path_alone(
    served: Served, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert (await served.ask("GET", target, token_headers(await served.make_user()))).status == 200
    assert (await wait_logged(caplog))[0]["path"] == "/api/auth/userinfo"


@pytest.mark.parametrize("target", ["*", "x", "http:", "http://[", "?"])
async def test_what_is_no_path_is_not_found(served: Served, target: str, caplog: pytest.LogCaptureFixture) -> None:
    assert (await served.ask("GET", target)).status == 404
    assert not caplog.records


async def test_what_openai_calls_v1_stays_what_it_is(served: Served) -> None:
    answer = await served.ask("GET", "/v1/models/", token_headers(await served.make_user()))
    assert (answer.status, answer.json["object"]) == (200, "list")


async def test_slashes_in_front_lead_past_no_guard(served: Served) -> None:
    """The framework counts them as one."""
    assert (await served.ask("GET", "///api/auth/userinfo")).status == 401
    assert (await served.ask("GET", "//api/v1/auth/userinfo")).status == 401
    assert (await served.ask("GET", "//health")).status == 200


@pytest.mark.parametrize("path", ["/api//auth/userinfo", "/health//ready", "//evil.example/%2e%2e"])
async def test_a_doubled_slash_is_another_path_and_no_redirect(served: Served, path: str) -> None:
    answer = await served.ask("GET", path, token_headers(await served.make_user()))
    assert (answer.status, answer.json["error_type"]) == (404, "not_found")
    assert "location" not in answer.headers


# Logs


async def wait_logged(caplog: pytest.LogCaptureFixture, count: int = 1) -> list[dict[str, Any]]:
    """The lines of requests that have ended; a line is written after the answer."""
    with trio.fail_after(5):
        while len(lines := [record for record in caplog.records if record.name == "server.connection"]) < count:
            await trio.lowlevel.checkpoint()
    names = ("method", "path", "status", "duration_ms")
    return [{name: getattr(record, name) for name in names} for record in lines]


async def test_a_request_leaves_one_line_without_its_query(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await served.ask("DELETE", "/api-key/nothing?code=hunter2")
    (line,) = await wait_logged(caplog)
    assert 0 < line.pop("duration_ms") < 10_000
    assert line == {"method": "DELETE", "path": "/api/nothing", "status": 401}
    assert "hunter2" not in str([vars(record) for record in caplog.records])


async def test_an_answer_that_breaks_in_the_middle_is_told_once_with_its_request(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    async def write() -> AsyncIterator[bytes]:
        yield b"one"
        raise ValueError("inside")

    @access(is_public=True)
    async def begin() -> Response:
        return Response(write())

    caplog.set_level(logging.INFO)
    served.app.add_url_rule("/begin", "begin", begin)
    answer = await served.ask("GET", "/begin", {"X-Request-ID": "mine"})
    assert (answer.status, b"inside" in answer.body) == (200, False)
    with trio.fail_after(5):
        while len(caplog.records) < 2:
            await trio.lowlevel.checkpoint()
    fault, ended = [json.loads(JsonLines().format(record)) for record in caplog.records]
    assert (fault["level"], fault["path"], "ValueError: inside" in fault["traceback"]) == ("ERROR", "/begin", True)
    assert ended["status"] == "broken"


async def test_a_preflight_and_a_long_path_leave_a_line_too(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await served.ask("OPTIONS", "/" + "x" * 1000, {**ORIGIN, **ASKS})
    (line,) = await wait_logged(caplog)
    assert (line["status"], len(line["path"])) == (204, 200)


async def test_lines_can_be_had_without(
    stores: Mapping[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with open_served(stores, tmp_path, ACCESS_LOG="off") as served:
        await served.ask("GET", "/nothing")
        await wait_idle(served)
    assert not [record for record in caplog.records if record.name == "server.connection"]


async def wait_idle(served: Served) -> None:
    edge = served.app.extensions["cloche.edge"]
    assert isinstance(edge, Edge)
    with trio.fail_after(5):
        while edge.requests:
            await trio.lowlevel.checkpoint()


async def test_the_requests_at_hand_are_counted_until_they_end(served: Served) -> None:
    ends = trio.Event()

    @access(is_public=True)
    async def wait() -> str:
        await ends.wait()
        return ""

    served.app.add_url_rule("/wait", "wait", wait)
    edge = served.app.extensions["cloche.edge"]
    async with await trio.open_tcp_stream("127.0.0.1", served.port) as gone, trio.open_nursery() as nursery:
        await gone.send_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        nursery.start_soon(served.ask, "GET", "/wait")
        with trio.fail_after(5):
            while edge.requests < 2:
                await trio.lowlevel.checkpoint()
            await gone.aclose()
            while edge.requests > 1:
                await trio.lowlevel.checkpoint()
        ends.set()
    await wait_idle(served)
