"""Each test shows one defect mended over a real socket; where it is cheap, also that upstream has it still."""

import signal
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import h2.events
import h11
import hypercorn.trio.run
import pytest
import trio
import trustme

from server import hypercorn_fixes
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
        await stream.send_all(build_request("/", *upgrade))
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


# HTTP/2


@pytest.mark.parametrize("path", ["/sleep/{name}", "/stream/{name}/1000000/1/100"])
async def test_a_reset_stream_is_noticed_at_once(server: Served, name: str, path: str) -> None:
    async with await connect(server) as stream:
        client = Http2Client(stream)
        stream_id = await client.start(path.replace("{name}", name).encode())
        await ask(server, f"/begun/{name}")
        client.protocol.reset_stream(stream_id)
        await client.flush()
        assert await ask(server, f"/ending/{name}", within_seconds=0.5) == "left"
        assert await client.read_answer(await client.start(b"/hello/a")) == ("200", b"hello a")


async def test_an_http2_response_arrives_completely(server: Served) -> None:
    async with await connect(server) as stream:
        client = Http2Client(stream)
        status, body = await client.read_answer(await client.start(b"/asgi/numbers"))
    assert (status, body) == ("200", b"".join(b"%07d" % number for number in range(MIB)))


async def test_http2_responses_to_a_slow_reader_are_never_mixed_up(server: Served, name: str) -> None:
    async with await connect(server) as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client = Http2Client(stream)
        await client.open_windows()
        wanted = await client.start(b"/asgi/numbers")
        await trio.sleep(0.2)  # until the kernel's buffers are full
        received = 0
        while received < 7 * MIB:  # ask for more whenever a little room has come up
            if client.protocol.open_outbound_streams < 100:
                await client.start(b"/hello/a")
            event = await client.next_event()
            assert not isinstance(event, h2.events.ConnectionTerminated)
            if isinstance(event, h2.events.DataReceived) and event.stream_id == wanted:
                received += len(event.data)


async def test_an_http2_client_that_grants_no_window_loses_its_stream(server: Served, name: str) -> None:
    async with await connect(server) as stream:
        client = Http2Client(stream)
        await client.start(f"/stream/{name}/100000/0/65536".encode())
        with trio.fail_after(4):
            while not isinstance(await client.next_event(), h2.events.StreamReset):
                pass
        assert await ask(server, f"/ending/{name}", within_seconds=1) == "left"


async def upload_on(served: Served) -> tuple[str, bytes]:
    """Send a body that was refused already, then ask for something else."""
    async with await connect(served) as stream:
        client = Http2Client(stream)
        refused = await client.start(b"/asgi/refuse", method="POST", ends=False)
        assert await client.read_answer(refused) == ("413", b"too large")
        for _ in range(3):
            client.protocol.send_data(refused, b"x" * 10_000)
            await client.flush()
        return await client.read_answer(await client.start(b"/hello/a"))


async def ask_for_bytes(served: Served) -> tuple[str, bytes]:
    async with await connect(served) as stream:
        client = Http2Client(stream)
        return await client.read_answer(await client.start(b"/\xff"))


async def test_an_http2_upload_goes_on_after_its_refusal(server: Served) -> None:
    assert await upload_on(server) == ("200", b"hello a")


async def test_a_path_that_is_no_text_is_refused(server: Served) -> None:
    assert (await ask_for_bytes(server))[0] == "400"


async def test_an_http2_connect_is_refused(server: Served) -> None:
    async with await connect(server) as stream:
        client = Http2Client(stream)
        stream_id = client.protocol.get_next_available_stream_id()
        client.protocol.send_headers(stream_id, [(b":method", b"CONNECT"), (b":authority", b"example.com:443")])
        await client.flush()
        assert (await client.read_answer(stream_id))[0] == "405"


@pytest.mark.parametrize("attack", [upload_on, ask_for_bytes])
async def test_upstream_dies_of_one_http2_frame(
    tmp_path: Path, attack: Callable[[Served], Awaitable[tuple[str, bytes]]]
) -> None:
    with serve(tmp_path, FIXES="0") as served:
        with pytest.raises(trio.BrokenResourceError):
            await attack(served)
        assert await wait_exit(served, within_seconds=5) != 0


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("secure")
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(folder / "key")
    issued.cert_chain_pems[0].write_to_path(folder / "cert")
    with serve(folder, "--certfile", str(folder / "cert"), "--keyfile", str(folder / "key")) as served:
        yield served


async def connect_securely(
    served: Served, authority: trustme.CA, protocol: str = "http/1.1"
) -> trio.SSLStream[trio.SocketStream]:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.set_alpn_protocols([protocol])
    stream = trio.SSLStream(await connect(served), context, server_hostname="localhost", https_compatible=True)
    await stream.do_handshake()
    assert stream.selected_alpn_protocol() == protocol
    return stream


async def test_a_response_arrives_completely_over_tls(secure: Served, authority: trustme.CA) -> None:
    async with await connect_securely(secure, authority) as stream:
        await stream.send_all(build_request("/asgi/numbers", "connection: close"))
        answer = await read_answer(stream)
        with trio.fail_after(1):
            assert await stream.receive_some() == b""
    assert answer.body == b"".join(b"%07d" % number for number in range(MIB))


async def test_an_http2_response_arrives_completely_over_tls(secure: Served, authority: trustme.CA) -> None:
    async with await connect_securely(secure, authority, "h2") as stream:
        client = Http2Client(stream)
        status, body = await client.read_answer(await client.start(b"/asgi/numbers"))
    assert (status, len(body)) == ("200", 7 * MIB)


async def test_a_client_that_takes_nothing_is_dropped_over_tls(
    secure: Served, authority: trustme.CA, name: str
) -> None:
    async with await connect_securely(secure, authority) as stream:
        await stream.send_all(build_request(f"/stream/{name}/100000/0/65536"))
        async with await connect_securely(secure, authority) as other:
            await other.send_all(build_request(f"/ending/{name}"))
            with trio.fail_after(4):
                assert (await read_answer(other)).body == b"left"


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [0, 1, 2])
async def test_streams_end_before_the_server_does(tmp_path: Path, workers: int, number: signal.Signals) -> None:
    with serve(tmp_path, workers=workers) as served:
        async with await connect(served) as one, await connect(served) as two:
            for stream in (one, two):
                await stream.send_all(build_request("/stream/a/10/100/10"))
                await stream.receive_some(10)
            served.process.send_signal(number)
            with trio.fail_after(4):
                bodies = [await read_rest(stream) for stream in (one, two)]
        assert await wait_exit(served, within_seconds=4) == 0
    assert all(body.endswith(b"0\r\n\r\n") for body in bodies)


async def test_a_second_interrupt_ends_the_server_at_once(tmp_path: Path) -> None:
    with serve(tmp_path) as served:
        async with await connect(served) as stream:
            await stream.send_all(build_request("/sleep/a"))
            await ask(served, "/begun/a")
            for _ in range(2):
                served.process.send_signal(signal.SIGINT)
                await trio.sleep(0.1)
            await wait_exit(served, within_seconds=2)


async def test_the_grace_is_the_last_word(tmp_path: Path) -> None:
    with serve(tmp_path, grace=0.5) as served:
        async with await connect(served) as stream:
            await stream.send_all(build_request("/sleep/a"))
            await ask(served, "/begun/a")
            served.process.send_signal(signal.SIGTERM)
            assert await wait_exit(served, within_seconds=3) == 0


async def test_workers_leave_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    with serve(tmp_path, workers=1) as served:
        async with await connect(served) as stream:
            await stream.send_all(build_request("/stream/a/10/100/10"))
            await stream.receive_some(10)
            served.process.kill()
            with trio.fail_after(4):
                assert (await read_rest(stream)).endswith(b"0\r\n\r\n")
        with pytest.raises(OSError, match="all attempts to connect"):
            await connect_until_refused(served)


async def connect_until_refused(served: Served) -> None:
    with trio.fail_after(4):
        while True:
            (await connect(served)).socket.close()
            await trio.sleep(0.05)


# Lifespan


@pytest.mark.parametrize("workers", [0, 1, 2])
async def test_an_application_that_cannot_start_says_why_and_ends(tmp_path: Path, workers: int) -> None:
    with serve(tmp_path, workers=workers, LIFESPAN="failed") as served:
        assert await wait_exit(served, within_seconds=8) != 0
    assert "The database is missing.\nStart it.\n" in served.said()
    assert "Traceback" not in served.said()


async def test_an_application_that_breaks_at_its_start_ends_with_a_traceback(tmp_path: Path) -> None:
    with serve(tmp_path, LIFESPAN="raises") as served:
        assert await wait_exit(served, within_seconds=5) == 1
    assert "RuntimeError: a fault of the program" in served.said()


@pytest.mark.parametrize("workers", [0, 1])
async def test_an_application_whose_lifespan_dies_lets_streams_end(tmp_path: Path, workers: int) -> None:
    with serve(tmp_path, workers=workers, LIFESPAN="dies") as served:
        async with await connect(served) as stream:
            await stream.send_all(build_request("/stream/dying/10/100/10"))
            with trio.fail_after(6):
                assert (await read_rest(stream)).endswith(b"0\r\n\r\n")
        assert await wait_exit(served, within_seconds=4) != 0
    assert "RuntimeError: a loop has died" in served.said()


async def test_upstream_serves_on_without_its_lifespan(tmp_path: Path) -> None:
    with serve(tmp_path, FIXES="0", LIFESPAN="raises") as served:
        assert await ask(served, "/hello/a") == "hello a"
