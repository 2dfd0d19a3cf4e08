"""WebSockets over real sockets, as mended; where it is cheap, also what upstream makes of the same bytes."""

import signal
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import h2.events
import pytest
import trio

from server.hypercorn_fixes.socket_mailbox import SocketMailbox
from tests.raw_websocket import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    UPGRADE,
    RawSocket,
    build_close,
    build_frame,
    build_handshake,
    open_raw,
)
from tests.server.fixes_client import Http2Client, Served, ask, connect, reset, serve, wait_exit

MIB = 1024 * 1024
DEFLATE = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}


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
    """A name for the socket of this test."""
    return f"{abs(hash(request.node.nodeid))}"


@asynccontextmanager
async def open_socket(
    served: Served, path: str, headers: Mapping[str, str | None] | None = None, sent_along: bytes = b""
) -> AsyncIterator[RawSocket]:
    raw = await open_raw(served.address[1], path, headers, sent_along)
    async with raw.stream:
        yield raw


async def close_code(served: Served, *frames: bytes) -> int | str | None:
    """How an echo ends that is sent these."""
    async with open_socket(served, "/echo") as raw:
        await raw.send(*frames)
        try:
            return await raw.read_close()
        except (EOFError, trio.BrokenResourceError):
            return "no close frame"


# The handshake


async def offered(served: Served) -> str | None:
    async with open_socket(served, "/echo", DEFLATE) as raw:
        assert raw.status == 101
        return raw.headers.get("sec-websocket-extensions")


async def test_compression_is_never_agreed_upon(server: Served, upstream: Served) -> None:
    assert await offered(server) is None
    assert await offered(upstream) is not None


async def test_the_clients_key_is_answered(server: Served) -> None:
    """The example of RFC 6455, 1.3."""
    async with open_socket(server, "/echo") as raw:
        assert raw.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


async def test_what_comes_with_the_handshake_is_received_when_it_is_accepted(server: Served, upstream: Served) -> None:
    async with open_socket(server, "/dawdle", sent_along=build_frame(TEXT, b"early")) as raw:
        assert raw.status == 101
        assert await raw.read_frame() == (TEXT, b"early")
    async with open_socket(upstream, "/dawdle", sent_along=build_frame(TEXT, b"early")) as raw:
        assert raw.status == 400


async def test_a_handshake_may_be_refused_by_any_answer_which_says_that_it_is_the_last(server: Served) -> None:
    async with open_socket(server, "/deny", sent_along=build_frame(TEXT, b"early")) as raw:
        assert (raw.status, raw.headers["connection"]) == (401, "close")
        assert await raw.read_rest() == b"no"


@pytest.mark.parametrize("headers", [{"Sec-WebSocket-Version": "8"}, {"Sec-WebSocket-Key": None}])
async def test_what_is_no_valid_handshake_is_never_accepted(server: Served, headers: Mapping[str, str | None]) -> None:
    async with open_socket(server, "/echo", headers) as raw:
        assert raw.status == 400  # whatever the application says
        assert await raw.read_rest() == b""


async def test_a_handshake_of_http_1_0_is_refused_and_its_connection_closed(server: Served) -> None:
    handshake = build_handshake("/echo").replace(b"HTTP/1.1", b"HTTP/1.0")
    with trio.fail_after(5):
        async with await trio.open_tcp_stream(*server.address) as stream:
            await stream.send_all(handshake)
            answer = b"".join([piece async for piece in stream])
    assert answer.startswith(b"HTTP/1.1 400 ")


# Messages


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 3 * MIB])
async def test_messages_of_any_length_come_and_go_whole(server: Served, opcode: int, size: int) -> None:
    payload = b"0123456789" * (size // 10) + b"x" * (size % 10)
    async with open_socket(server, "/echo") as raw:
        await raw.send(build_frame(opcode, payload))
        assert await raw.read_frame() == (opcode, payload)


async def test_a_message_in_pieces_arrives_whole_and_control_frames_between_them_at_once(server: Served) -> None:
    word = "größer".encode()
    async with open_socket(server, "/echo") as raw:
        await raw.send(build_frame(TEXT, word[:3], is_final=False), build_frame(PING, b"1"))
        assert await raw.read_frame() == (PONG, b"1")
        await raw.send(build_frame(0, word[3:4], is_final=False), build_frame(0, is_final=False))
        await raw.send(build_frame(PONG), build_frame(0, word[4:]))
        assert await raw.read_frame() == (TEXT, word)


async def test_a_message_in_single_bytes_arrives_whole(server: Served) -> None:
    async with open_socket(server, "/echo") as raw:
        for byte in build_frame(BINARY, b"x" * 200):
            await raw.send(bytes([byte]))
        assert await raw.read_frame() == (BINARY, b"x" * 200)


async def test_pings_and_pongs_are_visible_to_the_application(server: Served, upstream: Served) -> None:
    frames = [build_frame(PING, b"a"), build_frame(PONG, b"b"), build_frame(TEXT, b"tell")]
    async with open_socket(server, "/list") as raw:
        await raw.send(*frames)
        assert await raw.read_frame() == (PONG, b"a")
        assert await raw.read_frame() == (TEXT, b"ping= pong=b")
    async with open_socket(upstream, "/list") as raw:
        await raw.send(*frames)
        assert await raw.read_frame() == (PONG, b"a")
        assert await raw.read_frame() == (TEXT, b"")


# What is no message


FAULTS = {
    "a frame that is not masked": (1002, build_frame(TEXT, b"x", is_masked=False)),
    "a reserved bit": (1002, build_frame(0x40 | TEXT, b"x")),
    "a reserved opcode": (1002, build_frame(0x3, b"x")),
    "a continuation of nothing": (1002, build_frame(0x0, b"x")),
    "a message within a message": (1002, build_frame(TEXT, b"x", is_final=False) + build_frame(TEXT, b"y")),
    "a ping in pieces": (1002, build_frame(PING, is_final=False)),
    "a ping that is too long": (1002, build_frame(PING, bytes(126))),
    "a close code that there is not": (1002, build_close(1005)),
    "half a close code": (1002, build_frame(CLOSE, b"\x03")),
    "a reason that is not UTF-8": (1007, build_close(1000, b"\xff")),
    "text that is not UTF-8": (1007, build_frame(TEXT, b"\xc3\x28")),
    "text that ends within a letter": (1007, build_frame(TEXT, b"\xe2\x82")),
    "more than a message may have": (1009, b"\x82\xff" + (32 * MIB + 1).to_bytes(8, "big") + b"keys"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
async def test_a_fault_of_the_client_is_told_by_its_code(server: Served, fault: str) -> None:
    code, frames = FAULTS[fault]
    assert await close_code(server, frames) == code


async def test_upstream_drops_a_client_that_compresses_without_a_word(upstream: Served) -> None:
    assert await close_code(upstream, build_frame(0x40 | TEXT, b"x")) == "no close frame"


async def test_upstream_buffers_what_is_too_large_before_it_refuses_it(upstream: Served) -> None:
    with trio.move_on_after(0.3):
        await close_code(upstream, FAULTS["more than a message may have"][1])
        raise AssertionError("upstream refuses it by its head now")


async def test_the_largest_message_is_measured_in_bytes_over_all_its_pieces(server: Served) -> None:
    """A letter of three bytes counts for three; a head that announces too much is enough."""
    piece = build_frame(0, "漢".encode() * (8 * MIB // 3), is_final=False)
    async with open_socket(server, "/echo") as raw:
        await raw.send(build_frame(TEXT, is_final=False), piece, piece, piece, piece)
        await raw.send(b"\x80\xff" + (64 * 1024).to_bytes(8, "big") + b"keys")
        assert await raw.read_close() == 1009


async def test_the_application_hears_why_its_client_was_sent_away(server: Served, name: str) -> None:
    async with open_socket(server, f"/echo/{name}") as raw:
        await raw.send(build_frame(TEXT, b"\xff"))
        assert await raw.read_close() == 1007
    assert await ask(server, f"/ending/{name}") == "1007"


# The end


@pytest.mark.parametrize("code", [1000, 1001, 1014, 3000, 4999, None])
async def test_a_close_is_echoed_with_its_code(server: Served, name: str, code: int | None) -> None:
    async with open_socket(server, f"/echo/{name}") as raw:
        await raw.send(build_frame(CLOSE) if code is None else build_close(code, b"reason"), build_frame(TEXT, b"late"))
        assert await raw.read_close() == code
    assert await ask(server, f"/ending/{name}") == str(code or 1005)


async def test_what_was_sent_before_a_close_is_answered_first(server: Served) -> None:
    async with open_socket(server, "/echo") as raw:
        await raw.send(*(build_frame(TEXT, b"%d" % number) for number in range(3)))
        for number in range(3):
            assert await raw.read_frame() == (TEXT, b"%d" % number)
        await raw.send(build_close(1000))
        assert await raw.read_close() == 1000


@pytest.mark.parametrize("how", ["FIN", "RST"])
async def test_a_client_that_leaves_without_a_word_is_noticed_at_once(server: Served, name: str, how: str) -> None:
    async with open_socket(server, f"/echo/{name}") as raw:
        await raw.send(build_frame(TEXT, b"x"))
        await raw.read_frame()
        if how == "RST":
            reset(raw.stream)
    assert await ask(server, f"/ending/{name}", within_seconds=1) == "1006"


async def test_a_handler_that_fails_closes_with_a_code_that_makes_clients_come_again(server: Served) -> None:
    async with open_socket(server, "/fail") as raw:
        assert await raw.read_frame() == (CLOSE, (1011).to_bytes(2, "big"))
        await raw.send(build_close(1011))
        assert await raw.read_rest() == b""


async def test_what_is_sent_after_a_close_goes_nowhere(server: Served, name: str) -> None:
    async with open_socket(server, f"/close/{name}") as raw:
        opcode, payload = await raw.read_frame()
        assert (opcode, len(payload)) == (CLOSE, 125)
        assert payload.startswith(b"\x0f\xa1enough ")
        await raw.send(build_close(4001))
        assert await raw.read_rest() == b""
    assert await ask(server, f"/ending/{name}") == "4001"


async def test_after_our_close_the_clients_own_is_waited_for_and_nothing_else(server: Served) -> None:
    async with open_socket(server, "/close") as raw:
        await raw.read_frame()
        await raw.send(build_frame(TEXT, b"x"), build_frame(PING))
        with trio.move_on_after(0.2) as scope:
            await raw.stream.receive_some()
        assert scope.cancelled_caught
        await raw.send(build_close(4001))
        with trio.fail_after(1):
            assert await raw.stream.receive_some() == b""


async def test_a_handler_may_hear_out_whom_it_has_told_to_go(server: Served, name: str) -> None:
    async with open_socket(server, f"/hear/{name}") as raw:
        assert (await raw.read_frame())[0] == CLOSE
        await raw.send(build_frame(TEXT, b"first"), build_frame(PING), build_frame(TEXT, b"last"), build_close(1012))
        assert await raw.read_rest() == b""
    assert await ask(server, f"/ending/{name}") == "['first', 'websocket.ping', 'last'] 1012"


# Clients that are slow


async def test_a_client_that_takes_nothing_is_dropped_and_its_sender_told(server: Served, name: str) -> None:
    """The write deadline is two seconds here."""
    async with open_socket(server, f"/flood/{name}"):
        assert await ask(server, f"/ending/{name}", within_seconds=6) == "gone 1006"


async def test_a_sender_hears_of_a_client_that_closes(server: Served, name: str) -> None:
    async with open_socket(server, f"/flood/{name}") as raw:
        await raw.send(build_close(4000))
        while (await raw.read_frame())[0] != CLOSE:
            pass
    assert await ask(server, f"/ending/{name}") == "gone 4000"


async def test_a_slow_reader_is_heard_while_something_waits_for_it(server: Served, name: str) -> None:
    """What it sends is read although its pings cannot be answered yet; of those, the last has its answer."""
    async with open_socket(server, f"/flood/{name}") as raw:
        raw.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        await trio.sleep(0.2)
        for number in range(3):
            await raw.send(build_frame(PING, b"%d" % number))
        await trio.sleep(0.2)
        while (frame := await raw.read_frame())[0] == BINARY:
            pass
        assert frame == (PONG, b"2")


async def test_a_handler_that_takes_nothing_holds_its_client_back(server: Served, name: str) -> None:
    async with open_socket(server, f"/still/{name}") as raw:
        await ask(server, f"/ending/{name}")
        message = build_frame(BINARY, bytes(MIB))
        sent = 0
        with trio.move_on_after(1):
            while True:
                await raw.send(message)
                sent += 1
        assert sent < 16  # the kernel's buffers, and two messages


async def test_a_flood_of_small_messages_lets_others_be_answered(server: Served) -> None:
    async with open_socket(server, "/echo") as raw, trio.open_nursery() as nursery:
        nursery.start_soon(drain, raw)
        nursery.start_soon(pour, raw)
        for _ in range(5):
            assert await ask(server, "/hello/a", within_seconds=1) == "hello a"
        nursery.cancel_scope.cancel()


async def drain(raw: RawSocket) -> None:
    while await raw.stream.receive_some(MIB):
        pass


async def pour(raw: RawSocket) -> None:
    frames = build_frame(TEXT) * 1000
    while True:
        await raw.stream.send_all(frames)


async def test_who_takes_one_waiting_message_after_the_other_can_be_cancelled() -> None:
    mailbox = SocketMailbox()
    for _ in range(100):
        await mailbox.put({"type": "websocket.connect"}, 0)
    with trio.CancelScope() as scope:
        scope.cancel()
        for _ in range(100):
            await mailbox.receive()
    assert scope.cancelled_caught


# A server that stops


async def test_a_stop_reaches_the_handler(tmp_path: Path) -> None:
    with serve(tmp_path) as served:
        async with open_socket(served, "/still/one") as raw:
            await ask(served, "/ending/one")
            served.process.send_signal(signal.SIGTERM)
            assert (await raw.read_frame()) == (CLOSE, (1012).to_bytes(2, "big"))
            await raw.send(build_close(1012))
            assert await raw.read_rest() == b""
        assert await wait_exit(served, 3) == 0


async def test_a_handler_that_does_not_stop_is_ended_as_by_a_restart(tmp_path: Path) -> None:
    with serve(tmp_path, grace=0.3) as served:
        async with open_socket(served, "/echo") as raw:
            served.process.send_signal(signal.SIGTERM)
            assert await raw.read_close() == 1012
        assert await wait_exit(served, 3) == 0


# HTTP/2


async def test_a_socket_over_http2_speaks_the_same(server: Served) -> None:
    """https://www.rfc-editor.org/rfc/rfc8441"""
    headers = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"http"), (b":path", b"/echo")]
    headers += [(b":authority", b"test"), (b"sec-websocket-version", UPGRADE["Sec-WebSocket-Version"].encode())]
    async with await connect(server) as stream:
        client = Http2Client(stream)
        stream_id = client.protocol.get_next_available_stream_id()
        client.protocol.send_headers(stream_id, headers)
        client.protocol.send_data(stream_id, build_frame(TEXT, b"hello"))
        await client.flush()
        with trio.fail_after(5):
            while not isinstance(event := await client.next_event(), h2.events.DataReceived):
                pass
        assert event.data == b"\x81\x05hello"
        client.protocol.send_data(stream_id, build_frame(PING, b"p") + build_close(4000))
        await client.flush()
        assert await client.read_answer(stream_id) == ("", b"\x8a\x01p\x88\x02\x0f\xa0")
