"""Each test shows one defect mended over a real socket; where it is cheap, also that upstream has it still."""

import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import h11
import hypercorn.trio.run
import pytest
import trio
import trio.testing
from hypercorn.config import Config
from hypercorn.protocol import ProtocolWrapper

from server import hypercorn_fixes
from server.hypercorn_fixes.connection import Connection, Context
from server.hypercorn_fixes.limits import Limits
from tests.server.fixes_client import (
    Http2Client,
    Served,
    ask,
    build_request,
    connect,
    is_closed,
    read_answer,
    read_rest,
    reset,
    serve,
    wait_exit,
)

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("mended")) as served:
        yield served


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("upstream"), FIXES="0") as served:
        yield served


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name for a request of this test."""
    return f"{abs(hash(request.node.nodeid))}"


def test_another_hypercorn_is_refused() -> None:
    with pytest.raises(RuntimeError, match="install the pinned version"):
        hypercorn_fixes._require_hypercorn("0.18.", "0.19.0")


def test_a_name_that_upstream_gave_up_is_noticed() -> None:
    with pytest.raises(RuntimeError, match="has no Quick any more"):
        hypercorn_fixes._replace(hypercorn.trio.run, "Quick", object)


# The end of a response


async def closes_when_asked(served: Served) -> bool:
    async with await connect(served) as stream:
        await stream.send_all(build_request("/hello/a", "connection: close"))
        assert (await read_answer(stream)).body == b"hello a"
        return await is_closed(stream, within_seconds=1)


async def test_connection_close_closes_the_connection(server: Served, upstream: Served) -> None:
    assert await closes_when_asked(server)
    assert not await closes_when_asked(upstream)


async def closes_when_idle(served: Served) -> bool:
    async with await connect(served) as stream:
        for _ in range(2):
            await stream.send_all(build_request("/hello/a"))
            assert (await read_answer(stream)).body == b"hello a"
        return await is_closed(stream, within_seconds=2.5)


async def test_an_idle_connection_ends_with_its_keep_alive_timeout(server: Served, upstream: Served) -> None:
    assert await closes_when_idle(server)
    assert not await closes_when_idle(upstream)


async def test_an_application_that_fails_midway_truncates_the_response(server: Served) -> None:
    async with await connect(server) as stream:
        await stream.send_all(build_request("/asgi/break_off"))
        with pytest.raises(h11.RemoteProtocolError), trio.fail_after(2):
            await read_answer(stream)


# A client that leaves


async def leave(stream: trio.SocketStream, how: str) -> None:
    if how == "RST":
        reset(stream)
    else:
        await stream.aclose()


REQUESTS = {
    "sleep": build_request("/sleep/{name}"),
    "stream": build_request("/stream/{name}/1000000/1/100"),
    "read": build_request("/read/{name}", "content-length: 1000", method="POST") + b"part of it",
}


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("while_it_is", list(REQUESTS))
async def test_a_client_that_leaves_is_noticed_at_once(server: Served, name: str, how: str, while_it_is: str) -> None:
    stream = await connect(server)
    await stream.send_all(REQUESTS[while_it_is].replace(b"{name}", name.encode()))
    await ask(server, f"/begun/{name}")
    await leave(stream, how)
    began = trio.current_time()
    assert await ask(server, f"/ending/{name}") == "left"
    assert trio.current_time() - began < 0.5


@pytest.mark.parametrize("extra", [b"\r\n", build_request("/hello/b")], ids=["empty line", "next request"])
async def test_bytes_after_the_request_do_not_hide_that_the_client_leaves(
    server: Served, upstream: Served, name: str, extra: bytes
) -> None:
    for served in (server, upstream):
        stream = await connect(served)
        await stream.send_all(build_request(f"/sleep/{name}") + extra)
        await ask(served, f"/begun/{name}")
        await stream.aclose()
    assert await ask(server, f"/ending/{name}", within_seconds=0.5) == "left"
    with pytest.raises(trio.TooSlowError):
        await ask(upstream, f"/ending/{name}", within_seconds=0.5)


async def test_a_client_that_only_stops_sending_counts_as_gone(server: Served, name: str) -> None:
    async with await connect(server) as stream:
        await stream.send_all(build_request(f"/sleep/{name}"))
        await stream.send_eof()
        assert await ask(server, f"/ending/{name}") == "left"


async def test_the_disconnect_is_the_last_message_and_stays(server: Served) -> None:
    stream = await connect(server)
    await stream.send_all(build_request("/asgi/receive_twice"))
    await ask(server, "/begun/receive_twice")
    await stream.aclose()
    assert await ask(server, "/ending/received") == "http.disconnect http.disconnect"


# Pipelining


async def test_a_pipelined_request_is_answered_after_the_first(server: Served) -> None:
    async with await connect(server) as stream:
        with trio.fail_after(2):
            await stream.send_all(build_request("/hello/a") + b"\r\n" + build_request("/hello/b"))
            first = await read_answer(stream)
            second = await read_answer(stream, first.rest)
    assert (first.body, second.body) == (b"hello a", b"hello b")


async def test_a_pipelined_upload_is_read_completely(server: Served) -> None:
    upload = build_request("/read/pipelined", f"content-length: {MIB}", method="POST") + b"x" * MIB
    async with await connect(server) as stream, trio.open_nursery() as nursery:
        with trio.fail_after(5):
            nursery.start_soon(stream.send_all, build_request("/stream/a/5/20/10") + upload[:20_000])
            first = await read_answer(stream)
            nursery.start_soon(stream.send_all, upload[20_000:])
            second = await read_answer(stream, first.rest)
    assert (len(first.body), second.body) == (50, b"%d" % MIB)


@pytest.mark.parametrize("pause_seconds", [0, 0.1])
async def test_an_empty_line_between_requests_is_ignored(server: Served, pause_seconds: float) -> None:
    async with await connect(server) as stream:
        for _ in range(3):
            await stream.send_all(build_request("/hello/a") + b"\r\n")
            assert (await read_answer(stream)).status == 200
            await trio.sleep(pause_seconds)
            await stream.send_all(b"\r\n")


async def send_again_and_again(stream: trio.SocketStream, data: bytes, *, pause_seconds: float) -> None:
    with trio.fail_after(1.2):
        while True:
            await stream.send_all(data)
            await trio.sleep(pause_seconds)


async def test_a_client_that_pipelines_without_end_is_dropped(server: Served, name: str) -> None:
    async with await connect(server) as stream:
        await stream.send_all(build_request(f"/sleep/{name}"))
        with pytest.raises(trio.BrokenResourceError):
            await send_again_and_again(stream, b"GET" * 10_000, pause_seconds=0)
    assert await ask(server, f"/ending/{name}") == "left"


# A client that does not read


async def stop_reading(served: Served, name: str) -> trio.SocketStream:
    """Ask for much, and take nothing until the server has no room left."""
    stream = await connect(served)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    await stream.send_all(build_request(f"/stream/{name}/100000/0/65536"))
    await ask(served, f"/begun/{name}")
    return stream


async def test_a_client_that_takes_nothing_is_dropped(server: Served, upstream: Served, name: str) -> None:
    began = trio.current_time()
    streams = [await stop_reading(served, name) for served in (server, upstream)]
    assert await ask(server, f"/ending/{name}") == "left"
    assert 1.5 < trio.current_time() - began < 4
    with pytest.raises(trio.TooSlowError):
        await ask(upstream, f"/ending/{name}", within_seconds=0.5)
    for stream in streams:
        await stream.aclose()


@pytest.mark.parametrize("how", ["FIN", "RST"])
async def test_a_client_that_leaves_frees_a_request_that_waits_to_send(server: Served, name: str, how: str) -> None:
    stream = await stop_reading(server, name)
    await trio.sleep(0.3)  # until the kernel's buffers are full
    if how == "FIN":
        await stream.send_eof()
    else:
        reset(stream)
    assert await ask(server, f"/ending/{name}", within_seconds=0.5) == "left"
    await stream.aclose()


async def test_a_client_that_reads_slowly_gets_every_byte(server: Served) -> None:
    async with await connect(server) as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        await stream.send_all(build_request("/asgi/numbers", "connection: close"))
        received = b""
        for _ in range(5):
            received += await stream.receive_some(100_000)
            await trio.sleep(0.6)  # longer than a write deadline in all
        answer = await read_answer(stream, received)
    assert answer.body == b"".join(b"%07d" % number for number in range(MIB))


async def stop_reading_http2(served: Served, name: str) -> trio.SocketStream:
    """The same with HTTP/2, whose windows are wide open."""
    stream = await connect(served)
    client = Http2Client(stream)
    await client.open_windows()
    await client.start(f"/stream/{name}/100000/0/65536".encode())
    await ask(served, f"/begun/{name}")
    return stream


async def test_a_short_send_never_overtakes_a_long_one() -> None:
    """HTTP/2 streams and WebSocket pongs send from several tasks; the fast path may not cut into the slow one."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listener.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 128 * 1024)
    async with listener, await trio.testing.open_stream_to_socket_listener(listener) as client:
        connection = Connection(Limits(), None, Config(), Context(None), None, await listener.accept())
        connection.protocol = cast(ProtocolWrapper, SimpleNamespace(protocol=None))
        async with connection.stream, trio.open_nursery() as nursery:
            nursery.start_soon(connection.send_bytes, b"a" * 8 * MIB)
            await trio.testing.wait_all_tasks_blocked()
            received = b""
            while b"b" not in received:
                received += await client.receive_some(65536)
                if len(received) < 7 * MIB:
                    nursery.start_soon(connection.send_bytes, b"b")
            assert received.index(b"b") == 8 * MIB
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("stop", [stop_reading, stop_reading_http2])
async def test_a_server_ends_within_its_grace_though_a_client_does_not_read(
    tmp_path: Path, stop: Callable[[Served, str], Awaitable[trio.SocketStream]]
) -> None:
    with serve(tmp_path, grace=0.5, WRITE_DEADLINE="60") as served:
        async with await stop(served, "a"):
            served.process.send_signal(signal.SIGTERM)
            assert await wait_exit(served, within_seconds=4) == 0


# What a client may not ask


async def test_connect_is_refused(server: Served) -> None:
    async with await connect(server) as stream:
        await stream.send_all(b"CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n")
        answer = await read_answer(stream)
        assert (answer.status, answer.headers["connection"]) == (405, "close")
        assert "POST" in answer.headers["allow"]
        assert await is_closed(stream, within_seconds=1)


async def test_a_request_head_that_drips_in_is_cut_off(server: Served) -> None:
    async with await connect(server) as stream:
        with pytest.raises(trio.BrokenResourceError):
            await send_again_and_again(stream, b"G", pause_seconds=0.1)


async def test_a_head_that_is_too_long_is_answered(server: Served) -> None:
    async with await connect(server) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\ncookie: " + b"x" * 10 * MIB)
        assert (await read_answer(stream)).status == 431


# An answer before the upload has ended


@pytest.mark.parametrize("path", ["/read/a", "/asgi/refuse"])
async def test_a_refusal_reaches_a_client_that_uploads_on(server: Served, path: str) -> None:
    async with await connect(server) as stream:
        await stream.send_all(build_request(path, f"content-length: {50 * MIB}", method="POST"))
        with trio.fail_after(10):
            await stream.send_all(bytes(50 * MIB))
            answer = await read_answer(stream)
        assert answer.status == 413
        assert len(answer.body) == int(answer.headers["content-length"]) > 0
        assert answer.headers["connection"] == "close"
        assert await is_closed(stream, within_seconds=1)


async def test_upstream_resets_a_client_that_uploads_on(upstream: Served) -> None:
    async with await connect(upstream) as stream:
        await stream.send_all(build_request("/asgi/refuse", f"content-length: {50 * MIB}", method="POST"))
        with pytest.raises((trio.BrokenResourceError, trio.TooSlowError)), trio.fail_after(2):
            await stream.send_all(bytes(50 * MIB))


async def test_a_client_that_uploads_for_ever_is_dropped(server: Served) -> None:
    async with await connect(server) as stream:
        await stream.send_all(build_request("/read/a", f"content-length: {500 * MIB}", method="POST"))
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(10):
            await stream.send_all(bytes(100 * MIB))


async def test_a_refusal_of_a_whole_request_keeps_the_connection(server: Served) -> None:
    async with await connect(server) as stream:
        for _ in range(2):
            await stream.send_all(build_request("/asgi/refuse", "content-length: 5", method="POST") + b"hello")
            answer = await read_answer(stream)
            assert (answer.status, answer.headers.get("connection")) == (413, None)


async def test_a_websocket_that_is_closed_says_why_to_a_client_that_sends_on(server: Served) -> None:
    key = "sec-websocket-key: " + "A" * 22 + "=="
    upgrade = ["connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13", key]
    async with await connect(server) as stream:
        await stream.send_all(build_request("/hang_up", *upgrade))
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 101")
        for _ in range(20):
            await stream.send_all(b"\x82\xfe\xff\xff\0\0\0\0" + bytes(65535))
        assert await read_rest(stream) == b"\x88\x02" + (4001).to_bytes(2, "big")


# Framing without h11


@pytest.mark.parametrize("request_head", [b"HEAD /stream/a/3/0/10 HTTP/1.1", b"GET /asgi/empty HTTP/1.1"])
async def test_a_response_without_a_body_has_none(server: Served, request_head: bytes) -> None:
    async with await connect(server) as stream:
        await stream.send_all(request_head + b"\r\nhost: test\r\n\r\n")
        first = await read_answer(stream, method=request_head[:4].decode().strip())
        await stream.send_all(build_request("/hello/a"))
        second = await read_answer(stream, first.rest)
    assert (first.body, second.body) == (b"", b"hello a")


async def test_an_old_client_gets_its_body_without_chunks(server: Served) -> None:
    async with await connect(server) as stream:
        await stream.send_all(b"GET /stream/a/3/0/10 HTTP/1.0\r\n\r\n")
        received = await read_rest(stream)
    assert received.endswith(b"\r\n\r\n" + b"x" * 30)


async def test_a_declared_length_is_kept(server: Served) -> None:
    async with await connect(server) as stream:
        await stream.send_all(build_request("/asgi/declared"))
        answer = await read_answer(stream)
    assert (answer.headers["content-length"], answer.body) == ("20", b"x" * 20)


async def test_a_stream_at_full_speed_lets_others_be_answered(server: Served, name: str) -> None:
    async with await connect(server) as stream, trio.open_nursery() as nursery:
        await stream.send_all(build_request(f"/stream/{name}/10000000/0/10"))
        nursery.start_soon(is_closed, stream, 60)
        for _ in range(5):
            assert await ask(server, "/hello/a", within_seconds=1) == "hello a"
        nursery.cancel_scope.cancel()
    assert await ask(server, f"/ending/{name}") == "left"
