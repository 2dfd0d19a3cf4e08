"""One TCP connection to a provider, with TLS or without it. Closing never waits.

trio.SSLStream closes with a wait and hides what has been read ahead; here a read returns everything that it brought,
and an abandoned connection is reset, so that the provider cannot take the end for a half-close and go on.
"""

import contextlib
import socket
import ssl
import struct

import trio

_PIECE_BYTES = 64 * 1024
_READ_BYTES = 16 * 1024
"""More would cost the others their turn: what one read brings is parsed, encoded and sent in one go, and a provider
that floods us has 140 events in this."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

_KEEP_ALIVE_PROBES = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""A provider that vanished without a word is noticed after a minute, also while a model thinks."""


class Wire:
    """An open connection, for one task at a time, or one that reads by receive_nowait and one that sends. What fails
    raises OSError, of which ssl.SSLError is one.
    """

    __slots__ = ("_socket", "_tls", "is_closed")

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._tls: _Tls | None = None
        self.is_closed = False

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Agrees on TLS and checks that the peer is `host`."""
        tls = _Tls(context, host)
        while not tls.shake_hands():
            await self._send_raw(tls.take_outgoing())
            tls.feed(await self._receive_raw())
        await self._send_raw(tls.take_outgoing())
        self._tls = tls

    async def send_some(self, data: memoryview) -> int:
        """Sends the beginning of `data`; says how much."""
        if self._tls is None:
            return await self._send_raw_some(data)
        piece = data[:_PIECE_BYTES]
        self._tls.write(piece)
        await self._send_raw(self._tls.take_outgoing())
        return len(piece)

    def send_nowait(self, data: memoryview) -> int:
        """Takes of the beginning of `data` what goes without waiting; says how much. TLS may have taken what the socket
        has not: that is `has_unsent`, goes out first, and needs this to be called again, with nothing if need be.
        """
        tls = self._tls
        if tls is None:
            return _send_nowait(self._socket, data)
        self._flush_nowait(tls)
        if tls.unsent:
            return 0
        piece = data[:_PIECE_BYTES]
        tls.write(piece)
        tls.unsent = memoryview(tls.take_outgoing())
        self._flush_nowait(tls)
        return len(piece)

    @property
    def has_unsent(self) -> bool:
        return self._tls is not None and len(self._tls.unsent) > 0

    async def wait_room(self) -> None:
        """Until send_nowait may send something."""
        await trio.lowlevel.wait_writable(self._socket)

    def receive_nowait(self) -> bytes | None:
        """Everything that one read of the socket brings; None if nothing has come, b"" if the peer has ended."""
        tls = self._tls
        if tls is None:
            return _read_nowait(self._socket)
        while not tls.has_incoming or (data := tls.decrypt()) is None:
            raw = _read_nowait(self._socket)
            if raw is None:
                return None
            tls.feed(raw)
        return data

    async def receive_some(self) -> bytes:
        """Everything that one read of the socket brings, after waiting for it; b"" if the peer has ended."""
        data = self.receive_nowait()
        return await self.receive_later() if data is None else data

    async def receive_later(self) -> bytes:
        """As receive_some, but waits before it looks. What has been read is never lost to a cancel."""
        if self._tls is not None and self._tls.has_outgoing:
            await self._send_raw(self._tls.take_outgoing())  # the answer to a key update
        if self._tls is None or not self._tls.has_incoming:
            await trio.lowlevel.wait_readable(self._socket)
        while (data := self.receive_nowait()) is None:
            await trio.lowlevel.wait_readable(self._socket)
        return data

    async def wait_incoming(self) -> None:
        """Until receive_nowait may bring something: for a task that reads while another one sends. It sends nothing
        itself; the answer to a key update goes out before what is sent next, which is soon enough for TLS.
        """
        await trio.lowlevel.wait_readable(self._socket)

    @property
    def protocol(self) -> str | None:
        """What was agreed on by ALPN."""
        return None if self._tls is None else self._tls.protocol

    def is_idle(self) -> bool:
        """Whether the peer has neither ended nor said anything: only then may another request be sent."""
        try:
            return self.receive_nowait() is None
        except OSError:
            return False

    def interrupt(self) -> None:
        """Wakes the task that waits for this connection, if one does, with trio.ClosedResourceError."""
        if not self.is_closed:
            trio.lowlevel.notify_closing(self._socket)

    def close(self, *, reset: bool) -> None:
        """Closes at once. `reset` drops what is still unsent, and tells the peer that nobody will read on."""
        if self.is_closed:
            return
        self.is_closed = True
        trio.lowlevel.notify_closing(self._socket)
        if reset:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._socket.close()

    def _flush_nowait(self, tls: "_Tls") -> None:
        if tls.unsent:
            tls.unsent = tls.unsent[_send_nowait(self._socket, tls.unsent) :]

    async def _receive_raw(self) -> bytes:
        while (data := _read_nowait(self._socket)) is None:
            await trio.lowlevel.wait_readable(self._socket)
        return data

    async def _send_raw(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[await self._send_raw_some(left) :]

    async def _send_raw_some(self, data: memoryview) -> int:
        while True:
            try:
                return self._socket.send(data)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket)


async def open_tcp(host: str, port: int) -> Wire:
    """Connects, to whichever of the host's addresses answers first. Raises OSError; the caller closes the wire."""
    stream = await trio.open_tcp_stream(host, port)
    connected = socket.socket(fileno=stream.socket.detach())
    wire = Wire(connected)
    try:
        _set_options(connected)
    except OSError:
        wire.close(reset=True)
        raise
    return wire


def _set_options(connected: socket.socket) -> None:
    connected.setblocking(False)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE_PROBES:
        option = getattr(socket, name, None)  # macOS has not all of them
        if option is not None:
            connected.setsockopt(socket.IPPROTO_TCP, option, value)


def _read_nowait(connected: socket.socket) -> bytes | None:
    try:
        return connected.recv(_READ_BYTES)
    except BlockingIOError:
        return None


def _send_nowait(connected: socket.socket, data: memoryview) -> int:
    try:
        return connected.send(data)
    except BlockingIOError:
        return 0


class _Tls:
    """The client's side of TLS between two buffers in memory, without I/O. `unsent` is what the wire has still to send
    of what it has taken from here.
    """

    __slots__ = ("_incoming", "_is_ended", "_object", "_outgoing", "unsent")

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._is_ended = False
        self.unsent = memoryview(b"")

    @property
    def has_incoming(self) -> bool:
        return self._is_ended or self._incoming.pending > 0

    @property
    def has_outgoing(self) -> bool:
        return self._outgoing.pending > 0

    @property
    def protocol(self) -> str | None:
        return self._object.selected_alpn_protocol()

    def take_outgoing(self) -> bytes:
        return self._outgoing.read()

    def feed(self, data: bytes) -> None:
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
            self._is_ended = True

    def shake_hands(self) -> bool:
        """Whether the handshake is done; if it is not, there is something to send or to be received."""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def write(self, data: memoryview) -> None:
        self._object.write(data)

    def decrypt(self) -> bytes | None:
        """What has been fed. None if more has to come, b"" after TLS's farewell; an end without that raises."""
        records: list[bytes] = []
        try:
            while record := self._object.read(_PIECE_BYTES):
                records.append(record)
        except ssl.SSLWantReadError:
            return b"".join(records) if records else None
        self._is_ended = True
        return b"".join(records)
