"""Which connection carries the next request, and when a request is sent a second time. Over real sockets."""

import ssl

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import proxy.transport
from proxy.errors import UpstreamBroken, UpstreamTimedOut
from proxy.transport import NetworkTransport, open_transport
from tests.fakes import Close, Pause, Reset, Send, Step, WaitForClose, open_fake_upstream, openai_whole
from tests.proxy.upstreams import ANSWER, PATIENT, ScriptByTurn, Security, ask


async def test_an_answer_that_was_read_to_its_end_leaves_its_connection_to_the_next(
    security: Security, transport: NetworkTransport
) -> None:
    async with open_fake_upstream(ANSWER, tls=security.server) as upstream:
        first, second = await ask(transport, upstream), await ask(transport, upstream)
        assert first == second
        assert len(upstream.connections) == 1
        assert transport.open_connections == transport.idle_connections == 1


def whole(head: bytes, body: bytes = b"{}") -> list[Step]:
    return [Send(head + b"\r\ncontent-length: 2\r\n\r\n" + body)]


@pytest.mark.parametrize(
    "script",
    [
        whole(b"HTTP/1.1 200 OK\r\nconnection: close"),
        whole(b"HTTP/1.0 200 OK"),
        whole(b"HTTP/1.1 200 OK", b"{}HTTP/1.1 200 OK\r\n"),
    ],
    ids=["it asks for a close", "HTTP/1.0", "more than it announced"],
)
async def test_a_connection_whose_provider_ends_it_is_not_kept(script: list[Step], transport: NetworkTransport) -> None:
    async with open_fake_upstream(script) as upstream:
        assert await ask(transport, upstream) == b"{}"
        assert transport.open_connections == 0


async def test_connections_are_kept_for_their_origin_alone(transport: NetworkTransport) -> None:
    async with open_fake_upstream(ANSWER) as one, open_fake_upstream(ANSWER) as other:
        await ask(transport, one)
        await ask(transport, other)
        assert (len(one.connections), len(other.connections)) == (1, 1)
        assert transport.idle_connections == 2


async def test_a_connection_that_was_idle_too_long_is_not_used_again(
    transport: NetworkTransport, autojump_clock: MockClock
) -> None:
    async with open_fake_upstream(ANSWER) as upstream:
        await ask(transport, upstream)
        await trio.sleep(proxy.transport.IDLE_EXPIRY_SECONDS)
        await ask(transport, upstream)
        assert len(upstream.connections) == 2
        await upstream.connections[0].closed_by_client.wait()
        assert transport.open_connections == 1


async def test_idle_connections_are_bounded(transport: NetworkTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy.transport, "MAX_IDLE_PER_ORIGIN", 2)
    async with open_fake_upstream(ANSWER) as upstream:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask, transport, upstream)
        assert transport.idle_connections == transport.open_connections == 2


async def test_a_kept_connection_that_the_provider_has_closed_is_not_tried(
    security: Security, transport: NetworkTransport
) -> None:
    async with open_fake_upstream([*openai_whole("hi"), Close()], tls=security.server) as upstream:
        await ask(transport, upstream)
        await wait_all_tasks_blocked(0.01)
        await ask(transport, upstream)
        assert [len(connection.requests) for connection in upstream.connections] == [1, 1]


async def test_bytes_that_come_between_two_answers_are_nobodys(
    security: Security, transport: NetworkTransport
) -> None:
    late = Send(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
    async with open_fake_upstream([*openai_whole("hi"), Pause(0.01), late], tls=security.server) as upstream:
        first = await ask(transport, upstream)
        await wait_all_tasks_blocked(0.03)
        assert await ask(transport, upstream) == first
        assert len(upstream.connections) == 2


def respond_to_first_then(*ending: Step, times: int) -> ScriptByTurn:
    return ScriptByTurn([openai_whole("hi"), *[list(ending)] * times, openai_whole("again")])


@pytest.mark.parametrize("ending", [Close(), Close(abruptly=True), Reset()])
async def test_a_request_that_a_kept_connection_did_not_take_is_sent_once_more(
    ending: Step, security: Security, transport: NetworkTransport
) -> None:
    async with open_fake_upstream(respond_to_first_then(ending, times=1), tls=security.server) as upstream:
        await ask(transport, upstream)
        assert b"again" in await ask(transport, upstream)
        assert [len(connection.requests) for connection in upstream.connections] == [2, 1]


@pytest.mark.parametrize("ending", [Close(), Reset()])
async def test_a_request_is_sent_no_more_than_twice(ending: Step, transport: NetworkTransport) -> None:
    async with open_fake_upstream(respond_to_first_then(ending, times=5)) as upstream:
        await ask(transport, upstream)
        with pytest.raises(UpstreamBroken, match="without an answer"):
            await ask(transport, upstream)
        assert len(upstream.requests) == 3
        assert transport.open_connections == 0


async def test_a_request_on_a_new_connection_is_never_repeated(transport: NetworkTransport) -> None:
    async with open_fake_upstream([Reset()]) as upstream:
        with pytest.raises(UpstreamBroken):
            await ask(transport, upstream)
        assert len(upstream.requests) == 1


async def test_a_request_is_not_repeated_after_the_first_byte_of_an_answer(transport: NetworkTransport) -> None:
    async with open_fake_upstream(respond_to_first_then(Send(b"H"), Close(), times=1)) as upstream:
        await ask(transport, upstream)
        with pytest.raises(UpstreamBroken, match="within the head"):
            await ask(transport, upstream)
        assert len(upstream.requests) == 2


async def test_a_request_is_not_repeated_after_silence(
    tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext], autojump_clock: MockClock
) -> None:
    async with (
        open_fake_upstream(respond_to_first_then(WaitForClose(), times=1)) as upstream,
        open_transport(PATIENT, ssl_context=tls_contexts[1]) as transport,
    ):
        await ask(transport, upstream)
        with pytest.raises(UpstreamTimedOut):
            await ask(transport, upstream)
        assert len(upstream.requests) == 2


async def test_a_scope_that_was_cancelled_before_sends_nothing_on_a_kept_connection(
    transport: NetworkTransport,
) -> None:
    async with open_fake_upstream(ANSWER) as upstream:
        await ask(transport, upstream)
        with trio.CancelScope() as scope:
            scope.cancel()
            await ask(transport, upstream)
        assert transport.idle_connections == 1
        await ask(transport, upstream, b"later")
        assert [request.body for request in upstream.requests] == [b"{}", b"later"]
