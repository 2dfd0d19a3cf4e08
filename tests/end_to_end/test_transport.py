"""The transport rules where a process and a provider are needed: streams, clients that leave, workers, the log."""

import json
from typing import Any

import pytest
import trio

from tests.end_to_end.caller import OPENAI, SHIPPED, Caller, build_chat, build_request, open_caller, read_events
from tests.end_to_end.cloche import Cloche, Customer, Stores, open_cloche
from tests.end_to_end.test_leaving import deltas, says_and_waits, wait_closed
from tests.fakes import open_fake_upstream, openai_stream

DEPLOYMENT = "/health/deployment"
TOKEN = "deploy-me"
ENDED = "a request has ended"


def head_lines(answer: bytes) -> list[str]:
    return answer.partition(b"\r\n\r\n")[0].decode().lower().split("\r\n")


async def send(cloche: Cloche, caller: Caller, path: str, customer: Customer, **headers: str) -> None:
    body = json.dumps(build_chat()).encode()
    await caller.stream.send_all(build_request(path, {**customer.headers, **headers}, body))


async def ask(cloche: Cloche, path: str, headers: dict[str, str]) -> Any:
    """A GET; its JSON."""
    async with open_caller(cloche) as caller:
        await caller.stream.send_all(build_request(path, {**headers, "Connection": "close"}, b"", "GET"))
        answer = await caller.read_all()
    return json.loads(answer.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("path", [SHIPPED, SHIPPED.replace("/api/", "/api/v1/"), OPENAI])
async def test_a_stream_carries_the_headers_once_and_leaves_a_line(stores: Stores, path: str) -> None:
    async with open_fake_upstream(openai_stream(deltas(3))) as upstream, open_cloche(stores, upstream.url) as cloche:
        customer = await cloche.make_customer()
        async with open_caller(cloche) as caller:
            await send(cloche, caller, path, customer, **{"X-Request-ID": "stream-1", "Origin": "https://a.example"})
            await caller.read_until(b"\r\n0\r\n\r\n")
        lines = head_lines(caller.text)
        for line in ("x-request-id: stream-1", "access-control-allow-origin: https://a.example", "vary: origin"):
            assert lines.count(line) == 1
        assert [line for line in lines if line.startswith("cache-control")] == ["cache-control: no-cache"]
        assert len(read_events(caller.text)) > 3
        ended = await cloche.wait_logged(ENDED, "stream-1")
    assert (ended["status"], ended["method"], ended["request_id"]) == (200, "POST", "stream-1")
    assert (ended["path"], ended["user_id"]) == (path.replace("/api/v1/", "/api/"), str(customer.user_id))
    assert ended["duration_ms"] > 0


@pytest.mark.parametrize("path", [SHIPPED, OPENAI])
async def test_a_client_that_leaves_leaves_a_line_too(stores: Stores, path: str) -> None:
    async with open_fake_upstream(says_and_waits(2)) as upstream, open_cloche(stores, upstream.url) as cloche:
        customer = await cloche.make_customer()
        async with open_caller(cloche) as caller:
            await send(cloche, caller, path, customer, **{"X-Request-ID": "gone-1"})
            await caller.read_until(b'"content":" beta"')
            caller.leave()
            await wait_closed(upstream)
        ended = await cloche.wait_logged(ENDED, "gone-1")
        await cloche.wait_settled()
        assert (ended["status"], ended["user_id"]) == ("left", str(customer.user_id))
        cloche.check_accounts()


async def test_no_line_holds_a_token_a_key_a_code_or_a_word_of_a_prompt(stores: Stores) -> None:
    codes = "?code=hunter2&state=hunter2&pid=hunter2"
    async with (
        open_fake_upstream(openai_stream(deltas(2))) as upstream,
        open_cloche(stores, upstream.url, LOG_LEVEL="DEBUG") as cloche,
    ):
        customer = await cloche.make_customer()
        async with open_caller(cloche) as caller:
            for path in (f"/auth/auth0/callback{codes}", f"/auth0/poll-status{codes}", f"/api/auth/userinfo{codes}"):
                await caller.stream.send_all(build_request(path, {"Cookie": "hunter2"}, b"", "GET"))
            for headers in ({"Authorization": "Bearer hunter2.hunter2.x"}, {"X-API-Key": "hunter2"}):
                await caller.stream.send_all(build_request("/api/auth/userinfo", headers, b"", "GET"))
            await send(cloche, caller, SHIPPED, customer, **{"X-Request-ID": "last"})
            await caller.read_until(b"stream_completed")
        await cloche.wait_logged(ENDED, "last")
        assert len(cloche.find_logged(ENDED)) > 6
        log = cloche.log.read_text()
    for secret in ("hunter2", customer.token, customer.token.rpartition(".")[2], "sk-upstream", "Hello", " alpha"):
        assert secret not in log


async def test_a_stream_that_runs_keeps_its_server(stores: Stores) -> None:
    async with (
        open_fake_upstream(says_and_waits(2)) as upstream,
        open_cloche(stores, upstream.url, VIBE_DEPLOYMENT_TOKEN=TOKEN) as cloche,
    ):
        customer = await cloche.make_customer()
        async with open_caller(cloche) as caller:
            await send(cloche, caller, SHIPPED, customer)
            await caller.read_until(b'"content":" beta"')
            busy = await ask(cloche, DEPLOYMENT, {"Authorization": TOKEN})
            caller.leave()
            await wait_closed(upstream)
        await cloche.wait_settled()
        await wait_ready_to_go(cloche)
    assert (busy["activeStreams"], busy["activeRequests"], busy["readyForShutdown"]) == (1, 1, False)
    assert busy["port"] == cloche.port


async def test_the_streams_of_other_workers_count_and_those_of_another_server_do_not(stores: Stores) -> None:
    async with (
        open_fake_upstream(says_and_waits(2)) as upstream,
        open_cloche(stores, upstream.url, VIBE_DEPLOYMENT_TOKEN=TOKEN, options=("-w", "2")) as cloche,
        open_cloche(stores, upstream.url, VIBE_DEPLOYMENT_TOKEN=TOKEN) as next_one,
    ):
        customer = await cloche.make_customer()
        async with open_caller(cloche) as caller:
            await send(cloche, caller, SHIPPED, customer)
            await caller.read_until(b'"content":" beta"')
            told = [await ask(cloche, DEPLOYMENT, {"Authorization": TOKEN}) for _ in range(12)]
            assert {status["activeStreams"] for status in told} == {1}
            assert not any(status["readyForShutdown"] for status in told)
            assert (await ask(next_one, DEPLOYMENT, {"Authorization": TOKEN}))["readyForShutdown"]
            caller.leave()
        await cloche.wait_settled()


async def wait_ready_to_go(cloche: Cloche) -> None:
    with trio.fail_after(5):
        while not (await ask(cloche, DEPLOYMENT, {"Authorization": f"Bearer {TOKEN}"}))["readyForShutdown"]:
            await trio.sleep(0.01)
