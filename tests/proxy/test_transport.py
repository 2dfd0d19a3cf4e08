"""Endings, over real sockets: whatever happens on our side, the provider sees it at once and nothing is left open."""

import socket
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from proxy.errors import RequestNotSendable, UpstreamBroken, UpstreamUnreachable
from proxy.provider import UpstreamRequest
from proxy.transport import NetworkTransport, build_ssl_context, open_transport
from tests.fakes import (
    FakeUpstream,
    Pause,
    RecordedRequest,
    Send,
    SendChunk,
    Step,
    WaitForClose,
    open_fake_upstream,
    openai_whole,
    stream_head,
    upto_chunks,
)
from tests.proxy.upstreams import (
    ANSWER,
    AT_ONCE_SECONDS,
    HALF_AN_ANSWER,
    PATIENT,
    FakeResolver,
    Security,
    ask,
    build_request,
)


async def call_cancelled_when(
    transport: NetworkTransport, request: UpstreamRequest, wait_phase: trio.Event | None = None
) -> float:
    """Makes the call, cancels it when the phase has come and it is blocked there; says when."""

    async def call() -> None:
        async with transport.open_exchange(request) as exchange:
            while await exchange.receive_some():
                pass
            raise AssertionError("the call was to be cancelled")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        if wait_phase is not None:
            await wait_phase.wait()
        await wait_all_tasks_blocked()
        cancelled_at = trio.current_time()
        nursery.cancel_scope.cancel()
    return cancelled_at


async def assert_closed_at_once(upstream: FakeUpstream, since: float) -> None:
    [connection] = upstream.connections
    with trio.fail_after(AT_ONCE_SECONDS):
        await connection.closed_by_client.wait()
    assert connection.closed_at is not None
    assert connection.closed_at - since < AT_ONCE_SECONDS


@pytest.mark.parametrize(
    "script",
    [
        [WaitForClose()],
        [Send(b"HTTP/1.1 200 OK\r\ncontent-"), WaitForClose()],
        [stream_head(), WaitForClose()],
        HALF_AN_ANSWER,
        [stream_head(), Send(b"5\r\nab"), WaitForClose()],
        [*upto_chunks(ANSWER, 3), Send(b"0\r\n"), WaitForClose()],
    ],
    ids=["waiting for the head", "within the head", "before the body", "mid-stream", "within a chunk", "at the end"],
)
async def test_a_call_that_is_cancelled_closes_the_providers_connection_at_once(
    script: list[Step], security: Security, transport: NetworkTransport
) -> None:
    async with open_fake_upstream(script, tls=security.server) as upstream:
        cancelled_at = await call_cancelled_when(transport, build_request(upstream), upstream.requested)
        assert transport.open_connections == 0
        await assert_closed_at_once(upstream, cancelled_at)


async def test_a_call_that_is_cancelled_in_the_tls_handshake_closes_at_once(
    tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext], transport: NetworkTransport
) -> None:
    async with open_fake_upstream(tls=tls_contexts[0], manner="only_listens") as upstream:
        cancelled_at = await call_cancelled_when(transport, build_request(upstream), upstream.connected)
        assert transport.open_connections == 0
        await assert_closed_at_once(upstream, cancelled_at)


async def test_a_call_that_is_cancelled_while_it_sends_closes_at_once(transport: NetworkTransport) -> None:
    """The provider reads nothing, so that a FIN would stay behind megabytes: this needs the reset."""
    async with open_fake_upstream(manner="reads_nothing") as upstream:
        request = build_request(upstream, bytes(16 * 1024 * 1024))
        cancelled_at = await call_cancelled_when(transport, request, upstream.connected)
        assert transport.open_connections == 0
        await assert_closed_at_once(upstream, cancelled_at)


async def test_a_call_that_is_cancelled_while_the_name_is_looked_up_leaves_nothing(transport: NetworkTransport) -> None:
    resolver = FakeResolver(answers=False)
    trio.socket.set_custom_hostname_resolver(resolver)
    request = UpstreamRequest("https://provider.test/v1", (), b"{}")
    await call_cancelled_when(transport, request, resolver.asked)
    assert transport.open_connections == 0


@asynccontextmanager
async def open_full_listener() -> AsyncIterator[str]:
    """A server whose queue is full, so that the kernel lets every further connect wait."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, socket.socket() as filler:
        filler.connect(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


async def test_a_call_that_is_cancelled_while_it_connects_leaves_nothing(transport: NetworkTransport) -> None:
    async with open_full_listener() as url:
        await call_cancelled_when(transport, UpstreamRequest(url, (), b"{}"))
        assert transport.open_connections == 0


async def test_an_attempt_to_connect_counts_as_an_open_connection(transport: NetworkTransport) -> None:
    async with open_full_listener() as url, trio.open_nursery() as nursery:
        nursery.start_soon(call_cancelled_when, transport, UpstreamRequest(url, (), b"{}"), trio.Event())
        await wait_all_tasks_blocked()
        assert transport.open_connections == 1
        nursery.cancel_scope.cancel()


async def test_a_caller_that_stops_reading_and_leaves_closes_at_once(
    security: Security, transport: NetworkTransport
) -> None:
    async with open_fake_upstream(HALF_AN_ANSWER, tls=security.server) as upstream:
        async with transport.open_exchange(build_request(upstream)) as exchange:
            assert await exchange.receive_some()
        left_at = trio.current_time()
        assert transport.open_connections == 0
        await assert_closed_at_once(upstream, left_at)


async def test_a_caller_that_fails_closes_at_once(transport: NetworkTransport) -> None:
    async with open_fake_upstream(HALF_AN_ANSWER) as upstream:
        with pytest.raises(ZeroDivisionError):
            async with transport.open_exchange(build_request(upstream)):
                _ = 1 / 0
        await assert_closed_at_once(upstream, trio.current_time())
        assert transport.open_connections == 0


async def test_a_storm_of_cancelled_calls_leaves_no_connection(
    security: Security, transport: NetworkTransport
) -> None:
    event: list[Step] = [SendChunk(b"data: x\n\n"), Pause(0.001)]
    endless = [stream_head(), *event * 10_000]

    async def call_for(upstream: FakeUpstream, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await ask(transport, upstream)

    async with open_fake_upstream(endless, tls=security.server) as upstream:
        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(call_for, upstream, number % 60 / 1000)
        assert transport.open_connections == 0
        await wait_all_tasks_blocked(0.02)
        with trio.fail_after(10):
            for connection in upstream.connections:
                await connection.closed_by_client.wait()


async def test_leaving_the_transport_closes_every_connection(security: Security) -> None:
    async with (
        open_fake_upstream(respond_whole_to_one, tls=security.server) as upstream,
        trio.open_nursery() as nursery,
    ):
        async with open_transport(PATIENT, ssl_context=security.client) as transport:
            await ask(transport, upstream, b"whole")
            call = partial(expect_broken, transport, upstream)
            nursery.start_soon(call)
            await ask(transport, upstream, b"whole")
            await wait_all_tasks_blocked()
            assert transport.open_connections == 2
        assert transport.open_connections == 0
        with trio.fail_after(AT_ONCE_SECONDS):
            for connection in upstream.connections:
                await connection.closed_by_client.wait()


def respond_whole_to_one(request: RecordedRequest) -> Iterable[Step]:
    return openai_whole("hi") if request.body == b"whole" else HALF_AN_ANSWER


async def expect_broken(transport: NetworkTransport, upstream: FakeUpstream) -> None:
    with pytest.raises(UpstreamBroken):
        await ask(transport, upstream, b"stream")


async def test_a_closed_transport_opens_nothing(security: Security) -> None:
    async with open_fake_upstream(ANSWER) as upstream:
        async with open_transport(PATIENT, ssl_context=security.client) as transport:
            pass
        with pytest.raises(UpstreamUnreachable):
            await ask(transport, upstream)
        assert transport.open_connections == 0


async def test_a_redirect_is_not_followed(transport: NetworkTransport) -> None:
    script: list[Step] = [Send(b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n")]
    async with open_fake_upstream(script) as upstream:
        async with transport.open_exchange(build_request(upstream)) as exchange:
            assert exchange.status == 302
        assert len(upstream.requests) == 1


async def test_proxies_in_the_environment_are_not_used(
    transport: NetworkTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with open_fake_upstream(ANSWER) as upstream:
        assert await ask(transport, upstream)


async def test_nobody_who_listens_is_unreachable(transport: NetworkTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UpstreamUnreachable, match=r"127\.0\.0\.1"):
        async with transport.open_exchange(UpstreamRequest(f"http://127.0.0.1:{port}/", (), b"")):
            pass
    assert transport.open_connections == 0


async def test_a_url_with_user_information_is_refused(transport: NetworkTransport) -> None:
    with pytest.raises(RequestNotSendable):
        async with transport.open_exchange(UpstreamRequest("https://key@provider.test/", (), b"")):
            pass


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_provider_that_proves_its_name_is_asked(
    host: str, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext], transport: NetworkTransport
) -> None:
    trio.socket.set_custom_hostname_resolver(FakeResolver(answers=True))
    async with open_fake_upstream(ANSWER, tls=tls_contexts[0]) as upstream:
        url = upstream.url.replace("127.0.0.1", host)
        async with transport.open_exchange(UpstreamRequest(url, (), b"")) as exchange:
            assert exchange.status == 200
        assert upstream.requests[0].headers["host"] == url.removeprefix("https://")


@pytest.mark.parametrize(("host", "trusts"), [("127.0.0.1", False), ("provider.test", True)])
async def test_a_provider_that_cannot_prove_its_name_is_unreachable(
    host: str, trusts: bool, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    trio.socket.set_custom_hostname_resolver(FakeResolver(answers=True))
    server, client = tls_contexts
    async with (
        open_fake_upstream(ANSWER, tls=server) as upstream,
        open_transport(PATIENT, ssl_context=client if trusts else None) as transport,
    ):
        with pytest.raises(UpstreamUnreachable, match="SSLCertVerificationError"):
            async with transport.open_exchange(UpstreamRequest(upstream.url.replace("127.0.0.1", host), (), b"")):
                pass
        assert upstream.requests == []
        assert transport.open_connections == 0


def test_the_certificates_are_read_once() -> None:
    assert build_ssl_context() is build_ssl_context()


def test_our_own_context_checks_names_and_speaks_http_1_alone() -> None:
    context = build_ssl_context()
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.get_ca_certs()
