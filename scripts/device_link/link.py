"""One WebSocket of a device, on trio-websocket, and the ways to lose it that a test or a bad network knows.

https://trio-websocket.readthedocs.io. It answers pings by itself, after the app has taken all that came before: its
queue has room for nothing.
"""

import os
import struct
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec
import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    WebSocketConnection,
    wrap_client_stream,
)
from wsproto.utilities import LocalProtocolError

OPENING_SECONDS = 15
CLOSING_SECONDS = 2
MOST_BYTES = 64 * 1024 * 1024
READ_BYTES = 64 * 1024
GONE = 1006
"""The code of a connection that ended without one."""

Message = dict[str, Any]
Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class LinkRefused(Exception):
    """The server said no before the upgrade, or could not be reached: then the status is 0."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"refused: {status}" if status else "cannot be reached")
        self.status = status
        self.headers = headers
        self.body = body


class LinkEnded(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code = code
        self.reason = reason


class Link:
    def __init__(self, connection: WebSocketConnection, stream: Stream) -> None:
        self._connection = connection
        self._stream = stream

    async def receive(self) -> Message | bytes:
        """A text as JSON, or bytes. Raises LinkEnded, after everything that came before the end."""
        try:
            message = await self._connection.get_message()
        except ConnectionClosed as error:
            raise _as_ended(error) from None
        if isinstance(message, bytes):
            return message
        decoded: Message = msgspec.json.decode(message)
        return decoded

    async def send(self, kind: str, payload: object = None) -> None:
        message = {"type": kind} if payload is None else {"type": kind, "payload": payload}
        await self.send_text(msgspec.json.encode(message).decode())

    async def send_text(self, text: str) -> None:
        await self._send(text)

    async def send_bytes(self, data: bytes) -> None:
        await self._send(data)

    async def send_frame(self, opcode: int, payload: bytes, *, is_final: bool = True) -> None:
        """A frame as given, whatever the protocol says of it."""
        if self._connection.closed is not None:
            raise LinkEnded(GONE, "")
        async with self._connection._stream_lock:
            try:
                await self._stream.send_all(build_frame(opcode, payload, is_final=is_final))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise LinkEnded(GONE, "") from None

    def cut(self) -> None:
        """RST: what is on its way in either direction is lost. Safe to repeat."""
        socket = self._tcp.socket
        if socket.fileno() == -1:
            return
        socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0))
        socket.close()

    async def leave(self) -> None:
        """FIN, without a close frame: what we have sent arrives."""
        async with self._connection._stream_lock:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._tcp.send_eof()

    async def close(self, code: int = 1001) -> None:
        """As the apps go away. Waits for the server's answer."""
        with trio.move_on_after(CLOSING_SECONDS):
            await self._connection.aclose(code)

    @property
    def headers(self) -> dict[str, str]:
        """Of the upgrade."""
        return _read_headers(self._connection.handshake_headers)

    @property
    def _tcp(self) -> trio.SocketStream:
        return self._stream.transport_stream if isinstance(self._stream, trio.SSLStream) else self._stream

    async def _send(self, message: str | bytes) -> None:
        try:
            await self._connection.send_message(message)
        except ConnectionClosed as error:
            raise _as_ended(error) from None


@asynccontextmanager
async def open_link(url: str, headers: Mapping[str, str], path: str = "/ws/device-link") -> AsyncIterator[Link]:
    """`url` as of HTTP. Raises LinkRefused, and LinkEnded if the connection breaks while the block waits for something
    else. Whatever ends the block closes the connection: with 1000 if it is open.
    """
    place = urlsplit(url)
    try:
        with trio.fail_after(OPENING_SECONDS):
            stream = await _open_stream(place)
    except (OSError, trio.TooSlowError) as error:
        raise LinkRefused(0, {}, str(error).encode()) from error
    is_over = False
    async with stream:  # trio-websocket leaves some open
        try:
            async with trio.open_nursery() as nursery:
                connection = await _shake_hands(nursery, stream, place, headers, path)
                yield Link(connection, stream)
                is_over = True
                with trio.move_on_after(CLOSING_SECONDS):
                    await connection.aclose()
                nursery.cancel_scope.cancel()
        except ExceptionGroup as group:  # of the nursery here, which trio-websocket reads in
            reason = _find_reason(group)
            if not (is_over and isinstance(reason, LinkEnded)):
                raise reason from None


async def _open_stream(place: SplitResult) -> Stream:
    host = place.hostname or "127.0.0.1"
    if place.scheme != "https":
        return await trio.open_tcp_stream(host, place.port or 80)
    return await trio.open_ssl_over_tcp_stream(host, place.port or 443)


async def _shake_hands(
    nursery: trio.Nursery, stream: Stream, place: SplitResult, headers: Mapping[str, str], path: str
) -> WebSocketConnection:
    """A server that closes instead of answering is one that does not answer in time."""
    with trio.fail_after(OPENING_SECONDS):
        return await wrap_client_stream(
            nursery,
            stream,
            place.netloc,
            place.path.rstrip("/") + path,
            extra_headers=[(name.encode(), value.encode()) for name, value in headers.items()],
            message_queue_size=0,
            max_message_size=MOST_BYTES,
            receive_buffer_size=READ_BYTES,
        )


def _find_reason(group: "ExceptionGroup[Exception]") -> Exception:
    """The nursery is of this module's making alone, so nobody is to see its groups."""
    error = group.exceptions[0] if len(group.exceptions) == 1 else group
    if isinstance(error, ConnectionRejected):
        return LinkRefused(error.status_code, _read_headers(error.headers or ()), error.body or b"")
    if isinstance(error, LocalProtocolError):  # a ping came while it was closing: trio-websocket wants to answer that
        return LinkEnded(GONE, "")
    return LinkRefused(0, {}, b"too slow") if isinstance(error, trio.TooSlowError) else error


def build_frame(opcode: int, payload: bytes, *, is_final: bool = True) -> bytes:
    """As a client sends it, masked: https://www.rfc-editor.org/rfc/rfc6455#section-5.2."""
    size = len(payload)
    if size < 126:
        length = bytes((0x80 | size,))
    elif size < 65536:
        length = bytes((0x80 | 126,)) + size.to_bytes(2, "big")
    else:
        length = bytes((0x80 | 127,)) + size.to_bytes(8, "big")
    mask = os.urandom(4)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    masked = (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")
    return bytes((0x80 * is_final | opcode,)) + length + mask + masked


def _as_ended(error: ConnectionClosed) -> LinkEnded:
    if error.reason is None:
        return LinkEnded(GONE, "")
    return LinkEnded(error.reason.code, error.reason.reason or "")


def _read_headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode().lower(): value.decode() for name, value in pairs}
