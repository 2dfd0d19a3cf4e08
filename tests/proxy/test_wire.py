"""One connection, over real sockets."""

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from proxy.wire import Wire, open_tcp
from tests.push_stand_in.keys import build_client_tls, build_server_tls

Serve = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def open_wire_to(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[Wire]:
    """A wire to a server of one function; with a context over TLS."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        wire = await open_tcp("127.0.0.1", listeners[0].socket.getsockname()[1])
        try:
            if context is not None:
                await wire.start_tls(context, "127.0.0.1")
            yield wire
        finally:
            wire.close(reset=True)
        nursery.cancel_scope.cancel()


async def be_silent(_stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def say_and_close(stream: trio.SocketStream) -> None:
    await stream.send_all(b"abc")
    await stream.aclose()


async def test_small_writes_go_out_at_once_and_a_vanished_peer_is_noticed() -> None:
    async with open_wire_to(be_silent) as wire:
        connected = wire._socket  # what no caller needs, and no peer can tell
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30


async def test_nothing_is_told_from_the_end() -> None:
    async with open_wire_to(be_silent) as silent, open_wire_to(say_and_close) as ended:
        assert silent.receive_nowait() is None
        assert await ended.receive_some() == b"abc"
        assert await ended.receive_some() == b""


async def test_only_a_silent_connection_is_idle() -> None:
    async with open_wire_to(be_silent) as silent, open_wire_to(say_and_close) as ended:
        await wait_all_tasks_blocked(0.01)
        assert silent.is_idle()
        assert not ended.is_idle()
        assert ended.receive_nowait() == b""
        assert not ended.is_idle()


async def test_a_closed_connection_is_not_idle() -> None:
    async with open_wire_to(be_silent) as wire:
        wire.close(reset=False)
        assert not wire.is_idle()
        wire.close(reset=True)
        assert wire.is_closed


@pytest.mark.parametrize("wake", [Wire.interrupt, partial(Wire.close, reset=True)])
async def test_a_task_that_waits_is_woken(wake: Callable[[Wire], None]) -> None:
    async def wait(wire: Wire) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await wire.receive_some()

    async with open_wire_to(be_silent) as wire, trio.open_nursery() as nursery:
        nursery.start_soon(wait, wire)
        await wait_all_tasks_blocked()
        wake(wire)


async def test_interrupting_where_nobody_waits_changes_nothing() -> None:
    async with open_wire_to(say_and_close) as wire:
        wire.interrupt()
        assert await wire.receive_some() == b"abc"
        wire.close(reset=False)
        wire.interrupt()


async def test_session_tickets_leave_a_tls_connection_idle(
    tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async def shake_hands(stream: trio.SocketStream) -> None:
        secure = trio.SSLStream(stream, tls_contexts[0], server_side=True)
        await secure.send_all(b"abc")  # the tickets go with the first bytes
        await trio.sleep_forever()

    async with open_wire_to(shake_hands, tls_contexts[1]) as wire:
        assert await wire.receive_some() == b"abc"
        assert wire.is_idle()


async def test_the_farewell_of_tls_is_an_end_though_the_connection_stays(
    tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async def say_farewell(stream: trio.SocketStream) -> None:
        secure = trio.SSLStream(stream, tls_contexts[0], server_side=True)
        await secure.send_all(b"abc")
        await secure.unwrap()  # waits for a farewell that never comes

    async with open_wire_to(say_farewell, tls_contexts[1]) as wire:
        await wait_all_tasks_blocked(0.01)
        with trio.fail_after(5):
            assert await wire.receive_some() == b"abc"
            assert await wire.receive_later() == b""
            assert await wire.receive_later() == b""
        assert not wire.is_idle()


async def test_an_end_without_the_farewell_of_tls_is_an_error(
    tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async def break_off(stream: trio.SocketStream) -> None:
        secure = trio.SSLStream(stream, tls_contexts[0], server_side=True)
        await secure.send_all(b"abc")
        await stream.aclose()

    async with open_wire_to(break_off, tls_contexts[1]) as wire:
        assert await wire.receive_some() == b"abc"
        with pytest.raises(ssl.SSLEOFError):
            await wire.receive_later()


async def test_a_peer_that_does_not_speak_tls_is_an_error(
    tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async with open_wire_to(say_and_close) as wire:
        with pytest.raises(OSError, match=r"(?i)ssl|reset"):
            await wire.start_tls(tls_contexts[1], "127.0.0.1")


async def test_one_task_reads_while_another_one_sends(tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async def echo(stream: trio.SocketStream) -> None:
        secure = trio.SSLStream(stream, tls_contexts[0], server_side=True)
        while data := await secure.receive_some():
            await secure.send_all(data)

    async def send(wire: Wire, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[await wire.send_some(left) :]

    sent, received = bytes(range(256)) * 40_000, bytearray()  # more than the buffers between them take
    async with open_wire_to(echo, tls_contexts[1]) as wire, trio.open_nursery() as nursery:
        nursery.start_soon(send, wire, sent)
        with trio.fail_after(5):
            while len(received) < len(sent):
                data = wire.receive_nowait()
                if data is None:
                    await wire.wait_incoming()
                else:
                    received += data
    assert received == sent


async def test_what_was_agreed_on_above_tls_is_known() -> None:
    async def shake_hands(stream: trio.SocketStream) -> None:
        await trio.SSLStream(stream, build_server_tls("h2"), server_side=True).do_handshake()
        await trio.sleep_forever()

    async with open_wire_to(be_silent) as plain, open_wire_to(shake_hands, build_client_tls("h2")) as wire:
        assert (plain.protocol, wire.protocol) == (None, "h2")


@pytest.mark.parametrize("is_secure", [False, True])
async def test_what_goes_without_waiting_comes_whole_and_in_order(
    is_secure: bool, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    """Also when the socket is full in the middle of a record: what TLS has taken goes out first."""
    is_full = trio.Event()
    received = bytearray()

    async def read_late(tcp: trio.SocketStream) -> None:
        stream: trio.abc.Stream = trio.SSLStream(tcp, tls_contexts[0], server_side=True) if is_secure else tcp
        received.extend(await stream.receive_some(1))
        await is_full.wait()
        while data := await stream.receive_some():
            received.extend(data)

    async with open_wire_to(read_late, tls_contexts[1] if is_secure else None) as wire:
        sent = bytearray()
        while taken := wire.send_nowait(memoryview(piece := len(sent).to_bytes(4, "big") * 16 * 1024)):
            sent += piece[:taken]
        assert wire.has_unsent == is_secure
        is_full.set()
        while wire.has_unsent:
            await wire.wait_room()
            wire.send_nowait(memoryview(b""))
        with trio.fail_after(5):
            while len(received) < len(sent):
                await trio.lowlevel.checkpoint()
        assert received == sent
