"""A request whose body ends with a file, over real sockets, with TLS and without."""

import gc
import ssl
import tracemalloc
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import h11
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from proxy.body_pieces import PIECE_BYTES
from proxy.errors import MediaUnreadable, UpstreamBroken, UpstreamTimedOut
from proxy.media_file import BodyTail, MediaFile
from proxy.provider import UpstreamRequest
from proxy.transport import Deadlines, NetworkTransport, open_transport
from tests.fakes import FakeUpstream, WaitForClose, open_fake_upstream, response
from tests.proxy.upstreams import ANSWER, AT_ONCE_SECONDS, Security
from tests.sounds import FileInMemory

Serve = Callable[[trio.abc.Stream], Awaitable[None]]
SIZES = (0, 1, 2, 3, PIECE_BYTES - 1, PIECE_BYTES, 256 * 1024 - 1, 256 * 1024 + 1, 5 * 1024 * 1024)
LARGE_BYTES = 64 * 1024 * 1024
ACCEPTANCE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
REFUSAL = b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno"


def build_upload(url: str, file: MediaFile, *, is_base64: bool = False) -> UpstreamRequest:
    return UpstreamRequest(f"{url}/v1/upload", (), b"before|", tail=BodyTail(file, b"|after", is_base64))


@asynccontextmanager
async def open_server(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A provider that is one function; its URL."""

    async def serve_tcp(tcp: trio.SocketStream) -> None:
        await serve(tcp if tls is None else trio.SSLStream(tcp, tls, server_side=True))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve_tcp, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        nursery.cancel_scope.cancel()


@dataclass(frozen=True, slots=True)
class EndlessFile:
    """As large as it says, without being anywhere. Counts how much of it was read."""

    size_bytes: int
    offsets: list[int] = field(default_factory=list)

    async def read_at(self, offset: int, most_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        self.offsets.append(offset)
        return bytes(min(most_bytes, self.size_bytes - offset))


@dataclass(frozen=True, slots=True)
class BrokenFile:
    size_bytes: int = LARGE_BYTES

    async def read_at(self, offset: int, most_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        if offset:
            raise OSError(5, "the disk is gone")
        return bytes(most_bytes)


@pytest.mark.parametrize("is_base64", [False, True])
async def test_a_provider_gets_exactly_the_bytes(
    is_base64: bool, transport: NetworkTransport, security: Security
) -> None:
    async with open_fake_upstream(ANSWER, tls=security.server) as upstream:
        for size_bytes in SIZES:
            data = (b"\0\xff\r\nsound" * (size_bytes // 9 + 1))[:size_bytes]
            request = build_upload(upstream.url, FileInMemory(data), is_base64=is_base64)
            async with transport.open_exchange(request) as exchange:
                assert exchange.status == 200
                await exchange.receive_all(1 << 20)
            body = b"before|" + (b64encode(data) if is_base64 else data) + b"|after"
            assert upstream.requests[-1].body == body
            assert upstream.requests[-1].headers["content-length"] == str(len(body))
        assert len(upstream.connections) == 1, "the connection is as good as before"


async def receive_request(stream: trio.abc.Stream, begun: bytes = b"") -> bytes:
    """The body of one, whose beginning may have been read."""
    parser, body = h11.Connection(h11.SERVER), bytearray()
    if begun:
        parser.receive_data(begun)
    while not isinstance(event := parser.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            parser.receive_data(bytes(await stream.receive_some()))
        elif isinstance(event, h11.Data):
            body += event.data
    return bytes(body)


async def swallow(stream: trio.abc.Stream) -> None:
    """Reads a request of any length, keeps nothing, and says yes."""
    parser = h11.Connection(h11.SERVER)
    while not isinstance(event := parser.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            parser.receive_data(bytes(await stream.receive_some()))
    await stream.send_all(ACCEPTANCE)


async def test_a_large_file_takes_no_room_in_memory() -> None:
    async with open_server(swallow) as url, open_transport(Deadlines(10, 10, 10, 10)) as transport:
        gc.collect()
        tracemalloc.start()
        try:
            async with transport.open_exchange(build_upload(url, EndlessFile(LARGE_BYTES), is_base64=True)) as exchange:
                assert exchange.status == 200
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak_bytes < 2 * 1024 * 1024


async def test_a_request_that_a_kept_connection_did_not_take_is_sent_again_from_the_beginning(
    transport: NetworkTransport,
) -> None:
    data = bytes(range(256)) * 1024
    bodies: list[bytes] = []

    async def answer_once(stream: trio.abc.Stream) -> None:
        """And close while the next request is coming."""
        bodies.append(await receive_request(stream))
        await stream.send_all(ACCEPTANCE)
        await stream.receive_some(1000)
        await trio.aclose_forcefully(stream)

    async with open_server(answer_once) as url:
        for _ in range(2):
            async with transport.open_exchange(build_upload(url, FileInMemory(data))) as exchange:
                assert await exchange.receive_all(10) == b"ok"
    assert bodies == [b"before|" + data + b"|after"] * 2


async def refuse_and_read_no_more(stream: trio.abc.Stream) -> None:
    """As soon as the head has come; what comes then stays where it is."""
    await stream.receive_some(1000)
    await stream.send_all(REFUSAL)
    await trio.sleep_forever()


async def refuse_and_end(stream: trio.abc.Stream) -> None:
    await stream.receive_some(1000)
    await stream.send_all(REFUSAL)
    if isinstance(stream, trio.SocketStream):
        await stream.send_eof()
    await trio.sleep_forever()


@pytest.mark.parametrize("serve", [refuse_and_read_no_more, refuse_and_end])
async def test_an_answer_that_comes_early_counts_though_nobody_reads_on(serve: Serve, security: Security) -> None:
    """The deadlines are long: they are not what ends this."""
    file = EndlessFile(LARGE_BYTES)
    async with (
        open_server(serve, security.server) as url,
        open_transport(Deadlines(10, 60, 60, 60), ssl_context=security.client) as transport,
    ):
        with trio.fail_after(AT_ONCE_SECONDS + 1):
            async with transport.open_exchange(build_upload(url, file)) as exchange:
                assert exchange.status == 413
                assert await exchange.receive_all(100) == b"no"
        assert transport.open_connections == 0, "half a request has gone out: nothing can follow it"
    assert max(file.offsets) < LARGE_BYTES / 2


async def wait_stuck(file: "EndlessFile | WatchedFile") -> None:
    """Until no more of it is read, because the kernel takes no more: it tries again after a fifth of a second."""
    seen = -1
    while seen != len(file.offsets):
        seen = len(file.offsets)
        await trio.sleep(0.3)


async def test_an_answer_that_comes_when_nothing_more_can_be_sent_is_noticed(security: Security) -> None:
    file = EndlessFile(LARGE_BYTES)

    async def refuse_late(stream: trio.abc.Stream) -> None:
        await stream.receive_some(1000)
        await wait_stuck(file)
        await stream.send_all(REFUSAL)
        await trio.sleep_forever()

    async with (
        open_server(refuse_late, security.server) as url,
        open_transport(Deadlines(10, 60, 60, 60), ssl_context=security.client) as transport,
    ):
        with trio.fail_after(5):
            async with transport.open_exchange(build_upload(url, file)) as exchange:
                assert exchange.status == 413


@dataclass(frozen=True, slots=True)
class WatchedFile:
    data: bytes
    offsets: list[int] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    async def read_at(self, offset: int, most_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        self.offsets.append(offset)
        return self.data[offset : offset + most_bytes]


async def test_a_provider_that_takes_its_time_gets_exactly_the_bytes(
    transport: NetworkTransport, security: Security
) -> None:
    """The socket is full in the middle of a piece, and of what TLS has made of it."""
    file = WatchedFile(b"".join(number.to_bytes(4, "big") for number in range(2 * 1024 * 1024)))
    bodies: list[bytes] = []

    async def read_late(stream: trio.abc.Stream) -> None:
        await stream.receive_some(1)
        await wait_stuck(file)
        bodies.append(await receive_request(stream, b"P"))
        await stream.send_all(ACCEPTANCE)

    async with (
        open_server(read_late, security.server) as url,
        transport.open_exchange(build_upload(url, file)) as exchange,
    ):
        assert await exchange.receive_all(10) == b"ok"
    assert bodies == [b"before|" + file.data + b"|after"]


async def test_an_interim_answer_does_not_end_an_upload(transport: NetworkTransport) -> None:
    data = bytes(3 * PIECE_BYTES)
    sizes: list[int] = []

    async def answer_twice(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
        sizes.append(len(await receive_request(stream)))
        await stream.send_all(ACCEPTANCE)

    async with (
        open_server(answer_twice) as url,
        transport.open_exchange(build_upload(url, FileInMemory(data))) as exchange,
    ):
        assert exchange.status == 200
    assert sizes == [len(data) + len(b"before||after")]


async def end_orderly(stream: trio.abc.Stream) -> None:
    await stream.receive_some(1000)
    if isinstance(stream, trio.SocketStream):
        await stream.send_eof()
    await trio.sleep_forever()


async def end_abruptly(stream: trio.abc.Stream) -> None:
    await stream.receive_some(1000)
    await trio.aclose_forcefully(stream)


@pytest.mark.parametrize("serve", [end_orderly, end_abruptly])
async def test_a_provider_that_closes_while_it_is_sent_to_breaks_the_call(
    serve: Serve, transport: NetworkTransport
) -> None:
    async with open_server(serve) as url:
        with trio.fail_after(AT_ONCE_SECONDS + 1), pytest.raises(UpstreamBroken):
            async with transport.open_exchange(build_upload(url, EndlessFile(LARGE_BYTES))):
                pass
        assert transport.open_connections == 0


async def be_silent(stream: trio.abc.Stream) -> None:
    await stream.receive_some(100)
    await trio.sleep_forever()


async def test_a_provider_that_takes_nothing_times_out(security: Security) -> None:
    """In real time, as the kernel's buffers are."""
    deadlines = Deadlines(connect_seconds=10, response_seconds=10, idle_seconds=10, write_seconds=0.4)
    async with (
        open_server(be_silent, security.server) as url,
        open_transport(deadlines, ssl_context=security.client) as transport,
    ):
        with pytest.raises(UpstreamTimedOut) as caught:
            async with transport.open_exchange(build_upload(url, EndlessFile(LARGE_BYTES))):
                pass
        assert caught.value.phase == "write"
        assert transport.open_connections == 0


async def test_who_leaves_while_a_file_is_sent_closes_the_connection_at_once(
    transport: NetworkTransport, security: Security
) -> None:
    async with open_fake_upstream([WaitForClose()], tls=security.server) as upstream:
        with trio.move_on_after(0.05) as scope:
            async with transport.open_exchange(build_upload(upstream.url, EndlessFile(10**12))):
                pass
        assert scope.cancelled_caught
        assert transport.open_connections == 0
        await assert_noticed(upstream)
        assert upstream.requests == [], "it was in the middle"


async def assert_noticed(upstream: FakeUpstream) -> None:
    with trio.fail_after(AT_ONCE_SECONDS):
        for connection in upstream.connections:
            await connection.closed_by_client.wait()


async def test_a_file_that_cannot_be_read_is_not_taken_for_the_providers_fault(
    transport: NetworkTransport, security: Security
) -> None:
    async with open_fake_upstream([WaitForClose()], tls=security.server) as upstream:
        with pytest.raises(MediaUnreadable) as caught:
            async with transport.open_exchange(build_upload(upstream.url, BrokenFile())):
                pass
        assert isinstance(caught.value.__cause__, OSError)
        assert transport.open_connections == 0
        await assert_noticed(upstream)


async def test_others_run_while_a_file_is_sent(transport: NetworkTransport) -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with open_fake_upstream(response(200, b"")) as upstream, trio.open_nursery() as nursery:
        await wait_all_tasks_blocked()
        nursery.start_soon(count_turns)
        async with transport.open_exchange(build_upload(upstream.url, FileInMemory(bytes(8 * 1024 * 1024)))):
            pass
        nursery.cancel_scope.cancel()
    assert turns > 8 * 1024 * 1024 / PIECE_BYTES
