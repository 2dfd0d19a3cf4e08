"""Devices on bare sockets, for the relay: they speak just enough of its protocol, and parse no JSON.

A WebSocket library costs as much as the server that is measured. Frames of a client have to be masked
(https://www.rfc-editor.org/rfc/rfc6455#section-5.3); ours by zeros, which leave the bytes as they are.
"""

import socket
from collections.abc import Callable, Mapping
from uuid import UUID

from scripts.benchmark.calls import BenchFailed
from scripts.benchmark.reactor import READABLE, WRITABLE, Reactor

READ_BYTES = 256 * 1024
SEND_AHEAD_BYTES = 256 * 1024
"""A terminal writes on as long as less than this waits for the kernel."""
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
NO_MASK = bytes(4)

OnFrame = Callable[["Device", bytes], None]


class Device:
    """One socket and the device behind it. `on_text` gets whatever comes once it is registered."""

    __slots__ = (
        "_has_upgraded", "_incoming", "_outgoing", "_reactor", "_socket", "device_id", "is_registered", "on_binary",
        "on_room", "on_text",
    )  # fmt: skip

    def __init__(self, reactor: Reactor, port: int, headers: Mapping[str, str], device_id: UUID, kind: str) -> None:
        """Connects and registers. `kind` is `desktop` or `mobile`."""
        self._reactor = reactor
        self.device_id = device_id
        self.is_registered = False
        self.on_text: OnFrame = _pass
        self.on_binary: OnFrame = _pass
        self.on_room: Callable[[Device], None] | None = None
        self._has_upgraded = False
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reactor.watch(self._socket.fileno(), READABLE, self._act)
        self._write(build_upgrade(headers, kind))

    @property
    def has_room(self) -> bool:
        return len(self._outgoing) < SEND_AHEAD_BYTES

    def send_text(self, payload: bytes) -> None:
        self._write(build_frame(TEXT, payload))

    def send_binary(self, payload: bytes) -> None:
        self._write(build_frame(BINARY, payload))

    def close(self) -> None:
        self._reactor.forget(self._socket.fileno())
        self._socket.close()

    def _write(self, data: bytes) -> None:
        self._outgoing += data
        self._flush()

    def _flush(self) -> None:
        waited = bool(self._outgoing)
        try:
            while self._outgoing:
                del self._outgoing[: self._socket.send(self._outgoing)]
        except BlockingIOError:
            self._reactor.watch_for(self._socket.fileno(), READABLE | WRITABLE)
            return
        if waited:
            self._reactor.watch_for(self._socket.fileno(), READABLE)

    def _act(self, events: int) -> None:
        if events & WRITABLE:
            self._flush()
        if events & READABLE:
            self._read()
        if self.on_room is not None and self.has_room:
            self.on_room(self)

    def _read(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise BenchFailed(f"a device was left alone: {bytes(self._incoming[:300])!r}")
        self._incoming += data
        if not self._has_upgraded and not self._upgrade():
            return
        for opcode, payload in take_frames(self._incoming):
            self._handle(opcode, payload)

    def _upgrade(self) -> bool:
        head, end, rest = self._incoming.partition(b"\r\n\r\n")
        if not end:
            return False
        if not head.startswith(b"HTTP/1.1 101"):
            raise BenchFailed(f"a device was refused: {bytes(self._incoming[:600])!r}")
        self._has_upgraded, self._incoming = True, rest
        self.send_text(b'{"type":"register","payload":{"deviceId":"%b"}}' % str(self.device_id).encode())
        return True

    def _handle(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self._write(build_frame(PONG, payload))
        elif opcode == BINARY:
            self.on_binary(self, payload)
        elif opcode == CLOSE:
            raise BenchFailed(f"a device's socket was closed: {payload!r}")
        elif opcode == TEXT and self.is_registered:
            self.on_text(self, payload)
        elif payload.startswith(b'{"type":"registered"'):
            self.is_registered = True


def build_upgrade(headers: Mapping[str, str], kind: str) -> bytes:
    lines = ["GET /ws/device-link HTTP/1.1", "Host: bench", "Connection: Upgrade", "Upgrade: websocket"]
    lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==", f"X-Client-Type: {kind}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def build_frame(opcode: int, payload: bytes) -> bytes:
    """A whole frame of a client."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, 0x80 | size)) + NO_MASK + payload
    if size < 65536:
        return bytes((0x80 | opcode, 0xFE)) + size.to_bytes(2, "big") + NO_MASK + payload
    return bytes((0x80 | opcode, 0xFF)) + size.to_bytes(8, "big") + NO_MASK + payload


def take_frames(received: bytearray) -> list[tuple[int, bytes]]:
    """The whole frames of a server at its beginning, which are taken out. None of them is a fragment."""
    frames, at = [], 0
    while len(received) - at >= 2:
        size, start = received[at + 1], at + 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size, start = int.from_bytes(received[start : start + width], "big"), start + width
        if len(received) < start + size:
            break
        frames.append((received[at] & 0x0F, bytes(received[start : start + size])))
        at = start + size
    del received[:at]
    return frames


def _pass(_device: Device, _payload: bytes) -> None:
    pass
