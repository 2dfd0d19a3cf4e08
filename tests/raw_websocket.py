"""A WebSocket client in bytes, which can do everything wrong."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import trio

from server.hypercorn_fixes.frame_reader import unmask

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = {
    "Host": "cloche",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}
PATIENCE_SECONDS = 10


def build_handshake(path: str, headers: Mapping[str, str | None] | None = None) -> bytes:
    """With None as its value a header is left out."""
    lines = [f"{name}: {value}" for name, value in {**UPGRADE, **(headers or {})}.items() if value is not None]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()


def build_frame(opcode: int, payload: bytes = b"", *, is_final: bool = True, is_masked: bool = True) -> bytes:
    """As clients send them. A bit too many in `opcode` is a reserved one."""
    size = len(payload)
    mask_bit = 0x80 if is_masked else 0
    if size < 126:
        head = bytes([size | mask_bit])
    elif size < 65536:
        head = bytes([126 | mask_bit]) + size.to_bytes(2, "big")
    else:
        head = bytes([127 | mask_bit]) + size.to_bytes(8, "big")
    head = bytes([opcode | (0x80 if is_final else 0)]) + head
    if not is_masked:
        return head + payload
    key = os.urandom(4)
    return head + key + unmask(payload, key)


def build_close(code: int, reason: bytes = b"") -> bytes:
    return build_frame(CLOSE, code.to_bytes(2, "big") + reason)


@dataclass(slots=True)
class RawSocket:
    """`status` and `headers` are those of the handshake's answer, `rest` what came after its head."""

    stream: trio.SocketStream
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    rest: bytes = b""

    async def send(self, *frames: bytes) -> None:
        await self.stream.send_all(b"".join(frames))

    async def read_frame(self) -> tuple[int, bytes]:
        """Opcode and payload. All frames of this server are whole, and none is masked."""
        first, second = await self._read(2)
        assert first & 0xF0 == 0x80
        assert second < 128
        size = second
        if size > 125:
            size = int.from_bytes(await self._read(2 if size == 126 else 8), "big")
        return first & 0x0F, await self._read(size)

    async def read_close(self) -> int | None:
        """The code of the close frame that comes next; it has to be the last, with nothing but the end after it."""
        opcode, payload = await self.read_frame()
        assert opcode == CLOSE, (opcode, payload[:100])
        assert await self.read_rest() == b""
        return int.from_bytes(payload[:2], "big") if payload else None

    async def read_rest(self) -> bytes:
        """Everything until the server ends the connection."""
        rest, self.rest = self.rest, b""
        with trio.fail_after(PATIENCE_SECONDS):
            return rest + b"".join([bytes(piece) async for piece in self.stream])

    async def _read(self, size: int) -> bytes:
        pieces, have = [self.rest], len(self.rest)
        with trio.fail_after(PATIENCE_SECONDS):
            while have < size:
                piece = bytes(await self.stream.receive_some(1024 * 1024))
                if not piece:
                    raise EOFError("the server has ended the connection")
                pieces.append(piece)
                have += len(piece)
        data = b"".join(pieces)
        self.rest = data[size:]
        return data[:size]


async def open_raw(
    port: int, path: str, headers: Mapping[str, str | None] | None = None, sent_along: bytes = b""
) -> RawSocket:
    """Its handshake has been answered, somehow. `sent_along` goes out without waiting for that. Close the stream."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    with trio.fail_after(PATIENCE_SECONDS):
        await stream.send_all(build_handshake(path, headers) + sent_along)
        received = b""
        while b"\r\n\r\n" not in received:
            piece = bytes(await stream.receive_some())
            assert piece, received
            received += piece
    head, _, rest = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    pairs = [line.split(": ", 1) for line in lines]
    return RawSocket(stream, int(first.split()[1]), {name.lower(): value for name, value in pairs}, rest)
