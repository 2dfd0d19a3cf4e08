"""What an answer brings, and how it fails to come. Over real sockets, with a clock that jumps over every silence."""

import ssl
from collections.abc import AsyncIterator, Iterator
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from proxy.errors import UpstreamBroken, UpstreamTimedOut
from proxy.provider import UpstreamRequest
from proxy.transport import Deadlines, NetworkTransport, open_transport
from tests.fakes import (
    END_OF_CHUNKS,
    Close,
    Pause,
    RecordedRequest,
    Reset,
    Send,
    SendChunk,
    Step,
    WaitFor,
    WaitForClose,
    open_fake_upstream,
    openai_stream,
    openai_whole,
    response,
    stream_head,
)
from tests.proxy.upstreams import ANSWER, FakeResolver, Security, ask, build_request

SHORT = Deadlines(connect_seconds=3, response_seconds=5, idle_seconds=8, write_seconds=11)


@pytest.fixture
async def hasty(tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[NetworkTransport]:
    """A transport with deadlines that differ."""
    async with open_transport(SHORT, ssl_context=tls_contexts[1]) as transport:
        yield transport


async def assert_times_out(
    transport: NetworkTransport, request: UpstreamRequest, phase: str, after_seconds: float
) -> None:
    started_at = trio.current_time()
    with pytest.raises(UpstreamTimedOut, match=f"silent for .* seconds \\({phase}\\)") as caught:
        async with transport.open_exchange(request) as exchange:
            await exchange.receive_all(1 << 20)
    assert caught.value.phase == phase
    assert trio.current_time() - started_at == pytest.approx(after_seconds, abs=0.1)
    assert transport.open_connections == 0


async def start_watch(transport: NetworkTransport, nursery: trio.Nursery) -> trio.CancelScope:
    """The scope ends it."""

    async def watch() -> None:
        with scope:
            await transport.watch_silence()

    scope = trio.CancelScope()
    nursery.start_soon(watch)
    await wait_all_tasks_blocked()
    return scope


async def test_a_name_that_is_not_found_in_time_times_out(hasty: NetworkTransport, autojump_clock: MockClock) -> None:
    trio.socket.set_custom_hostname_resolver(FakeResolver(answers=False))
    await assert_times_out(hasty, UpstreamRequest("https://provider.test/", (), b""), "connect", 3)


async def test_a_tls_handshake_without_an_answer_times_out(
    hasty: NetworkTransport, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext], autojump_clock: MockClock
) -> None:
    async with open_fake_upstream(tls=tls_contexts[0], manner="only_listens") as upstream:
        await assert_times_out(hasty, build_request(upstream), "connect", 3)


async def test_a_provider_that_does_not_read_times_out() -> None:
    """In real time: the kernel goes on moving bytes between its buffers for a while."""
    deadlines = Deadlines(connect_seconds=10, response_seconds=10, idle_seconds=10, write_seconds=0.3)
    async with open_fake_upstream(manner="reads_nothing") as upstream, open_transport(deadlines) as transport:
        with pytest.raises(UpstreamTimedOut) as caught:
            await ask(transport, upstream, bytes(16 * 1024 * 1024))
        assert caught.value.phase == "write"
        assert transport.open_connections == 0


@pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_a_provider_that_does_not_answer_times_out(
    beginning: bytes, hasty: NetworkTransport, security: Security, autojump_clock: MockClock
) -> None:
    async with open_fake_upstream([Send(beginning), WaitForClose()], tls=security.server) as upstream:
        await assert_times_out(hasty, build_request(upstream), "response", 5)


async def test_a_provider_that_falls_silent_within_its_answer_times_out(
    hasty: NetworkTransport, security: Security, autojump_clock: MockClock
) -> None:
    script: list[Step] = [stream_head(), Pause(7), SendChunk(b"data: 1\n\n"), WaitForClose()]
    async with open_fake_upstream(script, tls=security.server) as upstream:
        await assert_times_out(hasty, build_request(upstream), "idle", 7 + 8)


async def test_a_slow_answer_that_never_pauses_for_long_is_read_to_its_end(
    hasty: NetworkTransport, security: Security, autojump_clock: MockClock
) -> None:
    async with open_fake_upstream(openai_stream(["a"] * 20, pause_seconds=7), tls=security.server) as upstream:
        assert (await ask(hasty, upstream)).count(b'"content":"a"') == 20


async def test_a_caller_may_think_for_longer_than_a_provider_may_be_silent(
    hasty: NetworkTransport, autojump_clock: MockClock
) -> None:
    async with open_fake_upstream(ANSWER) as upstream, trio.open_nursery() as nursery:
        watch = await start_watch(hasty, nursery)
        async with hasty.open_exchange(build_request(upstream)) as exchange:
            await trio.sleep(100)
            assert await exchange.receive_all(1 << 20)
        watch.cancel()


async def test_a_break_after_a_callers_pause_is_not_taken_for_silence(
    hasty: NetworkTransport, autojump_clock: MockClock
) -> None:
    script: list[Step] = [stream_head(), Pause(1), SendChunk(b"data: 1\n\n"), Pause(100), Reset()]
    async with open_fake_upstream(script) as upstream, trio.open_nursery() as nursery:
        watch = await start_watch(hasty, nursery)
        async with hasty.open_exchange(build_request(upstream)) as exchange:
            assert await exchange.receive_some()
            await trio.sleep(200)
            with pytest.raises(UpstreamBroken):
                await exchange.receive_some()
        watch.cancel()


async def test_silence_is_noticed_by_the_watch_at_most_an_eighth_late(
    hasty: NetworkTransport, security: Security, autojump_clock: MockClock
) -> None:
    script: list[Step] = [stream_head(), SendChunk(b"data: 1\n\n"), Pause(7), SendChunk(b"data: 2\n\n"), WaitForClose()]
    async with open_fake_upstream(script, tls=security.server) as upstream, trio.open_nursery() as nursery:
        watch = await start_watch(hasty, nursery)
        await trio.sleep(0.5)
        await assert_times_out(hasty, build_request(upstream), "idle", 7 + 8.5)
        watch.cancel()


async def test_a_steady_answer_is_left_alone_by_the_watch(
    hasty: NetworkTransport, security: Security, autojump_clock: MockClock
) -> None:
    async with (
        open_fake_upstream(openai_stream(["a"] * 20, pause_seconds=7), tls=security.server) as upstream,
        trio.open_nursery() as nursery,
    ):
        watch = await start_watch(hasty, nursery)
        assert (await ask(hasty, upstream)).count(b'"content":"a"') == 20
        watch.cancel()


async def test_deadlines_hold_also_for_answers_that_outlive_the_watch(
    hasty: NetworkTransport, autojump_clock: MockClock
) -> None:
    async with (
        open_fake_upstream([stream_head(), WaitForClose()]) as upstream,
        trio.open_nursery() as nursery,
    ):
        watch = await start_watch(hasty, nursery)
        async with hasty.open_exchange(build_request(upstream)) as exchange:
            watch.cancel()
            await wait_all_tasks_blocked()
            with pytest.raises(UpstreamTimedOut), trio.fail_after(9):
                await exchange.receive_some()


OK = b"HTTP/1.1 200 OK\r\n"
SIZED = OK + b"content-length: 5\r\n\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("ending", [Close(), Close(abruptly=True), Reset()])
@pytest.mark.parametrize("data", [SIZED + b"abcd", CHUNKED, CHUNKED + b"5\r\nabc", CHUNKED + b"3\r\nabc\r\n0\r\n"])
async def test_an_answer_that_ends_early_is_broken(
    data: bytes, ending: Step, security: Security, transport: NetworkTransport
) -> None:
    async with open_fake_upstream([Send(data), ending], tls=security.server) as upstream:
        with pytest.raises(UpstreamBroken, match=r"^127\.0\.0\.1 "):
            await ask(transport, upstream)
        assert transport.open_connections == 0


@pytest.mark.parametrize("ending", [Close(), Close(abruptly=True), Reset()])
@pytest.mark.parametrize("data", [b"", OK, OK + b"x-long: " + bytes(range(65, 90)) * 100])
async def test_a_head_that_ends_early_is_broken(
    data: bytes, ending: Step, security: Security, transport: NetworkTransport
) -> None:
    async with open_fake_upstream([Send(data), ending], tls=security.server) as upstream:
        with pytest.raises(UpstreamBroken, match=r"^127\.0\.0\.1 "):
            await ask(transport, upstream)
        assert transport.open_connections == 0


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02 nothing that we know\r\n\r\n",
        OK + b"x: " + b"a" * 100_000 + b"\r\n\r\n",
        OK + b"content-encoding: br\r\ncontent-length: 5\r\n\r\nabcde",
        CHUNKED + b"zz\r\n",
    ],
)
async def test_what_is_no_answer_is_broken(data: bytes, transport: NetworkTransport) -> None:
    async with open_fake_upstream([Send(data), WaitForClose()]) as upstream:
        with pytest.raises(UpstreamBroken):
            await ask(transport, upstream)
        assert transport.open_connections == 0


async def test_an_answer_may_come_byte_by_byte(security: Security, transport: NetworkTransport) -> None:
    whole = b"".join(step.data for step in ANSWER if isinstance(step, SendChunk))
    wire = b"".join(
        step.data if isinstance(step, Send) else b"%x\r\n%b\r\n" % (len(step.data), step.data)
        for step in ANSWER
        if isinstance(step, Send | SendChunk)
    )
    async with open_fake_upstream([Send(b"HTTP/1.1 102 Wait\r\n\r\n" + wire, 1)], tls=security.server) as upstream:
        assert await ask(transport, upstream) == whole
        assert await ask(transport, upstream) == whole
        assert len(upstream.connections) == 1


async def test_an_answer_without_a_size_ends_with_its_connection(
    security: Security, transport: NetworkTransport
) -> None:
    async with open_fake_upstream([Send(OK + b"\r\nabc"), Close()], tls=security.server) as upstream:
        assert await ask(transport, upstream) == b"abc"
        assert transport.open_connections == 0


async def test_an_answer_without_a_size_that_tls_does_not_end_could_have_been_cut(
    tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext], transport: NetworkTransport
) -> None:
    async with open_fake_upstream([Send(OK + b"\r\nabc"), Close(abruptly=True)], tls=tls_contexts[0]) as upstream:
        with pytest.raises(UpstreamBroken):
            await ask(transport, upstream)


async def test_the_end_may_be_asked_for_again(transport: NetworkTransport) -> None:
    async with (
        open_fake_upstream(openai_whole("hi")) as upstream,
        transport.open_exchange(build_request(upstream)) as exchange,
    ):
        assert await exchange.receive_some()
        assert await exchange.receive_some() == b""
        assert await exchange.receive_some() == b""


async def test_what_has_come_meanwhile_is_one_batch(security: Security, transport: NetworkTransport) -> None:
    go, sent = trio.Event(), trio.Event()

    def respond(_request: RecordedRequest) -> Iterator[Step]:
        yield from (stream_head(), WaitFor(go))
        yield from (SendChunk(b"data: %d\n\n" % number) for number in range(50))
        sent.set()
        yield WaitForClose()

    async with (
        open_fake_upstream(respond, tls=security.server) as upstream,
        transport.open_exchange(build_request(upstream)) as exchange,
    ):
        go.set()
        await sent.wait()
        await wait_all_tasks_blocked(0.02)  # the kernel may take a moment
        batches = [await exchange.receive_some()]
        while not batches[-1].endswith(b"data: 49\n\n"):
            batches.append(await exchange.receive_some())
    assert len(batches) < 10


async def test_a_cancelled_read_loses_nothing(security: Security, transport: NetworkTransport) -> None:
    script: list[Step] = [stream_head(), *[SendChunk(b"%d," % number) for number in range(200)], END_OF_CHUNKS]
    received = b""
    async with (
        open_fake_upstream(script, tls=security.server) as upstream,
        transport.open_exchange(build_request(upstream)) as exchange,
    ):
        while not received.endswith(b"199,"):
            with trio.move_on_after(0):
                await exchange.receive_some()
            received += await exchange.receive_some()
    assert received == b"".join(b"%d," % number for number in range(200))


async def test_an_answer_above_the_limit_is_broken(transport: NetworkTransport) -> None:
    async with (
        open_fake_upstream(response(200, b"x" * 11)) as upstream,
        transport.open_exchange(build_request(upstream)) as exchange,
    ):
        with pytest.raises(UpstreamBroken, match="more than 10 bytes"):
            await exchange.receive_all(10)


async def test_a_refusal_is_an_answer(transport: NetworkTransport) -> None:
    async with (
        open_fake_upstream(response(429, b"slow down", {"Retry-After": "7"})) as upstream,
        transport.open_exchange(build_request(upstream)) as exchange,
    ):
        assert (exchange.status, exchange.headers["retry-after"]) == (429, "7")
        assert await exchange.receive_all(100) == b"slow down"


async def test_a_provider_may_refuse_before_it_has_read_everything(transport: NetworkTransport) -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno"

    async def refuse_early(stream: trio.SocketStream) -> None:
        await stream.receive_some(100)
        await stream.send_all(refusal)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, refuse_early, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
        async with transport.open_exchange(UpstreamRequest(url, (), bytes(32 * 1024 * 1024))) as exchange:
            assert exchange.status == 413
            assert await exchange.receive_all(100) == b"no"
        assert transport.open_connections == 0
        nursery.cancel_scope.cancel()


async def test_a_large_request_arrives_whole(security: Security, transport: NetworkTransport) -> None:
    body = bytes(range(256)) * 8192
    async with open_fake_upstream(openai_whole("hi"), tls=security.server) as upstream:
        await ask(transport, upstream, body)
        assert upstream.requests[0].body == body
